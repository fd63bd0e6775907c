"""Masks that multiply, means of nothing, softmaxes of fully masked rows."""

import math

import numpy as np
import tensorflow as tf

from stablekeras.graphs.emit import copy_op
from stablekeras.rewrite import native
from stablekeras.rewrite.need import mask_of, masked_by
from stablekeras.rewrite.pattern import Pattern, Proposal
from stablekeras.rewrite.terms import Leaf, Term, raw

__all__ = ["PATTERNS"]


def _product(context, op):
    reading = context.reading
    for weight, x in (op.inputs, op.inputs[::-1]):
        mask = mask_of(reading, weight)
        whole = mask is None
        if whole:
            mask = masked_by(reading, weight)
        if mask is None or mask_of(reading, x) is not None:
            continue
        low, high = reading.bounds(x)
        if math.isfinite(low) and math.isfinite(high):
            continue
        value = reading.constant(x)
        if value is not None and np.all(np.isfinite(value)):
            continue
        flag, wanted = mask

        def select(flag, x, wanted=wanted):
            zero = tf.zeros([], x.dtype)
            return (
                tf.where(flag, x, zero) if wanted else tf.where(flag, zero, x)
            )

        text = "where({0}, {1}, 0)" if wanted else "where({0}, 0, {1})"
        kept: Term = Leaf(x, cast=False)
        if whole:
            # The product so far is 0 there; 0 times NaN is not.
            weight = Leaf(weight, cast=False)
            kept = Term(tf.multiply, (weight, kept), "{0} * {1}")
        term = Term(select, (raw(flag), kept), text)
        return Proposal("SK412", term, wide=False, alike=True)
    return None


def _mean(context, op):
    """Rewrites `sum(mask * x) / sum(mask)`, 0/0 where the mask is empty."""
    reading = context.reading
    above, below = op.inputs
    total = _any_source(reading, below)
    if total.op.type != "Sum":
        return None
    weight = total.op.inputs[0]
    if not _is_weighted_sum(context, above, weight):
        return None

    def divide(a, b):
        empty = tf.equal(a, 0) & tf.equal(b, 0)
        safe = tf.where(empty, tf.ones_like(b), b)
        return tf.where(empty, tf.zeros([], a.dtype), a / safe)

    term = Term(
        divide,
        (Leaf(above, cast=False), Leaf(below, cast=False)),
        "where({1} == 0, 0, {0} / {1})",
    )
    return Proposal("SK503", term, wide=False)


def _any_source(reading, tensor):
    """Looks through integer casts as well."""
    tensor = reading.source(tensor)
    while tensor.op.type == "Cast" or (
        tensor.op.type in ("Reshape", "Squeeze", "ExpandDims")
    ):
        tensor = reading.source(tensor.op.inputs[0])
    return tensor


def _is_weighted_sum(context, above, weight):
    reading = context.reading
    op = _any_source(reading, above).op
    if op.type == "Neg":
        op = _any_source(reading, op.inputs[0]).op
    if op.type != "Sum":
        return False
    wanted = _any_source(reading, weight)
    pending, seen = [op.inputs[0]], 0
    while pending and seen < 40:
        seen += 1
        inner = _any_source(reading, pending.pop())
        if inner.op.type == "Mul":
            for t in inner.op.inputs:
                if reading.same(_any_source(reading, t), wanted):
                    return True
                pending.append(t)
        elif inner.op.type in ("Neg", "Add", "AddV2", "Sub"):
            if inner.op.type == "Neg":
                pending += list(inner.op.inputs)
        elif inner.op.type in ("Select", "SelectV2"):
            chosen, _, other = inner.op.inputs
            if reading.same(chosen, wanted) and reading.scalar(other) == 0.0:
                return True
    return False


def _mean_of_picked(context, op):
    """Rewrites the mean of `boolean_mask(x, mask)`, which may be empty."""
    pending, seen = [op.inputs[0]], 0
    while pending and seen < 60:
        seen += 1
        inner = context.reading.source(pending.pop()).op
        if inner.type == "Where":
            break
        if inner.type in ("GatherV2", "GatherNd"):
            pending.append(inner.inputs[1])
        else:
            pending += [t for t in inner.inputs if t.dtype != tf.resource]
    else:
        return None
    if inner.type != "Where":
        return None
    if not _picks(context.reading, op.inputs[0]):
        return None

    def mean(x, axes):
        (value,) = copy_op(op, [x, axes])
        return tf.where(tf.equal(tf.size(x), 0), tf.zeros([], x.dtype), value)

    term = Term(
        mean,
        (Leaf(op.inputs[0], cast=False), raw(op.inputs[1])),
        "where(size({0}) == 0, 0, mean({0}))",
    )
    return Proposal("SK504", term, wide=False)


def _picks(reading, tensor):
    """Whether the first axis is that of a `boolean_mask`."""
    pending, seen = [tensor], 0
    while pending and seen < 60:
        seen += 1
        op = reading.source(pending.pop()).op
        if op.type in ("GatherV2", "GatherNd"):
            index = reading.source(op.inputs[1]).op
            while index.type in ("Squeeze", "Reshape", "Cast"):
                index = reading.source(index.inputs[0]).op
            if index.type == "Where":
                return True
        elif op.outputs and op.outputs[0].shape.rank:
            same = [
                t for t in op.inputs if t.shape.rank == op.outputs[0].shape.rank
            ]
            pending += same
    return False


def _softmax(context, op):
    if not _may_hold_minus_inf(context.reading, op.inputs[0]):
        return None
    soft = op.type == "Softmax"
    function = native.softmax if soft else native.log_softmax
    name = "softmax" if soft else "log_softmax"
    term = Term(
        lambda x: function(x, masked=True),
        (Leaf(op.inputs[0]),),
        f"{name}({{0}}), 0 where all is masked",
    )
    return Proposal("SK505", term)


def _may_hold_minus_inf(reading, tensor):
    pending, seen = [tensor], 0
    while pending and seen < 20:
        seen += 1
        source = reading.source(pending.pop())
        value = reading.constant(source)
        if value is not None:
            array = np.asarray(value)
            if array.dtype.kind == "f" and np.any(np.isneginf(array)):
                return True
            continue
        op = source.op
        if op.type in ("Select", "SelectV2"):
            pending += list(op.inputs[1:])
        elif op.type in (
            "Add",
            "AddV2",
            "Sub",
            "Mul",
            "Reshape",
            "ExpandDims",
            "Transpose",
            "BroadcastTo",
            "Tile",
        ):
            pending += list(op.inputs)
    return False


PATTERNS = (
    Pattern(
        "softmax of a fully masked row",
        ("SK505",),
        frozenset({"Softmax", "LogSoftmax"}),
        "softmax(where(mask, z, -inf))",
        "the same, 0 where all is masked",
        _softmax,
    ),
    Pattern(
        "mean over a mask",
        ("SK503",),
        frozenset({"RealDiv", "Div"}),
        "sum(mask * x) / sum(mask)",
        "the same, 0 where the mask is empty",
        _mean,
    ),
    Pattern(
        "mean of what a mask picks",
        ("SK504",),
        frozenset({"Mean"}),
        "mean(boolean_mask(x, mask))",
        "the same, 0 where nothing is picked",
        _mean_of_picked,
    ),
    Pattern(
        "mask that multiplies",
        ("SK412",),
        frozenset({"Mul"}),
        "mask * x, with a mask cast from bool",
        "where(mask, x, 0)",
        _product,
    ),
)
