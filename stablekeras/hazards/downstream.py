"""What reads a tensor: the formula that a root stands in, seen from it."""

from stablekeras.graphs.match import LOOKED_THROUGH
from stablekeras.graphs.views import NodeView

__all__ = ["readers", "view_of"]


def readers(site, view, depth=4):
    """Returns the forward nodes that read a tensor.

    Args:
        site: A `Site`.
        view: View of the tensor.
        depth: How many ops that only move or cast to look through.

    Returns:
        List of nodes, those that only move or cast among them.
    """
    found, pending = [], [(view.ref, depth)]
    while pending:
        ref, left = pending.pop()
        for node in site.execution.users(ref):
            if site.traced.ran_backward(node):
                continue
            found.append(node)
            if node.type in LOOKED_THROUGH and left:
                pending.append(((node.number, 0), left - 1))
    return found


def view_of(site, node):
    """Returns the view of a node's first result."""
    return NodeView(site.execution, (node.number, 0))
