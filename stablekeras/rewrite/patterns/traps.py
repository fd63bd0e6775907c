"""Ops that fail where a select or a mask leaves them out: the double where.

A select discards the value that was not chosen, but its derivative is
0 * Inf = NaN. So the op itself is kept away from what it cannot take.
"""

import math

import tensorflow as tf

from stablekeras.graphs.emit import copy_op
from stablekeras.rewrite.pattern import Pattern, Proposal
from stablekeras.rewrite.patterns.roots import zero_gradient_sqrt
from stablekeras.rewrite.shield import shield
from stablekeras.rewrite.terms import Leaf, Term, raw
from stablekeras.rewrite.text import formula

__all__ = ["PATTERNS"]

# Op: place of the input that matters, a value it can take, where it fails.
_HAZARDS = {
    "Log": (0, 1.0, lambda x: x <= 0),
    "Log1p": (0, 0.0, lambda x: x <= -1),
    "Sqrt": (0, 1.0, lambda x: x <= 0),
    "Rsqrt": (0, 1.0, lambda x: x <= 0),
    "Reciprocal": (0, 1.0, lambda x: tf.equal(x, 0)),
    "Inv": (0, 1.0, lambda x: tf.equal(x, 0)),
    # XLA divides by the square of x in the derivative.
    "RealDiv": (1, 1.0, lambda x: tf.equal(x * x, 0)),
    "Div": (1, 1.0, lambda x: tf.equal(x * x, 0)),
    "Pow": (0, 1.0, lambda x: x <= 0),
    "Xlogy": (1, 1.0, lambda x: x <= 0),
    "Xdivy": (1, 1.0, lambda x: tf.equal(x, 0)),
    "Exp": (0, 0.0, lambda x: tf.math.is_inf(tf.exp(x)) & (x > 0)),
    "Expm1": (0, 0.0, lambda x: tf.math.is_inf(tf.exp(x)) & (x > 0)),
    "Cosh": (0, 0.0, lambda x: tf.math.is_inf(tf.cosh(x))),
    "Sinh": (0, 0.0, lambda x: tf.math.is_inf(tf.sinh(x))),
    "Acos": (0, 0.0, lambda x: tf.abs(x) >= 1),
    "Asin": (0, 0.0, lambda x: tf.abs(x) >= 1),
    "Atanh": (0, 0.0, lambda x: tf.abs(x) >= 1),
    "Erfinv": (0, 0.0, lambda x: tf.abs(x) >= 1),
    "Ndtri": (0, 0.5, lambda x: (x <= 0) | (x >= 1)),
    "Acosh": (0, 2.0, lambda x: x <= 1),
    "Lgamma": (0, 1.0, lambda x: x <= 0),
    "Digamma": (0, 1.0, lambda x: x <= 0),
}
# Bounds within which an op neither fails nor has an infinite derivative.
_SAFE = {
    "Log1p": (-0.99, math.inf),
    "Exp": (-math.inf, 80.0),
    "Expm1": (-math.inf, 80.0),
    "Cosh": (-80.0, 80.0),
    "Sinh": (-80.0, 80.0),
    "Acos": (-0.99, 0.99),
    "Asin": (-0.99, 0.99),
    "Atanh": (-0.99, 0.99),
    "Erfinv": (-0.99, 0.99),
    "Ndtri": (0.01, 0.99),
    "Acosh": (1.01, math.inf),
}


def _trap(context, op):
    need = context.need(op)
    need = _fitting(op, need)
    if not need or not all(need):
        return None
    place, safe, fails = _HAZARDS[op.type]
    x = op.inputs[place]
    if _is_safe(context.reading, op, x):
        return None
    others = [raw(t) for i, t in enumerate(op.inputs) if i != place]

    def guarded(value, *rest):
        if op.type == "Sqrt":
            return zero_gradient_sqrt(value)
        inputs = list(rest)
        inputs.insert(place, value)
        (result,) = copy_op(op, inputs)
        return result

    kept = shield(need, Leaf(x, cast=False), safe, fails)
    term = Term(guarded, [kept, *others], f"{op.type.lower()}({{0}})")
    first = need[0][-1]
    code = "SK404"
    if first.select.type == "Mul":
        code = "SK412" if first.kind == "mask" else "SK108"
    leaves = {id(t) for t in (x, context.reading.source(x))}
    before = formula(first.select.outputs[0], leaves, context.reading)
    return Proposal(code, term, before=before, wide=False)


def _is_safe(reading, op, x):
    low, high = reading.bounds(x)
    if op.type in _SAFE:
        inside = _SAFE[op.type]
        if low >= inside[0] and high <= inside[1]:
            return True
    elif low > 0 or (op.type in ("RealDiv", "Div", "Reciprocal") and high < 0):
        return True
    if op.type == "Pow":
        exponent = reading.scalar(op.inputs[1])
        if exponent is not None and exponent >= 1:
            return exponent == int(exponent) or low >= 0
    source = reading.source(x)
    if source.op.type in ("Select", "SelectV2"):
        # The input is selected already: the double where is there.
        return any(
            (value := reading.scalar(t)) is not None and math.isfinite(value)
            for t in source.op.inputs[1:]
        )
    if source.op.type in ("Add", "AddV2"):
        guarded = any((reading.scalar(c) or 0.0) > 0 for c in source.op.inputs)
        # A root of a negative number is NaN whatever was added.
        return guarded and op.type in ("Log", "RealDiv", "Div", "Reciprocal")
    return False


def _fitting(op, need):
    """Drops the weights that say nothing of an op.

    Only `0 * log(0)` has a limit; 0 times another infinity has none.
    """
    if not need:
        return need
    inside_log = op.type in ("RealDiv", "Div") and any(
        user.type == "Log" for user in op.outputs[0].consumers()
    )
    if op.type in ("Log", "Log1p") or inside_log:
        return need
    return tuple(tuple(c for c in one if c.kind == "mask") for one in need)


PATTERNS = (
    Pattern(
        "where trap",
        ("SK404", "SK412", "SK108"),
        frozenset(_HAZARDS),
        "where(c, log(x), 0), mask * log(x), x * log(x), y * log(y / p)",
        "where(c, log(where(c, x, 1)), 0), x * log(where(x == 0, 1, x))",
        _trap,
    ),
)
