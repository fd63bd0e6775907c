"""Digits that numbers given to activations keep in float64."""

import math

import pytest

from stablekeras import activations
from tests.unit.ops.calculus import double, with_float64

pytestmark = pytest.mark.backends


# The function, a point, and the exact value and slope there. No number is one
# that float32 has.
EXACT = {
    "relu negative_slope": (
        lambda x: activations.relu(x, negative_slope=0.1),
        -3.0,
        -0.3,
        0.1,
    ),
    "relu max_value": (
        lambda x: activations.relu(x, max_value=0.1),
        3.0,
        0.1,
        0.0,
    ),
    "relu threshold": (
        lambda x: activations.relu(x, negative_slope=0.5, threshold=0.1),
        -3.0,
        -1.55,
        0.5,
    ),
    "leaky_relu": (lambda x: activations.leaky_relu(x, 0.1), -3.0, -0.3, 0.1),
    "hard_shrink": (
        lambda x: activations.hard_shrink(x, 0.3),
        0.3 + 1e-9,
        0.3 + 1e-9,
        1.0,
    ),
    "soft_shrink": (lambda x: activations.soft_shrink(x, 0.1), 3.0, 2.9, 1.0),
    "threshold": (
        lambda x: activations.threshold(x, 0.3, 0.1),
        0.3 + 1e-9,
        0.3 + 1e-9,
        1.0,
    ),
    "threshold default_value": (
        lambda x: activations.threshold(x, 0.3, 0.1),
        -3.0,
        0.1,
        0.0,
    ),
    "elu": (
        lambda x: activations.elu(x, 0.1),
        -1.0,
        0.1 * math.expm1(-1.0),
        0.1 * math.exp(-1.0),
    ),
    "celu": (
        lambda x: activations.celu(x, 0.7),
        -1.0,
        0.7 * math.expm1(-1 / 0.7),
        math.exp(-1 / 0.7),
    ),
    "squareplus": (
        lambda x: activations.squareplus(x, 0.1),
        -1.0,
        0.05 / (1 + math.sqrt(1.1)),
        0.05 / (1.1 + math.sqrt(1.1)),
    ),
}


@with_float64
@pytest.mark.parametrize("case", EXACT)
def test_a_number_keeps_its_digits_in_float64(case):
    """A slope, a depth or a threshold is not that of float32."""
    function, x, value, slope = EXACT[case]
    got = double(function, x)
    assert got == pytest.approx((value, slope), rel=4e-15, abs=0)
