"""What a diagnosis tells of the root that was found."""

import numpy as np

from stablekeras.graphs.location import code_line, layer_path
from stablekeras.graphs.match import look_through
from stablekeras.hazards.catalogue import UNKNOWN
from stablekeras.hazards.site import Site, figure
from stablekeras.watch.records import Diagnosis

__all__ = ["sink_facts", "worded"]

_MOST_LINES = 12


def worded(trace, site, hazard, captured, bad, sites):
    """Returns the diagnosis of a root as people read it.

    Args:
        trace: The `Trace` of the replayed step.
        site: `Site` of the root that is named.
        hazard: The hazard it was recognized as.
        captured: What the hazard's pattern found, by name.
        bad: Pairs of name and reference: losses, gradients and written
            values that are not finite.
        sites: The sites of all roots.
    """
    execution = trace.execution
    node = site.node
    if hazard is UNKNOWN:
        cause = (
            f"{site.root.node.type} ({site.root.node.op.name}) gave "
            f"{site.where} not finite from finite inputs; why was not shown"
        )
        if site.is_opaque:
            cause += ": what runs inside a Python function cannot be seen"
    elif hazard.cause is None:
        cause = f"{site.op_type} gave {site.where} that are not finite"
    else:
        cause = hazard.cause(site, captured)
    given = site.given() is not None
    rows = _samples(execution, site)
    return Diagnosis(
        code=hazard.code,
        title=hazard.title,
        cause=cause,
        remedy=hazard.remedy,
        phase=site.phase,
        op_type=None if given else node.type,
        op_name=None if given else node.op.name,
        layer=_layer(site, node),
        location=None if given else code_line(node.op),
        samples=rows,
        inputs=(site.root.node.outputs[0].stats,)
        if given and site.root.node.outputs[0].stats
        else site.statistics(),
        chain=_chain(execution, site),
        contributing=_contributing(trace, site, captured, rows),
        evidence=_evidence(trace, site, sites, bad),
    )


def _layer(site, node):
    given = site.given()
    if given is not None and given[0] == "array":
        return None
    return layer_path(site.traced, node)


def _samples(execution, site):
    rows = set(site.rows)
    if site.label() is not None:
        return tuple(site.label()[3])
    # The same op in other turns of a loop.
    for root in site.blame.roots:
        if root.node.op is site.root.node.op and root is not site.root:
            rows |= set(Site(execution, site.blame, root, site.phase).rows)
    return tuple(sorted(rows))


def _chain(execution, site):
    ref = (site.root.node.number, site.root.output)
    lines = []
    for number in site.blame.chain(ref):
        node = execution.nodes[number]
        stats = next((o.stats for o in node.outputs if o.is_bad), None)
        lines.append(f"{node.type}: {stats if stats else node.op.name}")
    if len(lines) > _MOST_LINES:
        cut = len(lines) - _MOST_LINES
        lines[_MOST_LINES - 1 : -1] = [f"… {cut} more ops"]
    return tuple(lines)


def _contributing(trace, site, captured, rows):
    facts = []
    x = captured.get("x")
    x = None if x is None else look_through(x)
    if x is not None and x.stats is not None and x.stats.min is not None:
        layer = layer_path(site.traced, x.node)
        given = site.origin(x)
        whose = f'layer "{layer}"' if layer else f'"{given or x.node.op.name}"'
        facts.append(f"{whose} gave values in {site.range(x)}")
    facts += _extreme_rows(trace, site, rows)
    name, size = site.largest_variable()
    if size > 1e4:
        facts.append(f'variable "{name}" reaches {figure(size)}')
    return tuple(facts)


def _extreme_rows(trace, site, rows):
    """Tells which of the failing rows stand out in the batch's arrays."""
    if not rows:
        return
    traced = trace.execution.traced
    for (name, _), value in zip(traced.inputs, traced.values, strict=True):
        if not value.dtype.is_floating or value.shape.rank < 1:
            continue
        if value.shape[0] != trace.rows:
            continue
        array = value.numpy().astype(np.float64)
        array = np.abs(array.reshape(array.shape[0], -1))
        kept = array[np.isfinite(array)]
        if not kept.size:
            continue
        middle = float(np.median(kept))
        part = np.where(np.isfinite(array[list(rows)]), array[list(rows)], 0)
        if not part.size:
            continue
        row, column = np.unravel_index(np.argmax(part), part.shape)
        top = part[row, column]
        if top > 10 * max(middle, 1e-12) and top > 10:
            place = f"row {rows[row]}"
            if array.shape[1] > 1:
                place += f", column {column}"
            yield (
                f'array "{name}", {place}: {figure(top)}; the median of the '
                f"batch is {figure(middle)}"
            )


def _evidence(trace, site, sites, bad):
    facts = list(sink_facts(trace))
    root = site.root.node
    facts.append(f"root {root.type}: {root.outputs[site.root.output].stats}")
    if site.is_derivative:
        facts.append(f"{root.op.name} is the derivative of {site.node.op.name}")
    failed = trace.execution.error
    if failed is not None:
        facts.append(
            f"{failed.type} ({failed.op.name}) raised in the replay, and "
            f"nothing after it ran: {failed.error}"
        )
    others = [s for s in sites if s.root.node.op is not root.op][:5]
    for other in others:
        place = code_line(other.node.op)
        facts.append(
            f"also {other.root.node.type} ({other.root.node.op.name}) made "
            f"{other.where} not finite" + (f", {place}" if place else "")
        )
    return (*facts, *trace.notes)


def sink_facts(trace):
    """Yields what is not finite at the end: the loss, the gradients."""
    execution = trace.execution
    for name, ref in trace.losses:
        if ref is not None and execution.measured(ref).stats is not None:
            stats = execution.measured(ref).stats
            yield f"{name}: {stats}"
            break
    bad = [n for n, r in trace.gradients if execution.is_bad(r)]
    if trace.gradients:
        shown = ", ".join(bad[:5]) + (" …" if len(bad) > 5 else "")
        yield (
            f"{len(bad)} of {len(trace.gradients)} gradients are not finite"
            + (f": {shown}" if bad else "")
        )
