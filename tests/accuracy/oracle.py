"""Exact values and derivatives, and what one ULP of input error causes."""

import math

import mpmath
from mpmath import mpf

from tests.accuracy.jets import Jet, jet

__all__ = ["Truth", "digits", "truth"]


class Truth:
    """What a function should have answered at one row of inputs.

    Attributes:
        value: Exact outputs, a list.
        gradient: Exact partial derivatives of the weighted sum of outputs.
        curve: Exact second derivative of it by the first input.
        value_slack, gradient_slack, curve_slack: By how much each of them
            changes when every input moves by one ULP.
    """

    __slots__ = (
        "curve",
        "curve_slack",
        "gradient",
        "gradient_slack",
        "value",
        "value_slack",
    )


def digits(row):
    """Decimal digits that survive the cancellation of a textbook formula."""
    sizes = [abs(math.log10(abs(x))) for x in row if x != 0]
    # exp(-2 x) may be all that is left of 1 - tanh(x)**2.
    largest = min(max(map(abs, row), default=0), 800)
    return int(50 + 2.5 * max(sizes, default=0) + 0.9 * largest)


def truth(formula, row, fmt, weights, dps=None):
    """Evaluates `formula` and its derivatives at `row` exactly.

    Args:
        formula: Function of a list of jets that returns a jet or a list.
        row: Inputs, floats.
        fmt: Their `Format`.
        weights: Weight of each output in the sum that is differentiated.
        dps: Decimal digits to work with; enough for the row by default.
    """
    with mpmath.workdps(dps or digits(row)):
        out = Truth()
        out.value, out.gradient, out.curve = _evaluate(formula, row, weights)
        out.value_slack = [mpf(0)] * len(out.value)
        out.gradient_slack = [mpf(0)] * len(row)
        out.curve_slack = mpf(0)
        for k, x in enumerate(row):
            moved = [mpf(v) for v in row]
            # Away from zero, unless that leaves the format.
            step = fmt.ulp(x) if abs(x) < fmt.max else -fmt.ulp(x)
            moved[k] += step if x >= 0 else -step
            try:
                value, gradient, curve = _evaluate(formula, moved, weights)
            except (ValueError, ZeroDivisionError, TypeError):
                continue  # outside the domain: no allowance from this side
            out.value_slack = [
                s + abs(a - b)
                for s, a, b in zip(
                    out.value_slack, value, out.value, strict=True
                )
            ]
            out.gradient_slack = [
                s + abs(a - b)
                for s, a, b in zip(
                    out.gradient_slack, gradient, out.gradient, strict=True
                )
            ]
            out.curve_slack += abs(curve - out.curve)
        return out


def _evaluate(formula, row, weights):
    gradient = []
    curve = value = None
    for k in range(len(row)):
        jets = [Jet(x, 1 if i == k else 0) for i, x in enumerate(row)]
        outputs = formula(jets)
        if not isinstance(outputs, list):
            outputs = [outputs]
        outputs = [jet(o) for o in outputs]
        pairs = list(zip(outputs, weights, strict=True))
        gradient.append(sum(o.slope * w for o, w in pairs))
        if k == 0:
            value = [o.value for o in outputs]
            curve = sum(o.curve * w for o, w in pairs)
    return value, gradient, curve
