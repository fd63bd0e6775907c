"""How much of a run was not finite: counted by layer and direction."""

import dataclasses

from stablekeras.graphs.location import layer_path

__all__ = ["by_layer"]


def by_layer(execution):
    """Counts the entries that are not finite, by layer and direction.

    Args:
        execution: An `Execution`.

    Returns:
        List of `(layer, phase, bad, size)`: the layer's path or `None`
        outside layers, `"forward"` or `"backward"`, the number of entries
        that are not finite and that of all entries its ops gave; in the order
        in which the layers first ran.
    """
    traced = execution.traced
    counts: dict[tuple[str | None, str], list[int]] = {}
    for node in execution.nodes:
        measured = [out.stats for out in node.outputs if out.stats is not None]
        if not measured:
            continue
        phase = "backward" if traced.is_backward(node.op) else "forward"
        # A derivative belongs to the layer whose op it differentiates.
        op = traced.forward_of.get(node.op, node.op)
        place = dataclasses.replace(node, op=op)
        count = counts.setdefault((layer_path(traced, place), phase), [0, 0])
        for stats in measured:
            count[0] += stats.size - stats.finite
            count[1] += stats.size
    return [(*key, *count) for key, count in counts.items()]
