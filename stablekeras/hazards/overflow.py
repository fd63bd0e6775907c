"""SK3xx: values too large for their dtype, exponentials apart."""

import numpy as np

from stablekeras.hazards.hazard import Hazard
from stablekeras.hazards.site import figure

__all__ = ["HAZARDS"]


def _large(site, found):
    return site.at(0).size > 0


def _power_cause(site, found):
    values = [np.abs(site.at(i)) for i in range(len(site.inputs))]
    sizes = ", ".join(figure(v.max()) for v in values if v.size)
    return (
        f"{site.op_type} gave {site.where} beyond {figure(site.greatest)}, the "
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
        f"{figure(site.greatest)}, the greatest {site.dtype}"
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

HAZARDS = (
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
