"""How a formula of the graph reads."""

from stablekeras.rewrite.terms import name_of

__all__ = ["formula"]

_INFIX = {
    "Add": "+",
    "AddV2": "+",
    "Sub": "-",
    "Mul": "*",
    "RealDiv": "/",
    "Div": "/",
    "Greater": ">",
    "Less": "<",
    "GreaterEqual": ">=",
    "LessEqual": "<=",
    "Equal": "==",
    "NotEqual": "!=",
}
_SHORT = {"SelectV2": "where", "Select": "where", "Mean": "mean"}
# Inputs that say how, not of what.
_WITHOUT = {
    "Sum",
    "Mean",
    "Prod",
    "Max",
    "Reshape",
    "Transpose",
    "GatherV2",
    "StridedSlice",
    "ExpandDims",
    "Cumprod",
    "BroadcastTo",
    "Tile",
}


def formula(tensor, leaves, reading, depth=0):
    """Returns the formula that made a tensor, down to some leaves.

    Args:
        tensor: The tensor.
        leaves: Ids of the tensors that are named, not opened.
        reading: A `Reading`.
        depth: How deep it stands already.
    """
    number = reading.scalar(tensor)
    if number is not None:
        return f"{number:g}"
    source = reading.source(tensor)
    if depth and (id(source) in leaves or id(tensor) in leaves):
        return name_of(source)
    op = source.op
    if depth > 9 or not op.inputs:
        return name_of(source)
    inputs = list(op.inputs)
    if op.type in _WITHOUT:
        inputs = inputs[:1]
    args = [formula(t, leaves, reading, depth + 1) for t in inputs]
    if op.type in _INFIX and len(args) == 2:
        return f"({args[0]} {_INFIX[op.type]} {args[1]})"
    if op.type == "Neg":
        return f"-{args[0]}"
    return f"{_SHORT.get(op.type, op.type.lower())}({', '.join(args)})"
