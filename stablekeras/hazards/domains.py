"""SK209 to SK211: roots and inverse functions outside their domain."""

import numpy as np

from stablekeras.graphs.match import look_through
from stablekeras.hazards.hazard import Hazard
from stablekeras.hazards.site import figure

__all__ = ["HAZARDS"]

_ROOTS = frozenset({"Sqrt", "Rsqrt"})


def _root_of_negative(site, found):
    value = site.at(0)
    return bool(value.size and np.all(value < 0.0))


def _negative_cause(site, found):
    value = site.at(0)
    made = ""
    if look_through(site.inputs[0]).type == "Sub":
        made = (
            ": a difference that should not be negative, and is by rounding"
            if np.abs(value).max() < 1e-2
            else ": a difference"
        )
    return f"the root got {site.where} as low as {figure(value.min())}{made}"


def _root_of_zero(site, found):
    value = site.at(0)
    return bool(value.size and np.all(np.abs(value) <= 1.2e-38))


def _root_cause(site, found):
    return f"rsqrt got {site.where} equal to zero"


def _outside(site, found):
    value = site.at(0)
    if site.op_type == "Acosh":
        return bool(value.size and np.all(value < 1.0))
    return bool(value.size and np.all(np.abs(value) >= 1.0))


def _outside_cause(site, found):
    value = site.at(0)
    far = value[np.argmax(np.abs(value))]
    return (
        f"{site.op_type.lower()} got {site.where} outside its domain, up to "
        f"{far:.9g}"
    )


HAZARDS = (
    Hazard(
        code="SK209",
        title="root of a negative number",
        why=(
            "mean(x*x) - mean(x)**2 and similar differences are negative by "
            "rounding where the truth is 0; or nothing keeps the argument "
            "positive."
        ),
        fix=(
            "Write stablekeras.ops.std(x, axis=...) or "
            "stablekeras.ops.var(x, axis=...) in place of the difference of "
            "squares, and stablekeras.ops.softplus(x) under a root of an "
            "unconstrained x."
        ),
        ops=_ROOTS,
        test=_root_of_negative,
        cause=_negative_cause,
        replacement="ops.std",
    ),
    Hazard(
        code="SK210",
        title="reciprocal root of zero",
        why="A variance or squared norm of 0 has no reciprocal root.",
        fix=(
            "Write stablekeras.ops.rsqrt(x + epsilon) with an epsilon inside "
            "the root, or stablekeras.ops.normalize(x, axis=...)."
        ),
        ops=frozenset({"Rsqrt"}),
        phases=("forward",),
        test=_root_of_zero,
        cause=_root_cause,
        replacement="ops.normalize",
    ),
    Hazard(
        code="SK211",
        title="argument outside the domain of an inverse function",
        why=(
            "A cosine of two unit vectors computed in floating point can be "
            "1.0000001; arccos of it is NaN."
        ),
        fix=(
            "Write stablekeras.ops.arccos(x), which takes the rounding into "
            "account, or clip: keras.ops.clip(x, -1 + 1e-6, 1 - 1e-6)."
        ),
        ops=frozenset({"Acos", "Asin", "Atanh", "Acosh", "Erfinv", "Ndtri"}),
        phases=("forward",),
        test=_outside,
        cause=_outside_cause,
        replacement="ops.arccos",
    ),
)
