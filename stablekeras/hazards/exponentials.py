"""SK3xx: exponentials too large for their dtype."""

import numpy as np

from stablekeras.graphs.match import constant, look_through
from stablekeras.hazards.downstream import readers, view_of
from stablekeras.hazards.formulas import ADD, DIVIDE, SOFTMAX
from stablekeras.hazards.hazard import Hazard
from stablekeras.hazards.site import figure

__all__ = ["HAZARDS"]

_EXPS = frozenset({"Exp", "Expm1"})


def _large(site, found):
    return site.at(0).size > 0


def _exp_cause(site, found):
    value = site.at(0)
    limit = np.log(site.greatest)
    return (
        f"exp got {site.where} up to {figure(value.max())}; in {site.dtype} "
        f"it overflows above {limit:.1f}"
    )


def _feeds(types, *, inside=()):
    """Returns a test: whether the exp is read by such an op."""

    def test(site, found):
        if not _large(site, found):
            return False
        for user in readers(site, site.view):
            if user.type not in types:
                continue
            if not inside:
                return True
            if any(
                u.type in inside for u in readers(site, view_of(site, user))
            ):
                return True
        return False

    return test


def _adds_one(site, node):
    return any(
        constant(1.0).match(v) is not None for v in view_of(site, node).inputs
    )


def _softplus(site, found):
    for user in readers(site, site.view):
        if user.type in ADD and _adds_one(site, user):
            after = readers(site, view_of(site, user))
            if any(u.type == "Log" for u in after):
                return True
        if user.type == "Log1p":
            return True
    return False


def _sigmoid(site, found):
    for user in readers(site, site.view):
        if user.type in ADD and _adds_one(site, user):
            after = readers(site, view_of(site, user))
            if any(u.type in (*DIVIDE, "Reciprocal", "Inv") for u in after):
                return True
    return False


def _softmax(site, found):
    users = readers(site, site.view)
    if any(
        u.type in DIVIDE and SOFTMAX.match(view_of(site, u)) is not None
        for u in users
    ):
        return True
    masked = [
        u
        for user in users
        if user.type in ("Mul", "Select", "SelectV2")
        for u in readers(site, view_of(site, user))
    ]
    sums = [u for u in (*users, *masked) if u.type == "Sum"]
    if not sums:
        return False
    return any(
        u.type in (*DIVIDE, "Reciprocal")
        for s in sums
        for u in readers(site, view_of(site, s))
    )


def _logsumexp(site, found):
    sums = [
        u
        for u in readers(site, site.view)
        if u.type in ("Sum", "Mean", "Log", *ADD)
    ]
    scaled = [
        u
        for s in sums
        for u in readers(site, view_of(site, s))
        if u.type in ("Mul", "Log", *DIVIDE)
    ]
    return any(
        s.type == "Log"
        or any(u.type == "Log" for u in readers(site, view_of(site, s)))
        for s in (*sums, *scaled)
    )


def _ratio(site, found):
    argument = look_through(site.inputs[0]) if site.inputs else None
    if argument is None or argument.type != "Sub" or len(argument.inputs) < 2:
        return False
    sides = [_unscaled(look_through(v)) for v in argument.inputs]
    return all(
        side.constant is None
        and (side.type in _LOGS or side.ref[0] in site.execution.sources)
        for side in sides
    )


_LOGS = ("Log", "LogSoftmax", "Sum", "Softplus", "Neg", "Mean")


def _unscaled(view):
    """The other side of a product with a constant."""
    if view.type == "Mul":
        others = [v for v in view.inputs if v.constant is None]
        if len(others) == 1:
            return look_through(others[0])
    return view


def _rate(site, found):
    """Whether the loss is exp(z) - y * z."""
    for user in readers(site, site.view):
        if user.type != "Sub":
            continue
        inputs = [look_through(v) for v in view_of(site, user).inputs]
        if any(v.type == "Mul" for v in inputs):
            return True
    return False


_EXP_LIMIT = "exp(x) is Inf above 88.7 in float32 and above 11.1 in float16"

HAZARDS = (
    Hazard(
        code="SK302",
        title="softplus written by hand",
        why=f"{_EXP_LIMIT}; log(1 + exp(x)) is then Inf, where the truth is x.",
        fix="Write stablekeras.ops.softplus(x) in place of log(1 + exp(x)).",
        ops=_EXPS,
        test=_softplus,
        cause=_exp_cause,
        replacement="ops.softplus",
    ),
    Hazard(
        code="SK303",
        title="softmax written by hand",
        why=f"{_EXP_LIMIT}; exp(x) / sum(exp(x)) is then Inf/Inf.",
        fix=(
            "Write stablekeras.ops.softmax(x) in place of "
            "exp(x) / sum(exp(x)), and stablekeras.ops.log_softmax(x) for "
            "its log."
        ),
        ops=_EXPS,
        test=_softmax,
        cause=_exp_cause,
        replacement="ops.softmax",
    ),
    Hazard(
        code="SK305",
        title="sigmoid written by hand",
        why=(
            f"{_EXP_LIMIT}; exp(x) / (1 + exp(x)) is then Inf/Inf, and the "
            "derivative of 1 / (1 + exp(-x)) is 0 * Inf."
        ),
        fix=(
            "Write stablekeras.ops.sigmoid(x) in place of 1 / (1 + exp(-x)) "
            "and of exp(x) / (1 + exp(x))."
        ),
        ops=_EXPS,
        test=_sigmoid,
        cause=_exp_cause,
        replacement="ops.sigmoid",
    ),
    Hazard(
        code="SK304",
        title="log of exponentials that overflowed",
        why=f"{_EXP_LIMIT}, so log(sum(exp(x))) is Inf; the truth is not.",
        fix=(
            "Write stablekeras.ops.logsumexp(x, axis=...) in place of "
            "log(sum(exp(x))), stablekeras.ops.logaddexp(a, b) in place of "
            "log(exp(a) + exp(b)), and x in place of log(exp(x))."
        ),
        ops=_EXPS,
        test=_logsumexp,
        cause=_exp_cause,
        replacement="ops.logsumexp",
    ),
    Hazard(
        code="SK308",
        title="root of an exponential",
        why=f"{_EXP_LIMIT}; its root would have fitted.",
        fix="Write exp(x / 2) in place of sqrt(exp(x)).",
        ops=_EXPS,
        test=_feeds(("Sqrt", "Rsqrt")),
        cause=_exp_cause,
    ),
    Hazard(
        code="SK306",
        title="density ratio through exp",
        why=(
            "A difference of log-densities has no bound, and its exp "
            f"overflows: {_EXP_LIMIT}."
        ),
        fix=(
            "Stay in logarithms where the ratio is only compared or "
            "averaged (stablekeras.ops.logmeanexp), or bound the difference: "
            "exp(keras.ops.clip(log_p - log_q, -20, 20))."
        ),
        ops=_EXPS,
        test=_ratio,
        cause=_exp_cause,
    ),
    Hazard(
        code="SK307",
        title="Poisson rate through exp",
        why=f"exp(z) - y * z has no bound in z: {_EXP_LIMIT}.",
        fix=(
            "Model the rate as stablekeras.ops.softplus(z) with "
            "stablekeras.losses.Poisson(), scale the inputs, or clip z."
        ),
        ops=_EXPS,
        test=_rate,
        cause=_exp_cause,
        replacement="losses.Poisson",
    ),
    Hazard(
        code="SK301",
        title="overflow of exp",
        why=f"{_EXP_LIMIT}.",
        fix=(
            "Scale or clip the argument, subtract its maximum, or stay in "
            "logarithms: stablekeras.ops.logsumexp, "
            "stablekeras.ops.softplus, stablekeras.ops.sigmoid."
        ),
        ops=_EXPS,
        phases=("forward",),
        test=_large,
        cause=_exp_cause,
    ),
)
