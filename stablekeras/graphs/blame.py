"""Which ops made the entries that are not finite: entry by entry.

An op is a root where it gives a NaN or an Inf from finite entries. The search
starts at a loss or a gradient and follows single entries, not whole tensors:
an Inf that stands beside the guilty entry, and becomes finite again, is never
met on the way.
"""

import dataclasses

import numpy as np

from stablekeras.graphs.moves import moved_from

__all__ = ["Blame", "Root", "blame"]

_REDUCTIONS = frozenset({"Sum", "Mean", "Max", "Min", "Prod", "EuclideanNorm"})
_PRODUCTS = frozenset(
    {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"}
)
_ALONG_LAST = frozenset(
    {
        "Softmax",
        "LogSoftmax",
        "SoftmaxCrossEntropyWithLogits",
        "SparseSoftmaxCrossEntropyWithLogits",
        "Cumsum",
        "Cumprod",
    }
)
_NOT_ENTRYWISE = frozenset({"BiasAddGrad", "L2Loss"})


@dataclasses.dataclass(frozen=True, eq=False)
class Root:
    """An op that gave what is not finite from finite entries.

    Args:
        node: The `Node`.
        output: Which of its results.
        born: Boolean array: the entries that it made so.
    """

    node: object
    output: int
    born: np.ndarray


@dataclasses.dataclass(eq=False)
class Blame:
    """All roots of one sink, and the ways from them to it.

    Args:
        sinks: The references that the search began with.
        roots: The roots, in the order in which they ran.
        user: Per reference on the way, the node that handed it on.
        wanted: Per reference on the way, which entries mattered.
    """

    sinks: tuple
    roots: list
    user: dict
    wanted: dict

    def chain(self, ref):
        """Returns the node numbers from a reference to the sink."""
        way = [ref[0]]
        while ref in self.user and ref not in self.sinks:
            ref = self.user[ref]
            way.append(ref[0])
        return way


def blame(execution, sinks):
    """Finds the ops that made the entries of tensors not finite.

    Args:
        execution: An `Execution`.
        sinks: References of losses, gradients or written values.

    Returns:
        A `Blame`; without roots where all of them are finite.
    """
    sinks = tuple(ref for ref in sinks if execution.is_bad(ref))
    found = Blame(sinks, [], {}, {})
    for ref in sinks:
        found.wanted[ref] = execution.measured(ref).bad
    # What feeds a node ran before it: the latest is next.
    pending = {ref[0] for ref in sinks}
    while pending:
        number = max(pending)
        pending.discard(number)
        node = execution.nodes[number]
        if node.tainted and not node.is_bad:
            pending |= _through_opaque(execution, node, found)
            continue
        for output, measured in enumerate(node.outputs):
            mask = found.wanted.get((number, output))
            if mask is None or not measured.is_bad:
                continue
            asked, born = _ask(execution, node, output, mask)
            for place, part in asked:
                ref = node.inputs[place]
                _add(found, ref, part, (number, output))
                pending.add(ref[0])
            if born.any():
                found.roots.append(Root(node, output, born))
    found.roots.reverse()
    return found


def _add(found, ref, mask, user):
    known = found.wanted.get(ref)
    found.wanted[ref] = mask if known is None or mask is None else known | mask
    found.user.setdefault(ref, user)


def _through_opaque(execution, node, found):
    """Asks for all that an op put into a list or a variable."""
    asked = set()
    via = next((o for n, o in found.wanted if n == node.number), None)
    for ref in node.inputs:
        source = execution.nodes[ref[0]]
        bad = None
        if ref[1] is not None and source.outputs[ref[1]].is_bad:
            bad = source.outputs[ref[1]].bad
        elif not (source.tainted and not source.is_bad):
            continue
        _add(found, ref, bad, (node.number, via))
        asked.add(ref[0])
    return asked


def _ask(execution, node, output, mask):
    """Returns the entries of the inputs to ask next, and those born here."""
    inputs = []
    opaque = []
    for place, (number, index) in enumerate(node.inputs):
        source = execution.nodes[number]
        if index is not None and source.outputs[index].is_bad:
            inputs.append((place, source.outputs[index].bad))
        elif source.tainted and not source.is_bad:
            opaque.append((place, None))
    if opaque:
        return [*opaque, *inputs], np.zeros_like(mask)
    if not inputs:
        return [], mask
    if node.type in ("Select", "SelectV2"):
        return _selected(node, inputs, mask)
    for rule in (_moved, _reduced, _multiplied, _along, _entrywise, _by_row):
        answer = rule(execution, node, output, inputs, mask)
        if answer is not None:
            return answer
    return inputs, np.zeros_like(mask)


def _selected(node, inputs, mask):
    chosen = (node.kept or {}).get(0)
    asked, seen = [], np.zeros_like(mask)
    for place, bad in inputs:
        part = mask & np.broadcast_to(bad, mask.shape)
        if chosen is not None:
            if node.type == "Select" and chosen.ndim < mask.ndim:
                shape = chosen.shape + (1,) * (mask.ndim - chosen.ndim)
                chosen = chosen.reshape(shape)
            part = part & (chosen if place == 1 else ~chosen)
        seen |= part
        asked.append((place, _fold(part, bad.shape) & bad))
    return [(p, m) for p, m in asked if m.any()], mask & ~seen


def _moved(execution, node, output, inputs, mask):
    shapes = [
        None if o is None else execution.nodes[n].outputs[o].shape
        for n, o in node.inputs
    ]
    sources = moved_from(node, output, shapes)
    if sources is None or sources.shape != mask.shape:
        return None
    # Entry i of the inputs, laid end to end, is number i + 1.
    starts = np.cumsum(
        [1, *(int(np.prod(s)) if s is not None else 0 for s in shapes)]
    )
    taken = sources[mask]
    asked = []
    for place, bad in inputs:
        own = taken[(taken >= starts[place]) & (taken < starts[place + 1])]
        part = np.zeros(bad.size, bool)
        part[own - starts[place]] = True
        part = part.reshape(bad.shape) & bad
        if part.any():
            asked.append((place, part))
    if not asked:
        return None
    return asked, np.zeros_like(mask)


def _reduced(execution, node, output, inputs, mask):
    if node.type not in _REDUCTIONS or node.kept is None:
        return None
    axes = node.kept.get(1)
    ((place, bad), *_) = inputs
    if axes is None or place != 0:
        return None
    axes = tuple(int(a) % max(bad.ndim, 1) for a in np.ravel(axes))
    if not bad.ndim:
        return None
    spread = mask
    if mask.ndim != bad.ndim:
        spread = np.expand_dims(mask, axes) if axes else mask
    part = bad & spread
    seen = bad.any(axis=axes, keepdims=mask.ndim == bad.ndim)
    return ([(0, part)] if part.any() else []), mask & ~seen


def _multiplied(execution, node, output, inputs, mask):
    if node.type not in _PRODUCTS or mask.ndim < 2:
        return None
    asked, seen = [], np.zeros_like(mask)
    for place, bad in inputs:
        flags = (
            ("transpose_a", "adj_x") if not place else ("transpose_b", "adj_y")
        )
        turned = any(
            f in node.op.node_def.attr and node.op.get_attr(f) for f in flags
        )
        view = np.swapaxes(bad, -1, -2) if turned else bad
        if place == 0:
            hit = view.any(axis=-1, keepdims=True)
            part = view & mask.any(axis=-1, keepdims=True)
        else:
            hit = view.any(axis=-2, keepdims=True)
            part = view & mask.any(axis=-2, keepdims=True)
        if part.shape != view.shape:
            return None  # broadcast batch dimensions: take it whole
        seen |= np.broadcast_to(hit, mask.shape)
        part = np.swapaxes(part, -1, -2) if turned else part
        if part.any():
            asked.append((place, part))
    return asked, mask & ~seen


def _along(execution, node, output, inputs, mask):
    if node.type not in _ALONG_LAST:
        return None
    asked, seen = [], np.zeros_like(mask)
    for place, bad in inputs:
        if bad.ndim == mask.ndim + 1:
            part = bad & mask[..., None]
            seen |= bad.any(axis=-1)
        elif bad.shape == mask.shape:
            part = bad & mask.any(axis=-1, keepdims=True)
            seen |= bad.any(axis=-1, keepdims=True)
        else:
            return None
        if part.any():
            asked.append((place, part))
    return asked, mask & ~seen


def _entrywise(execution, node, output, inputs, mask):
    if node.type in _NOT_ENTRYWISE:
        return None
    if len(node.outputs) != 1 or not _is_entrywise(execution, node, mask):
        return None
    asked, seen = [], np.zeros_like(mask)
    for place, bad in inputs:
        if node.type == "BiasAdd" and place == 1 and _channels_first(node):
            return None
        part = mask & np.broadcast_to(bad, mask.shape)
        seen |= part
        folded = _fold(part, bad.shape)
        if folded.any():
            asked.append((place, folded))
    return asked, mask & ~seen


def _is_entrywise(execution, node, mask):
    if node.type.startswith(
        ("Conv", "Depthwise", "Fused", "Matrix", "Cholesky")
    ):
        return False
    shapes = [
        execution.nodes[n].outputs[o].shape
        for n, o in node.inputs
        if o is not None and execution.nodes[n].outputs[o].stats is not None
    ]
    try:
        return np.broadcast_shapes(*shapes) == mask.shape
    except ValueError:
        return False


def _channels_first(node):
    return node.op.get_attr("data_format") == b"NCHW"


def _by_row(execution, node, output, inputs, mask):
    """Asks only the rows of the batch that matter, where that is known."""
    own = node.outputs[output].axis
    if own is None or own[1] != 1:
        return None
    others = tuple(i for i in range(mask.ndim) if i != own[0])
    rows = mask.any(axis=others)
    asked, seen = [], np.zeros_like(rows)
    for place, bad in inputs:
        number, index = node.inputs[place]
        axis = execution.nodes[number].outputs[index].axis
        if axis is None:
            return None
        if axis[1] != 1 or bad.shape[axis[0]] != rows.size:
            return None
        shape = [1] * bad.ndim
        shape[axis[0]] = rows.size
        part = bad & rows.reshape(shape)
        if part.any():
            asked.append((place, part))
        seen |= bad.any(axis=tuple(i for i in range(bad.ndim) if i != axis[0]))
    shape = [1] * mask.ndim
    shape[own[0]] = rows.size
    return asked, mask & ~seen.reshape(shape)


def _fold(mask, shape):
    """Undoes a broadcast: true where any copy of an entry is."""
    extra = mask.ndim - len(shape)
    mask = mask.any(axis=tuple(range(extra))) if extra else mask
    axes = tuple(
        i for i, n in enumerate(shape) if n == 1 and mask.shape[i] != 1
    )
    return mask.any(axis=axes, keepdims=True) if axes else mask
