"""16-bit sums: which ops are to be computed in float32.

A sum of squares overflows float16 at 256**2 and a sum in bfloat16 keeps two
digits. So the reductions, and the entry-by-entry formulas before and behind
them, are computed in float32 and rounded once.
"""

import tensorflow as tf

__all__ = ["HALVES", "wide_ops"]

HALVES = (tf.float16, tf.bfloat16)
_REDUCTIONS = frozenset(
    {"Sum", "Mean", "Prod", "Cumsum", "Cumprod", "EuclideanNorm", "L2Loss"}
)
_OTHERS = frozenset(
    {
        "Add",
        "AddV2",
        "Sub",
        "Mul",
        "RealDiv",
        "Div",
        "Neg",
        "Square",
        "SquaredDifference",
        "Pow",
        "Abs",
        "Exp",
        "Log",
        "Log1p",
        "Expm1",
        "Sqrt",
        "Rsqrt",
        "Reciprocal",
        "Inv",
        "Maximum",
        "Minimum",
        "Select",
        "SelectV2",
        "Reshape",
        "Squeeze",
        "ExpandDims",
        "Transpose",
        "StopGradient",
        "BroadcastTo",
        "Tile",
        "ClipByValue",
        "Max",
        "Min",
        "AddN",
        "DivNoNan",
        "MulNoNan",
        "Identity",
        "GatherV2",
        "GatherNd",
        "StridedSlice",
        "Slice",
        "Xlogy",
        "Tanh",
        "Sigmoid",
        "Softmax",
        "LogSoftmax",
        "Softplus",
    }
)


def wide_ops(order, proposals):
    """Returns the ops to compute in float32, and the sums that ask for it.

    Args:
        order: Ops that the outputs need, producers first.
        proposals: Ops that are replaced.

    Returns:
        `(set of ops, list of sums)`.
    """
    fits = {
        op
        for op in order
        if (op.type in _REDUCTIONS or op.type in _OTHERS)
        and op.outputs[0].dtype in HALVES
    }
    sums = [op for op in order if op in fits and op.type in _REDUCTIONS]
    sums = [op for op in sums if op not in proposals or op.type != "Mean"]
    users: dict = {}
    for op in fits:
        for tensor in op.inputs:
            if tensor.op in fits:
                users.setdefault(tensor.op, []).append(op)
    wide, pending = set(), list(sums)
    while pending:
        op = pending.pop()
        if op in wide:
            continue
        wide.add(op)
        pending += [t.op for t in op.inputs if t.op in fits]
        pending += users.get(op, [])
    return wide, sums
