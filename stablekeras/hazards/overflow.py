"""SK3xx: values too large for their dtype."""

import numpy as np

from stablekeras.graphs.match import (
    constant,
    look_through,
)
from stablekeras.hazards.downstream import readers, view_of
from stablekeras.hazards.formulas import ADD, DIVIDE, SOFTMAX
from stablekeras.hazards.hazard import Hazard
from stablekeras.hazards.site import figure

__all__ = ["HAZARDS"]

_EXPS = frozenset({"Exp", "Expm1"})
_GREATEST = {
    "float16": 65504.0,
    "bfloat16": 3.39e38,
    "float32": 3.4028235e38,
    "float64": 1.7976931348623157e308,
}


def _top(site):
    return _GREATEST.get(site.dtype, 3.4028235e38)


def _large(site, found):
    return site.at(0).size > 0


def _exp_cause(site, found):
    value = site.at(0)
    limit = np.log(_top(site))
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


def _power_cause(site, found):
    values = [np.abs(site.at(i)) for i in range(len(site.inputs))]
    sizes = ", ".join(figure(v.max()) for v in values if v.size)
    return (
        f"{site.op_type} gave {site.where} beyond {figure(_top(site))}, the "
        f"greatest {site.dtype}, from {sizes}"
    )


def _power_of_zero(site, found):
    base, exponent = site.at(0), site.at(1)
    return bool(
        base.size
        and exponent.size
        and np.all((base < 0.0) | ((base == 0.0) & (exponent < 0.0)))
        and not np.any((base < 0.0) & (exponent == np.round(exponent)))
    )


def _power_of_zero_cause(site, found):
    base, exponent = site.at(0), site.at(1)
    return (
        f"{site.where}: {figure(base.min())} to the power "
        f"{figure(exponent.flat[0])} is not a finite real number"
    )


def _in_half(site, found):
    return site.is_half and site.phase == "forward"


def _sum_cause(site, found):
    whole = site.whole(0)
    return (
        f"{site.op_type} of {whole.size} entries up to "
        f"{figure(np.abs(whole).max()) if whole.size else '-'} passed "
        f"{figure(_top(site))}, the greatest {site.dtype}"
    )


def _not_empty(site, found):
    return bool(site.inputs) and site.inputs[0].stats.size > 0


def _pole_cause(site, found):
    return (
        f"{site.op_type} got {site.where} at a pole: "
        f"{figure(site.at(0).flat[0]) if site.at(0).size else '-'}"
    )


SUMS = frozenset(
    {
        "Sum",
        "Mean",
        "AddN",
        "Cumsum",
        "L2Loss",
        "EuclideanNorm",
        "AvgPool",
        "UnsortedSegmentSum",
        "SegmentSum",
    }
)
PRODUCTS = frozenset(
    {
        "MatMul",
        "BatchMatMul",
        "BatchMatMulV2",
        "BatchMatMulV3",
        "Conv2D",
        "Conv3D",
        "DepthwiseConv2dNative",
        "Einsum",
        "_FusedMatMul",
    }
)
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
    Hazard(
        code="SK309",
        title="overflow of cosh or sinh",
        why="cosh(x) overflows above 89.4 in float32; its log is |x| - log 2.",
        fix=(
            "Write stablekeras.ops.log_cosh(x) in place of log(cosh(x)), or "
            "use stablekeras.losses.LogCosh()."
        ),
        ops=frozenset({"Cosh", "Sinh"}),
        test=_large,
        cause=_power_cause,
        replacement="ops.log_cosh",
    ),
    Hazard(
        code="SK311",
        title="power without a finite value",
        why=(
            "A negative base has no fractional power, and 0 has no negative "
            "one."
        ),
        fix=(
            "Make the base positive (keras.ops.abs, "
            "stablekeras.ops.softplus), or use stablekeras.ops.power(x, a), "
            "whose gradient is finite where the truth is."
        ),
        ops=frozenset({"Pow"}),
        phases=("forward",),
        test=_power_of_zero,
        cause=_power_of_zero_cause,
        replacement="ops.power",
    ),
    Hazard(
        code="SK314",
        title="sum too large for float16",
        why=(
            "float16 ends at 65504: a sum of 70,000 ones, or of 300 squares "
            "of 16, is Inf."
        ),
        fix=(
            "Sum in float32: keras.ops.sum(keras.ops.cast(x, 'float32')), "
            "or give the layer dtype='float32'; the losses of "
            "stablekeras.losses do so."
        ),
        ops=SUMS,
        phases=("forward",),
        test=lambda site, found: (
            _in_half(site, found) and _not_empty(site, found)
        ),
        cause=_sum_cause,
    ),
    Hazard(
        code="SK315",
        title="result too large for float16",
        why="float16 ends at 65504; the result of finite numbers passed it.",
        fix=(
            "Give the layer dtype='float32' or the model the policy "
            "'mixed_bfloat16', whose range is that of float32."
        ),
        ops=PRODUCTS
        | {
            "Mul",
            "Square",
            "Pow",
            "Add",
            "AddV2",
            "Sub",
            "BiasAdd",
            "SquaredDifference",
            "Prod",
            "RealDiv",
        },
        phases=("forward",),
        test=_in_half,
        cause=_power_cause,
    ),
    Hazard(
        code="SK316",
        title="cast to float16 of a value it cannot hold",
        why="float16 ends at 65504: 1e5, or a mask of -1e9, becomes Inf.",
        fix=(
            "Scale the value first, write a mask of -1e4 or select with "
            "keras.ops.where, or keep this part in float32."
        ),
        ops=frozenset({"Cast"}),
        phases=("forward",),
        cause=_power_cause,
    ),
    Hazard(
        code="SK312",
        title="product that overflows",
        why="A product of many factors above 1 leaves its dtype.",
        fix="Sum logarithms: exp(sum(log(x))), or stay with sum(log(x)).",
        ops=frozenset({"Prod", "Cumprod", "MatrixDeterminant"}),
        phases=("forward",),
        cause=_sum_cause,
    ),
    Hazard(
        code="SK310",
        title="power that overflows",
        why="x**2 overflows above 1.8e19 in float32, x**4 above 4.3e9.",
        fix=(
            "Scale the values first. For a norm, write "
            "stablekeras.ops.norm(x) or stablekeras.ops.hypot(a, b), which "
            "do not square; for an error, stablekeras.losses.Huber()."
        ),
        ops=frozenset({"Pow", "Square", "SquaredDifference", "L2Loss"}),
        phases=("forward",),
        cause=_power_cause,
        replacement="ops.norm",
    ),
    Hazard(
        code="SK313",
        title="sum that overflows",
        why="A sum of finite entries passed the greatest number of its dtype.",
        fix=(
            "Scale the entries before they are summed, or take the mean of "
            "x / n; for exponentials use stablekeras.ops.logsumexp."
        ),
        ops=SUMS,
        phases=("forward",),
        test=_not_empty,
        cause=_sum_cause,
    ),
    Hazard(
        code="SK317",
        title="pole of a special function",
        why="lgamma and digamma are infinite at 0 and at negative integers.",
        fix=("Keep the argument positive: stablekeras.ops.softplus(x) + 1e-6."),
        ops=frozenset(
            {
                "Lgamma",
                "Digamma",
                "Polygamma",
                "Zeta",
                "Tan",
                "BesselK0",
                "BesselY0",
            }
        ),
        cause=_pole_cause,
    ),
)
