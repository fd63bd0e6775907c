"""Roots and norms at zero, where the derivative is taken to be zero."""

import tensorflow as tf

from stablekeras.graphs.emit import copy_op
from stablekeras.rewrite.pattern import Pattern, Proposal
from stablekeras.rewrite.terms import Leaf, Term, raw

__all__ = ["PATTERNS", "zero_gradient_sqrt"]

_SQUARES = ("Square", "SquaredDifference")


def zero_gradient_sqrt(x):
    """Computes `sqrt(x)` with derivative 0 at 0."""
    zero = tf.equal(x, 0)
    root = tf.sqrt(tf.where(zero, tf.ones_like(x), x))
    return tf.where(zero, tf.zeros_like(x), root)


def _sqrt(context, op):
    x = op.inputs[0]
    if _stays_positive(context.reading, x):
        return None
    term = Term(
        zero_gradient_sqrt,
        (Leaf(x, cast=False),),
        "where({0} == 0, 0, sqrt({0}))",
    )
    return Proposal(_code(context.reading, x), term, wide=False)


def _stays_positive(reading, x):
    if reading.bounds(x)[0] > 0:
        return True
    source = reading.source(x)
    if source.op.type in ("Add", "AddV2"):
        return any((reading.scalar(t) or 0.0) > 0 for t in source.op.inputs)
    if source.op.type in ("Select", "SelectV2"):
        return any((reading.scalar(t) or 0.0) > 0 for t in source.op.inputs[1:])
    return False


def _code(reading, x):
    op = reading.source(x).op
    for _ in range(8):
        if op.type in ("Squeeze", "Reshape", "Maximum", "Relu", "ExpandDims"):
            op = reading.source(op.inputs[0]).op
    inner = reading.source(op.inputs[0]).op if op.inputs else op
    if op.type == "Mean":
        return "SK403" if inner.type in _SQUARES else "SK401"
    squared = op if op.type in (*_SQUARES, "Mul") else inner
    if squared.type in _SQUARES or (
        squared.type == "Mul" and reading.same(*squared.inputs)
    ):
        return "SK402"
    return "SK402" if op.type == "Sum" else "SK401"


def _power(context, op):
    exponent = context.reading.scalar(op.inputs[1])
    if exponent is None or not 0 < exponent < 1:
        return None
    x = op.inputs[0]
    if _stays_positive(context.reading, x):
        return None

    def power(value, c):
        zero = tf.equal(value, 0)
        safe = tf.where(zero, tf.ones_like(value), value)
        (result,) = copy_op(op, [safe, c])
        return tf.where(zero, tf.zeros_like(result), result)

    term = Term(
        power,
        (Leaf(x, cast=False), raw(op.inputs[1])),
        f"where({{0}} == 0, 0, {{0}} ** {exponent:g})",
    )
    return Proposal("SK406", term, wide=False)


def _norm(context, op):
    def norm(x, axes):
        return zero_gradient_sqrt(
            tf.reduce_sum(tf.square(x), axes, keepdims=op.get_attr("keep_dims"))
        )

    term = Term(
        norm,
        (Leaf(op.inputs[0]), raw(op.inputs[1])),
        "norm({0}) with derivative 0 at 0",
    )
    return Proposal("SK402", term)


PATTERNS = (
    Pattern(
        "root at zero",
        ("SK401", "SK402", "SK403"),
        frozenset({"Sqrt"}),
        "sqrt(x), sqrt(sum(x ** 2)), sqrt(variance(x))",
        "the same with derivative 0 at 0",
        _sqrt,
    ),
    Pattern(
        "power at zero",
        ("SK406",),
        frozenset({"Pow"}),
        "x ** 0.5",
        "the same with derivative 0 at 0",
        _power,
    ),
    Pattern(
        "norm at zero",
        ("SK402",),
        frozenset({"EuclideanNorm"}),
        "reduce_euclidean_norm(x)",
        "the same with derivative 0 at 0",
        _norm,
    ),
)
