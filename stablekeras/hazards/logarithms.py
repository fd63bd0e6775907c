"""SK1xx: logarithms of what became zero, or never was positive."""

import re

import numpy as np

from stablekeras.graphs.location import source_line
from stablekeras.graphs.match import THROUGH, anything, either, look_through, op
from stablekeras.hazards.formulas import (
    ADD,
    GUARDS,
    NEAR,
    ONE_MINUS,
    SIGMOID,
    SOFTMAX,
    SUM_OF_EXP,
    guarded,
)
from stablekeras.hazards.hazard import Hazard
from stablekeras.hazards.site import figure

__all__ = ["HAZARDS"]

LOGS = frozenset({"Log", "Log1p"})


def _is_zero(site):
    value = site.at(0)
    if not value.size:
        return False
    if site.op_type == "Log1p":
        return bool(np.all(value == -1.0))
    # In the backward pass also what is too small for its reciprocal.
    tiny = np.finfo(np.float32).tiny
    if site.dtype == "float16":
        tiny = 1.6e-5
    elif site.dtype == "float64":
        tiny = np.finfo(np.float64).tiny
    return bool(np.all(np.abs(value) <= tiny))


def _is_negative(site):
    value = site.at(0)
    least = -1.0 if site.op_type == "Log1p" else 0.0
    return bool(value.size and np.all(value < least))


def _mixed(site):
    return bool(site.at(0).size) and not _is_negative(site)


def _zeros(site):
    values = site.at(0)
    if site.phase == "backward" and np.any(values != 0.0):
        small = figure(np.abs(values).min())
        return (
            f"{site.where} were as small as {small}: the derivative 1/p "
            f"overflows {site.dtype}"
        )
    word = "minus one" if site.op_type == "Log1p" else "zero"
    return f"the log got {site.where} equal to {word}"


def _logits(site, found):
    view = found.get("x")
    if view is None or view.stats is None:
        return ""
    layer = _layer(site, view)
    return f"{layer} spans {site.range(view)}"


def _layer(site, view):
    from stablekeras.graphs.location import layer_path

    path = layer_path(site.traced, look_through(view).node)
    return f'the input of it (from layer "{path}")' if path else "its input"


# --- guards that do nothing -------------------------------------------------

_P = anything("p")
_PROBABILITY = either(SOFTMAX, SIGMOID, _P)
_ANY_GUARDED = either(
    guarded(ONE_MINUS(guarded(_PROBABILITY))),
    guarded(_PROBABILITY),
)


def _lost_epsilon(site, found):
    if not _is_zero(site):
        return False
    return bool(_loss_of_guard(site, found))


def _loss_of_guard(site, found):
    """Tells why an epsilon or a bound does nothing, or returns `""`."""
    view = look_through(site.inputs[0], NEAR)
    kind = _half(site, view)
    one, epsilon = found.get("one"), found.get("epsilon")
    bound = found.get("bound")
    texts = site.literals
    shown = texts[0] if texts else None
    if bound is not None and bound.stats and bound.stats.max == 1.0:
        hidden = _ONE_LESS.search(_lines(site, bound))
        name = f"1 - {hidden.group(1)} rounds to" if hidden else "of it is"
        return f"the bound {name} 1.0 in {kind}, so 1 - p is still 0"
    if epsilon is not None:
        value = np.abs(np.asarray(look_through(epsilon).constant, np.float64))
        value = float(value.min())
        used = float(epsilon.stats.max or 0.0) if epsilon.stats else value
        if used == 0.0 or value == 0.0:
            name = shown or figure(value)
            return f"the epsilon {name} is 0 in {kind}"
        if one is not None and 1.0 + used == 1.0 or _absorbed(used, kind):
            name = shown or figure(used)
            return f"the epsilon {name} is absorbed by 1.0 in {kind}"
    if one is not None and shown:
        return f"the epsilon {shown} is absorbed by 1.0 in {kind}"
    return ""


_ONE_LESS = re.compile(r"1\.?0*\s*-\s*(\d*\.?\d*[eE]-\d+|\w*\.?epsilon\(\))")


def _lines(site, view):
    """The user's lines that made a constant's reader, and the log."""
    nodes = [site.node, *(u for u in view.users if u.number <= site.node.number)]
    return "\n".join(source_line(node.op) for node in nodes)


def _absorbed(value, kind):
    unit = {"float16": 2**-11, "bfloat16": 2**-8, "float64": 2**-53}
    return value < unit.get(kind, 2**-24)


def _half(site, view):
    stats = view.stats
    return stats.dtype if stats is not None else site.dtype


def _lost_cause(site, found):
    return (
        f"the guard does nothing: {_loss_of_guard(site, found)}; "
        f"{_zeros(site)}"
    )


# --- a guard whose result is dropped ----------------------------------------


def _dropped(site, found):
    return _is_zero(site) and bool(_dropped_guards(site))


def _dropped_guards(site):
    near = set()
    view = site.inputs[0]
    for _ in range(12):
        near.add(view.ref)
        if view.type in THROUGH | {"Relu", "Abs", "Sub"} and view.inputs:
            inputs = [v for v in view.inputs if v.constant is None]
            if not inputs:
                break
            view = inputs[0]
        else:
            break
    return [
        node
        for node in site.execution.nodes
        if node.type in (*GUARDS, *ADD)
        and any(ref in near for ref in node.inputs)
        and not _has_users(site, node, 4)
    ]


def _has_users(site, node, depth):
    """Whether a result is read by anything but another unread guard."""
    if node.frame != site.node.frame:
        return True
    for user in site.execution.nodes[node.number + 1 :]:
        if any(n == node.number for n, _ in user.inputs) and (
            user.type not in GUARDS or depth == 0
            or _has_users(site, user, depth - 1)
        ):
            return True
    return any(
        ref is not None and ref[0] == node.number
        for ref in site.execution.refs_of_results()
    )


def _dropped_cause(site, found):
    from stablekeras.graphs.location import code_line

    guard = _dropped_guards(site)[0]
    line = code_line(guard.op)
    place = f" ({line})" if line else ""
    return (
        f"the clipped tensor {guard.op.name}{place} is never used: "
        f"{_zeros(site)}"
    )


# --- the rest ---------------------------------------------------------------


def _softmax_cause(site, found):
    return f"{_zeros(site)}: the softmax underflowed, {_logits(site, found)}"


def _sigmoid_cause(site, found):
    return f"{_zeros(site)}: the sigmoid saturated, {_logits(site, found)}"


def _one_minus_cause(site, found):
    return (
        f"{_zeros(site)}: the probability rounded to exactly one; "
        f"{_logits(site, found)}".rstrip("; ")
    )


def _sum_cause(site, found):
    return f"{_zeros(site)}: every exponential underflowed, {_logits(site, found)}"


def _product_cause(site, found):
    return (
        f"{_zeros(site)}: the product underflowed {site.dtype}, though no "
        f"factor is zero"
    )


def _no_zero_factor(site, found):
    factors = found.get("factors")
    if factors is None or not _is_zero(site):
        return False
    if look_through(site.inputs[0]).type in ("MatrixDeterminant",):
        return True
    return bool(np.all(site.value(factors) != 0))


def _users(site):
    return [
        node
        for node in site.execution.nodes
        if any(ref == site.view.ref for ref in node.inputs)
        or any(
            ref[1] is not None
            and site.execution.nodes[ref[0]].type in THROUGH
            and site.view.ref in site.execution.nodes[ref[0]].inputs
            for ref in node.inputs
        )
    ]


def _times_itself(site, found):
    """Whether the log of x (or of x/y) is multiplied by x."""
    if not _is_zero(site):
        return False
    argument = look_through(site.inputs[0])
    own = {argument.key}
    if argument.type in ("RealDiv", "Div", "Add", "AddV2", "Maximum"):
        own |= {look_through(v).key for v in argument.inputs}
    for user in _users(site):
        sides = [user]
        if user.type in ("Sub", *ADD, "Neg"):
            # p * (log p - log q)
            sides += [
                other
                for other in site.execution.nodes
                if (user.number, 0) in other.inputs
            ]
        for side in sides:
            if side.type not in ("Mul", "MulNoNan"):
                continue
            from stablekeras.graphs.views import NodeView

            for ref in side.inputs:
                if look_through(NodeView(site.execution, ref)).key in own:
                    return True
    return False


def _masked_cause(site, found):
    return f"{_zeros(site)}, and 0 * log(0) is NaN, not 0"


def _zero_cause(site, found):
    origin = site.origin(site.inputs[0])
    whose = f', which is "{origin}"' if origin else ""
    return f"{_zeros(site)}{whose}"


def _negative_cause(site, found):
    value = site.at(0)
    return (
        f"the log got {site.where} below "
        f"{'minus one' if site.op_type == 'Log1p' else 'zero'}, as low as "
        f"{figure(value.min())}: nothing keeps its input positive"
    )


def _zero(site, found):
    return _is_zero(site)


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
    Hazard(
        code="SK101",
        title="log of an underflowed softmax",
        why=(
            "A softmax gives exactly 0 to a class whose logit is about 104 "
            "(float32) below the largest, and its log is -Inf."
        ),
        fix=(
            "Pass logits: write stablekeras.ops.log_softmax(logits) in place "
            "of log(softmax(logits)), or drop the softmax and use "
            "stablekeras.losses.CategoricalCrossentropy(from_logits=True)."
        ),
        ops=LOGS,
        patterns=(
            op("Log", guarded(SOFTMAX), through=NEAR),
            op("Log", op("Sum", op("Mul", SOFTMAX, anything()))),
            op("Log", op("Sum", SOFTMAX)),
            op("Log", op("Max", SOFTMAX)),
            op("Log", op("BatchMatMulV2", SOFTMAX, anything())),
            op("Log", op("MatMul", SOFTMAX, anything())),
        ),
        test=_zero,
        cause=_softmax_cause,
        replacement="ops.log_softmax",
    ),
    Hazard(
        code="SK102",
        title="log of a saturated sigmoid",
        why=(
            "A sigmoid is exactly 0 below -104 (-88 written by hand) and "
            "exactly 1 above 17 in float32, so log(p) or log(1 - p) is -Inf."
        ),
        fix=(
            "Pass logits: write stablekeras.ops.log_sigmoid(x) for log(p) "
            "and stablekeras.ops.log_sigmoid(-x) for log(1 - p), or drop the "
            "sigmoid and use "
            "stablekeras.losses.BinaryCrossentropy(from_logits=True)."
        ),
        ops=LOGS,
        patterns=(
            op("Log", guarded(SIGMOID)),
            op("Log", guarded(ONE_MINUS(guarded(SIGMOID)))),
            op("Log1p", op("Neg", guarded(SIGMOID))),
        ),
        test=_zero,
        cause=_sigmoid_cause,
        replacement="ops.log_sigmoid",
    ),
    Hazard(
        code="SK103",
        title="log of one minus a probability that rounded to one",
        why=(
            "A probability nearer to 1 than half a unit (6e-8 in float32) is "
            "stored as 1, so 1 - p is 0 and its log -Inf."
        ),
        fix=(
            "Compute it from the logits: of a softmax, log(1 - p_i) is "
            "stablekeras.ops.logsumexp of the other logits minus logsumexp "
            "of all. Without logits: stablekeras.ops.clamped_log(1.0 - p)."
        ),
        ops=LOGS,
        patterns=(
            op("Log", guarded(ONE_MINUS(guarded(SOFTMAX)))),
            op("Log", guarded(ONE_MINUS(anything("x")))),
            op("Log1p", op("Neg", anything("x"))),
        ),
        test=_zero,
        cause=_one_minus_cause,
        replacement="ops.clamped_log",
    ),
    Hazard(
        code="SK106",
        title="log of exponentials that underflowed",
        why=(
            "exp(x) is 0 below -104 in float32; when every term of a sum of "
            "exponentials is 0, its log is -Inf."
        ),
        fix=(
            "Write stablekeras.ops.logsumexp(x, axis=...) in place of "
            "log(sum(exp(x))), stablekeras.ops.logmeanexp(x, axis=...) in "
            "place of log(mean(exp(x))), and x in place of log(exp(x))."
        ),
        ops=LOGS,
        patterns=(
            op("Log", guarded(SUM_OF_EXP)),
            op("Log", guarded(op("Mean", op("Exp", anything("x"))))),
            op("Log", guarded(op("Exp", anything("x")))),
            op(
                "Log",
                op(ADD, op("Exp", anything("x")), op("Exp", anything())),
            ),
            op("Log", op("Sum", op("Mul", op("Exp", anything("x")), anything()))),
        ),
        test=_zero,
        cause=_sum_cause,
        replacement="ops.logsumexp",
    ),
    Hazard(
        code="SK107",
        title="log of a product or determinant that underflowed",
        why=(
            "A product of a hundred probabilities, or the determinant of a "
            "large matrix, leaves the range of its dtype."
        ),
        fix=(
            "Write sum(log(p)) in place of log(prod(p)), and "
            "tf.linalg.slogdet(m)[1] in place of log(det(m))."
        ),
        ops=LOGS,
        patterns=(
            op("Log", guarded(op("Prod", anything("factors")))),
            op("Log", guarded(op("Cumprod", anything("factors")))),
            op("Log", guarded(op("MatrixDeterminant", anything("factors")))),
            op(
                "Log",
                op("Abs", op("MatrixDeterminant", anything("factors"))),
            ),
            op(
                "Log",
                op("Mul", anything("factors"), op("Mul", anything(), anything())),
            ),
        ),
        test=_no_zero_factor,
        cause=_product_cause,
    ),
    Hazard(
        code="SK108",
        title="entropy or divergence at a probability of zero",
        why=(
            "x log x tends to 0 at 0, but 0 * log(0) is computed as 0 * -Inf "
            "= NaN."
        ),
        fix=(
            "Write stablekeras.ops.xlogy(p, p) in place of p * log(p), "
            "stablekeras.ops.entropy(p) for an entropy, and "
            "stablekeras.losses.KLDivergence() for a divergence."
        ),
        ops=LOGS,
        test=_times_itself,
        cause=_masked_cause,
        replacement="ops.xlogy",
    ),
    Hazard(
        code="SK109",
        title="log of a negative number",
        why="Nothing keeps the argument positive: a layer's output, a difference.",
        fix=(
            "Make it positive by construction: "
            "stablekeras.ops.softplus(x) of an unconstrained x, or let the "
            "model give the logarithm itself and use it as it is."
        ),
        ops=LOGS,
        test=lambda site, found: _is_negative(site),
        cause=_negative_cause,
    ),
    Hazard(
        code="SK110",
        title="log of zero",
        why="The argument reached 0: a count, a target, a product with 0.",
        fix=(
            "Write stablekeras.ops.clamped_log(x) for a probability, "
            "log1p(x) for a count, and stablekeras.ops.masked where the "
            "entry is not to count."
        ),
        ops=LOGS,
        test=lambda site, found: _mixed(site),
        cause=_zero_cause,
        replacement="ops.clamped_log",
    ),
)
