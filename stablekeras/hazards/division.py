"""SK2xx: divisions by zero, and normalisations of what has no length."""

import numpy as np

from stablekeras.graphs.match import (
    anything,
    look_through,
    op,
)
from stablekeras.hazards.formulas import (
    ADD,
    DIVIDE,
    NORM,
    ONE_MINUS,
    SIGMOID,
    SOFTMAX,
    SPREAD,
    SUM_OF_EXP,
    guarded,
)
from stablekeras.hazards.hazard import Hazard
from stablekeras.hazards.site import figure

__all__ = ["HAZARDS", "is_count", "is_selection"]

QUOTIENTS = frozenset(
    {"RealDiv", "Div", "Reciprocal", "Inv", "Xdivy", "FloorMod", "FloorDiv"}
)


def _denominator(site):
    return 0 if site.op_type in ("Reciprocal", "Inv") else 1


def _by_zero(site):
    value = site.at(_denominator(site))
    return bool(value.size and np.all(value == 0.0))


def _below(site):
    place = _denominator(site)
    return site.inputs[place] if place < len(site.inputs) else None


def _zeros(site):
    place = _denominator(site)
    zeros = site.inputs[place].stats.zeros
    size = site.inputs[place].stats.size
    over = ""
    if place and site.inputs[0].stats is not None:
        value = site.at(0)
        if value.size and np.all(value == 0.0):
            over = ", and 0/0 is NaN"
    return (
        f"the denominator is zero in {zeros} of {size} entries{over}"
        if size > 1
        else f"the denominator is zero{over}"
    )


def _zero(site, found):
    return _by_zero(site)


_COUNTS = (
    "Sum",
    "Size",
    "Prod",
    "SegmentSum",
    "UnsortedSegmentSum",
    "Bincount",
    "DenseBincount",
)


def is_count(site, view):
    """Whether a tensor counts or sums a mask or another selection."""
    for _ in range(6):
        view = look_through(view)
        if view.type in ("Maximum", *ADD) and view.inputs:
            view = view.inputs[0]
            continue
        break
    if view.type not in _COUNTS:
        return False
    if view.type == "Size" or not view.inputs:
        return True
    inside = view.inputs[0]
    return is_selection(site, inside, 8)


def is_selection(site, view, depth=8):
    """Whether a tensor is made of comparisons or is the data's own mask."""
    if depth == 0:
        return False
    if view.type == "Cast" and view.inputs and view.inputs[0].stats is None:
        return True
    view = look_through(view)
    if view.stats is None:
        return True
    if view.type == "Fill":
        view = look_through(view.inputs[-1])
    if view.constant is not None:
        return bool(np.all((view.constant == 0) | (view.constant == 1)))
    if view.type == "OneHot":
        return True
    if view.ref[0] in site.execution.sources:
        value = site.value(view)
        return bool(np.all((value == 0) | (value == 1)))
    if view.type in ("Mul", "Sub", "Maximum", "Minimum", "SelectV2", "Ceil"):
        sides = [v for v in view.inputs if v.constant is None]
        return bool(sides) and all(
            is_selection(site, side, depth - 1) for side in sides
        )
    return False


def _not_count(site, found):
    below = _below(site)
    return _by_zero(site) and below is not None and not is_count(site, below)


def _vector_cause(site, found):
    return (
        f"{_zeros(site)}: the vector it measures is all zeros, and has no "
        "direction"
    )


def _spread_cause(site, found):
    return f"{_zeros(site)}: the values it measures are all equal"


def _probability_cause(site, found):
    x = found.get("x")
    spans = f", its input spans {site.range(x)}" if x and x.stats else ""
    return f"{_zeros(site)}: the probability underflowed{spans}"


def _softmax_cause(site, found):
    x = found.get("x")
    spans = f", its input spans {site.range(x)}" if x and x.stats else ""
    return f"{_zeros(site)}: every exponential underflowed{spans}"


def _target(site, found):
    below = _below(site)
    if below is None or not _by_zero(site):
        return False
    origin = _source(site, below)
    return origin is not None and _is_batch(site, origin)


def _is_batch(site, origin):
    return origin in dict(site.traced.inputs) or origin == "captured"


def _source(site, view):
    for _ in range(6):
        view = look_through(view)
        if (
            view.type in ("Abs", "Square", "Neg", "Maximum", *ADD)
            and view.inputs
        ):
            view = view.inputs[0]
        else:
            break
    return site.origin(view)


def _target_cause(site, found):
    return f'{_zeros(site)}: it is the array "{_source(site, _below(site))}"'


def _learned(site, found):
    below = _below(site)
    if below is None or not _by_zero(site):
        return False
    origin = _source(site, below)
    return origin is not None and not _is_batch(site, origin)


def _learned_cause(site, found):
    return f'{_zeros(site)}: it is the variable "{_source(site, _below(site))}"'


def _lost(site, found):
    if not _by_zero(site):
        return False
    epsilon = found.get("epsilon")
    if epsilon is None:
        return False
    value = np.asarray(look_through(epsilon).constant, np.float64)
    if np.all(value == 0.0):
        # Zero since it became a float16, or written as zero?
        return bool(site.literals_of(epsilon) or site.dtype == "float16")
    return epsilon.stats.max == 0.0


def _lost_cause(site, found):
    epsilon = found["epsilon"]
    value = np.asarray(look_through(epsilon).constant, np.float64)
    texts = site.literals_of(epsilon)
    name = texts[0] if texts else figure(value.min())
    return (
        f"the guard does nothing: the epsilon {name} is 0 in "
        f"{epsilon.stats.dtype}; {_zeros(site)}"
    )


def _tiny(site, found):
    value = site.at(_denominator(site))
    return bool(value.size and np.all(value != 0.0))


def _tiny_cause(site, found):
    value = np.abs(site.at(_denominator(site)))
    return (
        f"the denominator is as small as {figure(value.min())}, and the "
        f"quotient leaves {site.dtype}"
    )


def _quotient(below):
    return (
        op(DIVIDE, anything(), below),
        op(("Reciprocal", "Inv"), below),
    )


HAZARDS = (
    Hazard(
        code="SK208",
        title="division behind an epsilon that vanishes",
        why=(
            "An epsilon of 1e-12 is 0 in float16, whose least number is "
            "6e-8, so adding it to a denominator changes nothing."
        ),
        fix=(
            "Write stablekeras.ops.divide_no_nan(a, b) where 0/0 is to be 0, "
            "stablekeras.ops.normalize(x, axis=...) for a direction, or "
            "compute the quotient in float32."
        ),
        ops=QUOTIENTS,
        patterns=(
            *_quotient(op("Sqrt", guarded(anything()))),
            *_quotient(guarded(anything())),
        ),
        phases=("forward",),
        test=_lost,
        cause=_lost_cause,
        replacement="ops.divide_no_nan",
    ),
    Hazard(
        code="SK204",
        title="softmax written by hand, all terms underflowed",
        why=(
            "exp(x) is 0 below -104 in float32; if that is so for every "
            "class, exp(x) / sum(exp(x)) is 0/0."
        ),
        fix=(
            "Write stablekeras.ops.softmax(x) in place of "
            "exp(x) / sum(exp(x)), and stablekeras.ops.log_softmax(x) for "
            "its log."
        ),
        ops=QUOTIENTS,
        patterns=(
            op(DIVIDE, SOFTMAX, SUM_OF_EXP),
            op(DIVIDE, op("Exp", anything("x")), guarded(SUM_OF_EXP)),
            op(DIVIDE, anything(), guarded(SUM_OF_EXP)),
            op(
                DIVIDE,
                anything(),
                op("Sum", op("Mul", op("Exp", anything("x")), anything())),
            ),
        ),
        phases=("forward",),
        test=_zero,
        cause=_softmax_cause,
        replacement="ops.softmax",
    ),
    Hazard(
        code="SK203",
        title="standardisation of a constant",
        why=(
            "Equal values have standard deviation 0: (x - mean) / std is "
            "0/0. Max - min of them is 0 as well."
        ),
        fix=(
            "Write (x - mean) / (stablekeras.ops.std(x, axis=...) + 1e-6), "
            "or keras.layers.Normalization / LayerNormalization, whose "
            "epsilon is inside the root."
        ),
        ops=QUOTIENTS,
        patterns=(
            *_quotient(guarded(SPREAD)),
            *_quotient(
                op(
                    "Sub",
                    op("Max", anything("x")),
                    op("Min", anything("x")),
                )
            ),
        ),
        phases=("forward",),
        test=_zero,
        cause=_spread_cause,
        replacement="ops.std",
    ),
    Hazard(
        code="SK202",
        title="normalisation of a zero vector",
        why="A vector of zeros has norm 0 and no direction: x / ||x|| is 0/0.",
        fix=(
            "Write stablekeras.ops.normalize(x, axis=...) in place of "
            "x / norm(x): a zero vector stays zero, with a finite gradient."
        ),
        ops=QUOTIENTS,
        patterns=(
            *_quotient(guarded(NORM)),
            op(DIVIDE, anything(), op("Mul", NORM, anything())),
            op(DIVIDE, anything(), op("Mul", guarded(NORM), guarded(NORM))),
            op(DIVIDE, anything(), op("Sum", op("Abs", anything("x")))),
            op(DIVIDE, anything(), op("Max", op("Abs", anything("x")))),
        ),
        phases=("forward",),
        test=_zero,
        cause=_vector_cause,
        replacement="ops.normalize",
    ),
    Hazard(
        code="SK212",
        title="division by a probability that underflowed",
        why=(
            "A softmax or a sigmoid is exactly 0 for a far logit, and a ratio "
            "p / q of two of them is then x/0."
        ),
        fix=(
            "Subtract logarithms in place of dividing: log(p / q) is "
            "stablekeras.ops.log_softmax(a) - stablekeras.ops.log_softmax(b); "
            "for a divergence use stablekeras.losses.KLDivergence()."
        ),
        ops=QUOTIENTS,
        patterns=(
            *_quotient(guarded(SOFTMAX)),
            *_quotient(guarded(SIGMOID)),
            *_quotient(ONE_MINUS(SIGMOID)),
            *_quotient(ONE_MINUS(SOFTMAX)),
        ),
        phases=("forward",),
        test=_zero,
        cause=_probability_cause,
        replacement="ops.log_softmax",
    ),
    Hazard(
        code="SK205",
        title="division by a target of zero",
        why="A percentage error divides by the target, and some targets are 0.",
        fix=(
            "Use stablekeras.losses.MeanAbsolutePercentageError, divide by "
            "stablekeras.ops.divide_no_nan(error, y), or drop these rows."
        ),
        ops=QUOTIENTS,
        phases=("forward",),
        test=_target,
        cause=_target_cause,
        replacement="ops.divide_no_nan",
    ),
    Hazard(
        code="SK206",
        title="division by a learned value that is zero",
        why="A gain, temperature or scale started at 0 or was trained to it.",
        fix=(
            "Keep it positive by construction: learn its logarithm or divide "
            "by stablekeras.ops.softplus(value) + 1e-6; give it an "
            "initializer other than zeros."
        ),
        ops=QUOTIENTS,
        phases=("forward",),
        test=_learned,
        cause=_learned_cause,
    ),
    Hazard(
        code="SK201",
        title="division by zero",
        why="The denominator reached 0.",
        fix=(
            "Write stablekeras.ops.divide_no_nan(a, b) where the quotient is "
            "to be 0 there, or stablekeras.ops.masked to leave the entries "
            "out before dividing."
        ),
        ops=QUOTIENTS,
        phases=("forward",),
        test=_not_count,
        cause=lambda site, found: _zeros(site),
        replacement="ops.divide_no_nan",
    ),
    Hazard(
        code="SK207",
        title="quotient too large for its dtype",
        why="A denominator that is not 0 but tiny makes the quotient overflow.",
        fix=(
            "Add an epsilon that is not small beside the numerator, or "
            "subtract logarithms: exp(log(a) - log(b)); in float16, divide "
            "in float32."
        ),
        ops=QUOTIENTS,
        phases=("forward",),
        test=_tiny,
        cause=_tiny_cause,
    ),
)
