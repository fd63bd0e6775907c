"""Digits that numbers given as operands keep in float64."""

import math

import keras
import pytest

from stablekeras import ops
from tests.unit.ops.calculus import double, with_float64

pytestmark = pytest.mark.backends


def _legs(x):
    return keras.ops.concatenate([3 * x, 4 * x], axis=-1)


# The function, a point, and the exact value and slope there. No number is one
# that float32 has.
EXACT = {
    "power": (
        lambda x: ops.power(x, 0.1),
        3.0,
        3.0**0.1,
        0.1 * 3.0**-0.9,
    ),
    "power, a list": (
        lambda x: ops.power(x, [[0.1]]),
        3.0,
        3.0**0.1,
        0.1 * 3.0**-0.9,
    ),
    "power of a number": (
        lambda x: ops.power(0.1, x),
        3.0,
        0.1**3,
        0.1**3 * math.log(0.1),
    ),
    "xlogy": (
        lambda x: ops.xlogy(0.1, x),
        3.0,
        0.1 * math.log(3.0),
        0.1 / 3,
    ),
    "xlog1py": (
        lambda x: ops.xlog1py(x, 0.1),
        3.0,
        3.0 * math.log1p(0.1),
        math.log1p(0.1),
    ),
    "divide_no_nan": (
        lambda x: ops.divide_no_nan(x, 0.1),
        3.0,
        3.0 / 0.1,
        1 / 0.1,
    ),
    "divide_no_nan, a list": (
        lambda x: ops.divide_no_nan([[0.1]], x),
        3.0,
        0.1 / 3,
        -0.1 / 9,
    ),
    "logaddexp": (
        lambda x: ops.logaddexp(x, 0.1),
        3.0,
        3.0 + math.log1p(math.exp(-2.9)),
        1 / (1 + math.exp(-2.9)),
    ),
    "log_sub_exp": (
        lambda x: ops.log_sub_exp(x, 0.1),
        3.0,
        3.0 + math.log1p(-math.exp(-2.9)),
        1 / (1 - math.exp(-2.9)),
    ),
    "hypot": (
        lambda x: ops.hypot(x, 1.1),
        3.0,
        math.hypot(3.0, 1.1),
        3.0 / math.hypot(3.0, 1.1),
    ),
    "clamped_log": (
        lambda x: ops.clamped_log(x, 0.1),
        0.01,
        math.log(0.1),
        1 / 0.1,
    ),
    "norm": (
        lambda x: ops.norm(_legs(x), ord=2.1, axis=-1),
        1.0,
        (3**2.1 + 4**2.1) ** (1 / 2.1),
        (3**2.1 + 4**2.1) ** (1 / 2.1),
    ),
    "norm of negative order": (
        lambda x: ops.norm(_legs(x), ord=-2.1, axis=-1),
        1.0,
        (3**-2.1 + 4**-2.1) ** (-1 / 2.1),
        (3**-2.1 + 4**-2.1) ** (-1 / 2.1),
    ),
    "normalize": (
        lambda x: ops.normalize(x, epsilon=0.7),
        0.1,
        0.1 / 0.7,
        1 / 0.7,
    ),
    "global_norm": (
        lambda x: ops.global_norm([x, [1.1], 1.1]),
        3.0,
        math.sqrt(9 + 2 * 1.1**2),
        3 / math.sqrt(9 + 2 * 1.1**2),
    ),
    "cdist": (
        lambda x: ops.cdist(x, [[0.1]]),
        3.0,
        2.9,
        1.0,
    ),
    "masked otherwise": (
        lambda x: ops.masked(keras.ops.log, x, x > 5, otherwise=0.1),
        3.0,
        0.1,
        0.0,
    ),
    "masked safe": (
        # What the function sees is seen by another entry of its result.
        lambda x: ops.masked(
            lambda v: keras.ops.flip(v, axis=-1),
            keras.ops.concatenate([x, x], axis=-1),
            [[True, False]],
            safe=0.1,
        ),
        3.0,
        0.1,
        0.0,
    ),
}


@with_float64
@pytest.mark.parametrize("case", EXACT)
def test_a_number_keeps_its_digits_in_float64(case):
    """An exponent, a bound or an operand is not that of float32."""
    function, x, value, slope = EXACT[case]
    got = double(function, x)
    assert got == pytest.approx((value, slope), rel=4e-15, abs=0)
