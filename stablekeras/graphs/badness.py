"""How much of a run was not finite: counted by layer and direction."""

from stablekeras.graphs.derivative import forward_node
from stablekeras.graphs.location import layer_path

__all__ = ["by_layer"]


def by_layer(execution):
    """Counts the entries that are not finite, by layer and direction.

    A derivative belongs to the layer whose op it differentiates.

    Args:
        execution: An `Execution`.

    Returns:
        Tuple of `(layer, phase, bad, size)` in the order of the step: the
        layer's path, `"loss"` outside layers; `"forward"` or `"backward"`;
        the number of entries that are not finite and of all entries.
    """
    traced = execution.traced
    counts: dict[tuple[str, str], list[int]] = {}
    for node in execution.nodes:
        stats = [out.stats for out in node.outputs if out.stats is not None]
        if not stats or node.number in execution.sources:
            continue
        phase = "backward" if traced.ran_backward(node) else "forward"
        owner = node
        if phase == "backward":
            owner = forward_node(execution, node) or node
        layer = layer_path(traced, owner) or "loss"
        count = counts.setdefault((layer, phase), [0, 0])
        count[0] += sum(s.size - s.finite for s in stats)
        count[1] += sum(s.size for s in stats)
    return tuple((*key, *count) for key, count in counts.items())
