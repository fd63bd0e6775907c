"""Operations of TensorFlow that only move values: done to logits as well.

What a reshape, a slice or a concatenation did to probabilities is done to
their logits, and the axis of a softmax is followed. Where the classes of a
softmax no longer stand along one axis, each share is taken as the sigmoid of
its own logit, `log(p / (1 - p))`.
"""

import numpy as np
import tensorflow as tf

from stablekeras.losses.kernels import rest_sums
from stablekeras.losses.operands import new_axis, slice_kinds

__all__ = ["is_move", "move", "moved_inputs"]

_SLICE = "begin_mask end_mask ellipsis_mask new_axis_mask shrink_axis_mask"


def is_move(op):
    """Whether `move` can follow the operation."""
    return op.type in _AXES


def moved_inputs(op):
    """Returns the inputs whose values the operation moves."""
    if op.type == "ConcatV2":
        return list(op.inputs)[:-1]
    if op.type == "Pack":
        return list(op.inputs)
    return [op.inputs[1 if op.type == "Split" else 0]]


def move(tensor, kind, logits, axis):
    """Does to logits what was done to their probabilities.

    Args:
        tensor: Output of the operation.
        kind: `"softmax"` or `"sigmoid"`.
        logits: One tensor for each of `moved_inputs`.
        axis: Axis of the softmax, negative, or None.

    Returns:
        `(kind, logits, axis)` of the output, or None if unsure.
    """
    op = tensor.op
    shapes = [x.shape for x in moved_inputs(op)]
    if any(
        shape.rank is None or shape.rank != x.shape.rank
        for shape, x in zip(shapes, logits, strict=True)
    ):
        return None
    place = None
    if kind == "softmax":
        rank = shapes[0].rank
        place = _AXES[op.type](op, axis % rank)
    if place is None and kind == "softmax":
        kind, logits = "sigmoid", [_own_logits(x, axis) for x in logits]
    out = _again(op, tensor.value_index, logits)
    out.set_shape(tensor.shape)
    if place is None:
        return kind, out, None
    return kind, out, place - out.shape.rank


def _own_logits(x, axis):
    log_p, log_rest = rest_sums(x, axis)
    return log_p - log_rest


def _again(op, index, logits):
    """Runs the operation once more, on logits."""
    x, inputs = logits[0], op.inputs
    if op.type == "Reshape":
        return tf.reshape(x, inputs[1])
    if op.type == "Squeeze":
        return tf.squeeze(x, op.get_attr("squeeze_dims") or None)
    if op.type == "ExpandDims":
        return tf.expand_dims(x, inputs[1])
    if op.type == "Transpose":
        return tf.transpose(x, inputs[1])
    if op.type == "StridedSlice":
        masks = {name: op.get_attr(name) for name in _SLICE.split()}
        return tf.raw_ops.StridedSlice(
            input=x,
            begin=inputs[1],
            end=inputs[2],
            strides=inputs[3],
            **masks,
        )
    if op.type == "GatherV2":
        batch = op.get_attr("batch_dims")
        return tf.gather(x, inputs[1], axis=inputs[2], batch_dims=batch)
    if op.type == "Unpack":
        return tf.unstack(x, op.get_attr("num"), op.get_attr("axis"))[index]
    if op.type == "Split":
        return tf.split(x, op.get_attr("num_split"), inputs[0])[index]
    if op.type == "SplitV":
        return tf.split(x, inputs[1], inputs[2], len(op.outputs))[index]
    if op.type == "ConcatV2":
        return tf.concat(logits, inputs[-1])
    return tf.stack(logits, op.get_attr("axis"))


# Where an axis is after each operation; None if it is gone, or unsure.


def _kept_by_reshape(op, place):
    before, after = op.inputs[0].shape, op.outputs[0].shape
    if before[place] is None or after.rank is None:
        return None
    inner = before[place + 1 :].num_elements()
    for i, size in enumerate(after):
        if size == before[place] and inner == after[i + 1 :].num_elements():
            return None if inner is None else i
    return None


def _kept_by_transpose(op, place):
    order = _static(op.inputs[1])
    return None if order is None else list(order).index(place)


def _kept_by_expansion(op, place):
    new = new_axis(op)
    if new is None:
        return None
    new %= op.inputs[0].shape.rank + 1
    return place + (new <= place)


def _kept_by_squeeze(op, place):
    before = op.inputs[0].shape
    gone = [d % before.rank for d in op.get_attr("squeeze_dims")]
    if not gone:
        if None in before:
            return None
        gone = [i for i, d in enumerate(before) if d == 1]
    return None if place in gone else place - sum(d < place for d in gone)


def _kept_by_slice(op, place):
    kinds = slice_kinds(op)
    if kinds is None:
        return None
    if "all" not in kinds:
        kinds = [*kinds, "all"]
    rest = op.inputs[0].shape.rank - sum(
        kind not in ("new", "all") for kind in kinds
    )
    # Of each input axis: its place in the output, or None.
    fates: list[int | None] = []
    place_out = 0
    for kind in kinds:
        if kind == "all":
            fates += range(place_out, place_out + rest)
            place_out += rest
        elif kind == "new":
            place_out += 1
        else:
            fates.append(place_out if kind == "full" else None)
            place_out += kind != "single"
    return fates[place]


def _kept_by_gather(op, place):
    axis, indices = _static(op.inputs[2]), op.inputs[1].shape.rank
    if axis is None or indices is None or op.get_attr("batch_dims"):
        return None
    axis = int(axis) % op.inputs[0].shape.rank
    if axis == place:
        return None
    return place + (indices - 1 if axis < place else 0)


def _kept_by_unpack(op, place):
    axis = op.get_attr("axis") % op.inputs[0].shape.rank
    return None if axis == place else place - (axis < place)


def _kept_by_stack(op, place):
    axis = op.get_attr("axis") % op.outputs[0].shape.rank
    return place + (axis <= place)


def _kept_unless(index):
    def kept(op, place):
        axis = _static(op.inputs[index])
        if axis is None:
            return None
        return None if int(axis) % op.outputs[0].shape.rank == place else place

    return kept


_AXES = {
    "ConcatV2": _kept_unless(-1),
    "ExpandDims": _kept_by_expansion,
    "GatherV2": _kept_by_gather,
    "Pack": _kept_by_stack,
    "Reshape": _kept_by_reshape,
    "Split": _kept_unless(0),
    "SplitV": _kept_unless(2),
    "Squeeze": _kept_by_squeeze,
    "StridedSlice": _kept_by_slice,
    "Transpose": _kept_by_transpose,
    "Unpack": _kept_by_unpack,
}


def _static(tensor):
    """Returns the value of a tensor that only depends on static shapes.

    `tf.nn.softmax` along another axis than the last computes its permutation
    from the rank with operations that TensorFlow does not fold.
    """
    value = tf.get_static_value(tensor)
    if value is not None or len(tensor.op.inputs) == 0:
        return value
    known = [_static(x) for x in tensor.op.inputs]
    if any(x is None for x in known):
        return None
    kind = tensor.op.type
    if kind in ("Sub", "AddV2"):
        return known[0] - known[1] if kind == "Sub" else known[0] + known[1]
    if kind == "Range":
        return np.arange(*known)
    if kind == "Pack":
        return np.stack(known)
    return np.concatenate(known[:-1]) if kind == "ConcatV2" else None
