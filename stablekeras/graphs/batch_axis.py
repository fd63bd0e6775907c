"""Follow the batch axis through a graph, as far as it survives."""

import numpy as np

__all__ = ["follow"]

_REDUCTIONS = frozenset(
    {
        "Sum",
        "Mean",
        "Max",
        "Min",
        "Prod",
        "All",
        "Any",
        "ArgMax",
        "ArgMin",
        "EuclideanNorm",
    }
)
_PRODUCTS = frozenset(
    {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"}
)


def follow(op, inputs, args, shape, rows):
    """Returns the place of the batch axis in an op's result.

    Args:
        op: The `tf.Operation`.
        inputs: The `Measured` of its inputs.
        args: Their values; small integer ones are read.
        shape: Shape of the result.
        rows: Number of rows of the batch.

    Returns:
        `(axis, factor)`: entry `i` of that axis belongs to row
        `i // factor`. `None` where the axis is gone or not known.
    """
    known = [(i, m.axis) for i, m in enumerate(inputs) if m and m.axis]
    if not known:
        return None
    place, (axis, factor) = known[0]
    kind = op.type
    before = inputs[place].shape
    if kind in _REDUCTIONS:
        return _reduced(op, args, axis, factor, before)
    if kind == "Transpose":
        order = [int(i) for i in np.asarray(args[1])]
        return order.index(axis), factor
    if kind in _PRODUCTS:
        return _product(op, place, axis, factor, len(before), len(shape))
    if kind == "TensorListFromTensor":
        return (axis - 1, factor) if axis else None
    if kind in ("TensorListStack", "TensorListConcatV2"):
        return axis + 1, factor
    if kind.startswith("TensorList"):
        return axis, factor
    if kind == "ExpandDims":
        return _expanded(args, axis, factor, len(before))
    if kind == "BiasAddGrad":
        return None
    if not shape:
        return None
    if kind in ("Reshape", "Squeeze"):
        return _reshaped(axis, factor, before, shape)
    aligned = axis + len(shape) - len(before)
    wanted = rows * factor
    if 0 <= aligned < len(shape) and shape[aligned] == wanted:
        return aligned, factor
    if shape[0] == wanted:
        return 0, factor
    return None


def _reduced(op, args, axis, factor, before):
    gone = {int(a) % max(len(before), 1) for a in np.ravel(np.asarray(args[1]))}
    if axis in gone:
        return None
    keep = "keep_dims" in op.node_def.attr and op.get_attr("keep_dims")
    return (axis if keep else axis - sum(a < axis for a in gone)), factor


def _expanded(args, axis, factor, rank):
    new = int(np.asarray(args[1]))
    new = new % (rank + 1)
    return (axis + 1 if new <= axis else axis), factor


def _reshaped(axis, factor, before, shape):
    """Finds the axis of the new shape that the rows run along."""
    ahead = int(np.prod(before[:axis], dtype=np.int64))
    rows = before[axis] // factor
    total = 1
    for new, size in enumerate(shape):
        if total == ahead and rows and size % rows == 0 and size >= rows:
            return new, size // rows
        total *= size
    return None


def _product(op, place, axis, factor, rank_in, rank_out):
    flag = {
        0: ("transpose_a", "adj_x"),
        1: ("transpose_b", "adj_y"),
    }.get(place)
    if flag is None:
        return None
    turned = any(
        name in op.node_def.attr and op.get_attr(name) for name in flag
    )
    if axis < rank_in - 2:
        return axis + rank_out - rank_in, factor
    inner = rank_in - 1 if place == 0 else rank_in - 2
    if turned:
        inner = rank_in - 2 if place == 0 else rank_in - 1
    if axis == inner:
        return None
    return (rank_out - 2 if place == 0 else rank_out - 1), factor
