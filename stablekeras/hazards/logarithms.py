"""SK1xx: logarithms of what became zero, or never was positive."""

import numpy as np

from stablekeras.graphs.location import layer_path
from stablekeras.graphs.match import anything, look_through, op
from stablekeras.graphs.views import NodeView
from stablekeras.hazards.downstream import readers
from stablekeras.hazards.formulas import (
    ADD,
    NEAR,
    ONE_MINUS,
    SIGMOID,
    SOFTMAX,
    SUM_OF_EXP,
    guarded,
)
from stablekeras.hazards.guards import LOGS, log_of_zero, zeros_of_log
from stablekeras.hazards.hazard import Hazard
from stablekeras.hazards.site import figure

__all__ = ["HAZARDS"]


def _is_negative(site):
    value = site.at(0)
    least = -1.0 if site.op_type == "Log1p" else 0.0
    return bool(value.size and np.all(value < least))


def _mixed(site):
    return bool(site.at(0).size) and not _is_negative(site)


def _logits(site, found):
    view = found.get("x")
    if view is None or view.stats is None:
        return ""
    layer = _layer(site, view)
    return f"{layer} spans {site.range(view)}"


def _layer(site, view):
    path = layer_path(site.traced, look_through(view).node)
    return f'the input of it (from layer "{path}")' if path else "its input"


def _softmax_cause(site, found):
    return (
        f"{zeros_of_log(site)}: the softmax underflowed, {_logits(site, found)}"
    )


def _sigmoid_cause(site, found):
    return (
        f"{zeros_of_log(site)}: the sigmoid saturated, {_logits(site, found)}"
    )


def _one_minus_cause(site, found):
    return (
        f"{zeros_of_log(site)}: the probability rounded to exactly one; "
        f"{_logits(site, found)}".rstrip("; ")
    )


def _sum_cause(site, found):
    return (
        f"{zeros_of_log(site)}: every exponential underflowed, "
        f"{_logits(site, found)}"
    )


def _product_cause(site, found):
    return (
        f"{zeros_of_log(site)}: the product underflowed {site.dtype}, "
        "though no factor is zero"
    )


def _no_zero_factor(site, found):
    factors = found.get("factors")
    if factors is None or not log_of_zero(site):
        return False
    if look_through(site.inputs[0]).type in ("MatrixDeterminant",):
        return True
    return bool(np.all(site.value(factors) != 0))


def _times_itself(site, found):
    """Whether the log of x (or of x/y) is multiplied by x."""
    if not log_of_zero(site):
        return False
    argument = look_through(site.inputs[0])
    own = {argument.key}
    if argument.type in ("RealDiv", "Div", "Add", "AddV2", "Maximum"):
        own |= {look_through(v).key for v in argument.inputs}
    for user in readers(site, site.view):
        sides = [user]
        if user.type in ("Sub", *ADD, "Neg"):
            # p * (log p - log q)
            sides += site.execution.users((user.number, 0))
        for side in sides:
            if side.type not in ("Mul", "MulNoNan"):
                continue
            for ref in side.inputs:
                if look_through(NodeView(site.execution, ref)).key in own:
                    return True
    return False


def _masked_cause(site, found):
    return f"{zeros_of_log(site)}, and 0 * log(0) is NaN, not 0"


def _zero_cause(site, found):
    origin = site.origin(site.inputs[0])
    whose = f', which is "{origin}"' if origin else ""
    return f"{zeros_of_log(site)}{whose}"


def _negative_cause(site, found):
    value = site.at(0)
    return (
        f"the log got {site.where} below "
        f"{'minus one' if site.op_type == 'Log1p' else 'zero'}, as low as "
        f"{figure(value.min())}: nothing keeps its input positive"
    )


def _zero(site, found):
    return log_of_zero(site)


HAZARDS = (
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
            op("Log", op("Mul", SOFTMAX, anything())),
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
            op("Log", op("Mul", SIGMOID, anything())),
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
            op(
                "Log",
                op("Sum", op("Mul", op("Exp", anything("x")), anything())),
            ),
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
                op(
                    "Mul",
                    anything("factors"),
                    op("Mul", anything(), anything()),
                ),
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
        why=(
            "Nothing keeps the argument positive: it is a layer's output, or "
            "a difference."
        ),
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
