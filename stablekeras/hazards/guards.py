"""SK104, SK105: a log behind a guard that does nothing."""

import re

import numpy as np

from stablekeras.graphs.location import code_line, source_line
from stablekeras.graphs.match import (
    LOOKED_THROUGH,
    anything,
    either,
    look_through,
    op,
)
from stablekeras.hazards.formulas import (
    ADD,
    GUARDS,
    NEAR,
    ONE_MINUS,
    SIGMOID,
    SOFTMAX,
    guarded,
)
from stablekeras.hazards.hazard import Hazard
from stablekeras.hazards.site import figure

__all__ = ["HAZARDS", "LOGS", "log_of_zero", "zeros_of_log"]

LOGS = frozenset({"Log", "Log1p"})


def log_of_zero(site):
    """Whether the log got zeros, or what is as good as zero."""
    value = site.at(0)
    if not value.size:
        return False
    if site.op_type == "Log1p":
        return bool(np.all(value == -1.0))
    # In the backward pass also what is too small for its reciprocal.
    tiny = {"float16": 1.6e-5, "float64": 2.3e-308}.get(site.dtype, 1.2e-38)
    return bool(np.all(np.abs(value) <= tiny))


def zeros_of_log(site):
    """Tells how many zeros the log got."""
    values = site.at(0)
    if site.phase == "backward" and np.any(values != 0.0):
        small = figure(np.abs(values).min())
        return (
            f"{site.where} were as small as {small}: the derivative 1/p "
            f"overflows {site.dtype}"
        )
    word = "minus one" if site.op_type == "Log1p" else "zero"
    return f"the log got {site.where} equal to {word}"


# --- guards that do nothing -------------------------------------------------

_P = anything("p")
_PROBABILITY = either(SOFTMAX, SIGMOID, _P)
_ANY_GUARDED = either(
    guarded(ONE_MINUS(guarded(_PROBABILITY))),
    guarded(_PROBABILITY),
)


def _lost_epsilon(site, found):
    if not log_of_zero(site):
        return False
    return bool(_loss_of_guard(site, found))


def _loss_of_guard(site, found):
    """Tells why an epsilon or a bound does nothing, or returns `""`."""
    view = look_through(site.inputs[0], NEAR)
    kind = _half(site, view)
    one, epsilon = found.get("one"), found.get("epsilon")
    bound = found.get("bound")
    texts = site.literals if epsilon is None else site.literals_of(epsilon)
    shown = texts[0] if texts else None
    other_side = one is not None or site.op_type == "Log1p"
    if other_side and bound is not None and bound.stats.max == 1.0:
        hidden = _ONE_LESS.search(_lines(site, bound))
        name = f"1 - {hidden.group(1)} rounds to" if hidden else "of it is"
        return f"the bound {name} 1.0 in {kind}, so 1 - p is still 0"
    if epsilon is not None and _was_meant(site, epsilon):
        given = np.asarray(look_through(epsilon).constant, np.float64)
        value = float(np.abs(given).min())
        used = float(epsilon.stats.max or 0.0) if epsilon.stats else value
        if used == 0.0 or value == 0.0:
            name = shown or figure(value)
            return f"the epsilon {name} is 0 in {kind}"
        if (one is not None and 1.0 + used == 1.0) or _absorbed(used, kind):
            name = shown or figure(used)
            return f"the epsilon {name} is absorbed by 1.0 in {kind}"
    if one is not None and shown:
        return f"the epsilon {shown} is absorbed by 1.0 in {kind}"
    return ""


_ONE_LESS = re.compile(r"1\.?0*\s*-\s*(\d*\.?\d*[eE]-\d+|\w*\.?epsilon\(\))")


def _lines(site, view):
    """The user's lines that made a constant's reader, and the log."""
    nodes = [
        site.node,
        *(u for u in view.users if u.number <= site.node.number),
    ]
    return "\n".join(source_line(node.op) for node in nodes)


def _was_meant(site, epsilon):
    # A zero in the graph is an epsilon only if it was written as one.
    given = np.asarray(look_through(epsilon).constant)
    return bool(np.any(given != 0) or site.literals_of(epsilon))


def _absorbed(value, kind):
    unit = {"float16": 2**-11, "bfloat16": 2**-8, "float64": 2**-53}
    return value < unit.get(kind, 2**-24)


def _half(site, view):
    stats = view.stats
    return stats.dtype if stats is not None else site.dtype


def _lost_cause(site, found):
    lost = _loss_of_guard(site, found)
    return f"the guard does nothing: {lost}; {zeros_of_log(site)}"


# --- a guard whose result is dropped ----------------------------------------


def _dropped(site, found):
    return log_of_zero(site) and bool(_dropped_guards(site))


def _dropped_guards(site):
    near = set()
    view = site.inputs[0]
    for _ in range(12):
        near.add(view.ref)
        if view.type in LOOKED_THROUGH | {"Relu", "Abs", "Sub"} and view.inputs:
            inputs = [v for v in view.inputs if v.constant is None]
            if not inputs:
                break
            view = inputs[0]
        else:
            break
    return [
        node
        for ref in sorted(near)
        for node in site.execution.users(ref)
        if node.type in (*GUARDS, *ADD, "Select", "SelectV2")
        and not _has_users(site, node, 4)
    ]


def _has_users(site, node, depth):
    """Whether a result is read by anything but another unread guard."""
    if node.frame != site.node.frame:
        return True
    for user in site.execution.users((node.number, 0)):
        if user.type not in GUARDS or not depth:
            return True
        if _has_users(site, user, depth - 1):
            return True
    return any(
        ref is not None and ref[0] == node.number
        for ref in site.execution.refs_of_results()
    )


def _dropped_cause(site, found):
    guard = _dropped_guards(site)[0]
    line = code_line(guard.op)
    place = f" ({line})" if line else ""
    return (
        f"the clipped tensor {guard.op.name}{place} is never used: "
        f"{zeros_of_log(site)}"
    )


HAZARDS = (
    Hazard(
        code="SK105",
        title="log behind a guard whose result is dropped",
        why=(
            "`tf.clip_by_value` returns the clipped tensor and leaves its "
            "argument as it is; the formula goes on with the argument."
        ),
        fix=(
            "Compute the log from the logits: "
            "stablekeras.ops.log_softmax(logits) or "
            "stablekeras.ops.log_sigmoid(logits). If there are no logits, "
            "assign the clipped tensor: p = tf.clip_by_value(p, ...)."
        ),
        ops=LOGS,
        test=_dropped,
        cause=_dropped_cause,
        replacement="ops.log_softmax",
    ),
    Hazard(
        code="SK104",
        title="log behind a guard that does nothing",
        why=(
            "An epsilon smaller than half a unit of what it is added to "
            "changes nothing, a bound of 1 - epsilon rounds to 1, and 1e-12 "
            "is 0 in float16."
        ),
        fix=(
            "Compute the log from the logits: "
            "stablekeras.ops.log_softmax(logits), "
            "stablekeras.ops.log_sigmoid(logits) for log(p) and "
            "stablekeras.ops.log_sigmoid(-logits) for log(1 - p). Without "
            "logits: stablekeras.ops.clamped_log(p)."
        ),
        ops=LOGS,
        patterns=(op("Log", _ANY_GUARDED), op("Log1p", _ANY_GUARDED)),
        test=_lost_epsilon,
        cause=_lost_cause,
        replacement="ops.clamped_log",
    ),
)
