"""Reading the operands of a TensorFlow graph, one operation back.

Only public attributes of `tf.Operation` are read.
"""

import numpy as np
import tensorflow as tf

__all__ = [
    "MOVELESS",
    "halved",
    "negate",
    "negative",
    "new_axis",
    "number",
    "one_plus",
    "operation",
    "pair",
    "quotient",
    "reduction",
    "resolve",
    "same",
    "slice_kinds",
]

# Operations whose output is their input.
MOVELESS = ("Identity", "CheckNumerics", "EnsureShape", "Snapshot")
# Operations of which two with the same inputs have the same output.
_PURE = (
    "Abs",
    "AddV2",
    "Cast",
    "Exp",
    "ExpandDims",
    "Max",
    "Mul",
    "Neg",
    "RealDiv",
    "StopGradient",
    "Sub",
    "Sum",
)
_DEPTH = 8


def resolve(tensor):
    """Looks through operations that change nothing."""
    while tensor.op.type in MOVELESS:
        tensor = tensor.op.inputs[0]
    return tensor


def operation(tensor, *types):
    """Returns the operation behind `tensor` if it is of one of `types`."""
    op = resolve(tensor).op
    return op if op.type in types else None


def number(tensor):
    """Returns the constant number that `tensor` holds, or None."""
    tensor = resolve(tensor)
    if tensor.op.type == "Cast":
        return number(tensor.op.inputs[0])
    value = tf.get_static_value(tensor)
    if value is None or value.size != 1:
        return None
    return float(value.reshape(()))


def same(a, b, depth=_DEPTH):
    """Whether two tensors are one, or one function of the same."""
    a, b = resolve(a), resolve(b)
    if a.graph is b.graph and a.name == b.name:
        return True
    if a.op.type != b.op.type or not depth:
        return False
    if a.op.type == "Const":
        x, y = tf.get_static_value(a), tf.get_static_value(b)
        return x.dtype == y.dtype and np.array_equal(x, y)
    return (
        a.op.type in _PURE
        and a.op.node_def.attr == b.op.node_def.attr
        and all(
            same(x, y, depth - 1)
            for x, y in zip(a.op.inputs, b.op.inputs, strict=True)
        )
    )


def pair(op, value):
    """Returns the other input of a commutative op with a number, or None."""
    a, b = op.inputs
    if number(a) == value:
        return b
    if number(b) == value:
        return a
    return None


def one_plus(tensor):
    """Returns u if the tensor is `1 + u`."""
    op = operation(tensor, "AddV2", "Add")
    return None if op is None else pair(op, 1.0)


def negative(tensor):
    """Returns u if the tensor is `-u`."""
    op = operation(tensor, "Neg")
    if op is not None:
        return op.inputs[0]
    op = operation(tensor, "Mul")
    return None if op is None else pair(op, -1.0)


def negate(tensor):
    """Returns `-tensor`, or what it is the negative of."""
    inner = negative(tensor)
    return -tensor if inner is None else inner


def halved(tensor):
    """Returns u if the tensor is `u / 2`."""
    op = operation(tensor, "Mul")
    if op is not None:
        return pair(op, 0.5)
    op = operation(tensor, "RealDiv")
    if op is not None and number(op.inputs[1]) == 2.0:
        return op.inputs[0]
    return None


def quotient(tensor):
    """Returns `(numerator, denominator)`; the numerator may be the number 1."""
    op = operation(tensor, "RealDiv", "DivNoNan")
    if op is not None:
        a, b = op.inputs
        return (1.0 if number(a) == 1.0 else a), b
    op = operation(tensor, "Reciprocal", "Inv")
    if op is not None:
        return 1.0, op.inputs[0]
    op = operation(tensor, "Pow")
    if op is not None and number(op.inputs[1]) == -1.0:
        return 1.0, op.inputs[0]
    op = operation(tensor, "Mul")
    if op is not None:
        for a, b in (op.inputs, reversed(op.inputs)):
            inverse = quotient(b) if number(b) is None else None
            if inverse is not None and isinstance(inverse[0], float):
                return a, inverse[1]
    return None


def reduction(tensor, kind):
    """Returns `(x, axis)` of a reduction along one axis that is kept."""
    op = operation(tensor, kind)
    added = None
    if op is None:
        outer = operation(tensor, "ExpandDims", "StridedSlice")
        if outer is None:
            return None
        added = new_axis(outer)
        op = operation(outer.inputs[0], kind)
        if op is None or added is None:
            return None
    rank = op.inputs[0].shape.rank
    axis = number(op.inputs[1])
    if axis is None or rank is None:
        return None
    axis = int(axis) % rank
    if op.get_attr("keep_dims") != (added is None):
        return None
    if added is not None and added % rank != axis:
        return None
    return op.inputs[0], axis - rank


def new_axis(op):
    """Returns the axis that an op adds and does nothing else, or None."""
    if op.type == "ExpandDims":
        axis = number(op.inputs[1])
        return None if axis is None else int(axis)
    kinds, rank = slice_kinds(op), op.inputs[0].shape.rank
    if kinds is None or rank is None:
        return None
    if kinds.count("new") != 1 or {"part", "single"} & set(kinds):
        return None
    before = kinds[: kinds.index("new")]
    if "all" in before:  # count from the end
        return rank + 1 - (len(kinds) - len(before))
    return len(before)


def slice_kinds(op):
    """Tells what each entry of a `StridedSlice` does, or None if unsure.

    Returns:
        List of `"full"` (one axis, kept), `"part"` (one axis, cut),
        `"single"` (one axis, dropped), `"new"` and `"all"` (an ellipsis).
    """
    strides = tf.get_static_value(op.inputs[3])
    if strides is None:
        return None

    def has(mask, i):
        return bool(op.get_attr(f"{mask}_mask") >> i & 1)

    def kind(i, stride):
        if has("ellipsis", i):
            return "all"
        if has("new_axis", i):
            return "new"
        if has("shrink_axis", i):
            return "single"
        full = has("begin", i) and has("end", i) and stride == 1
        return "full" if full else "part"

    return [kind(i, stride) for i, stride in enumerate(strides)]
