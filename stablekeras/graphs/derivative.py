"""Which forward op a node of a backward pass derives."""

import re

__all__ = ["forward_node"]

# TensorFlow names what derives the op `a/Sqrt` inside a function
# `gradients/a/Sqrt_grad/...`.
_NAMED = re.compile(r"(?:^|/)gradients/(.+)_grad/")


def forward_node(execution, node, output=0):
    """Returns the forward node that a backward node derives.

    Args:
        execution: The `Execution`.
        node: A `Node`.
        output: Which of its results matters, to tell turns of a loop apart.

    Returns:
        A `Node`, or `None` for a node of the forward pass and where the
        forward op is not known.
    """
    traced = execution.traced
    if not traced.ran_backward(node):
        return None
    op = traced.forward_of.get(node.op)
    same = execution.turns(op) if op is not None else []
    if not same:
        found = _NAMED.search(node.op.name)
        if found is None:
            return None
        name = found.group(1)
        same = [
            n
            for n in execution.turns(name)
            if n.number < node.number and not traced.ran_backward(n)
        ]
    fed = {number for number, _ in node.inputs}
    for candidate in same:
        if candidate.number in fed:
            return candidate
    shape = node.outputs[output].shape if node.outputs else None
    fits = [n for n in same if n.outputs and n.outputs[0].shape == shape]
    same = fits or same
    turns = execution.turns(node.op)
    if len(turns) == len(same):
        # Loops are differentiated from their last turn to the first.
        return same[-1 - turns.index(node)]
    return same[0] if same else None
