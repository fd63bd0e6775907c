"""The polynomials behind erfinv and the normal distribution."""

import keras
import mpmath
import numpy as np
import pytest

from stablekeras import ops
from stablekeras.ops.normal import lower_tail
from tests.accuracy.backends import DTYPES
from tests.unit.ops.calculus import INF, NAN, value

pytestmark = pytest.mark.backends


@pytest.mark.parametrize(
    ("dtype", "relative"), [("float32", 1e-6), ("float64", 1e-14)]
)
def test_the_tail_polynomial_is_that_of_erfc(dtype, relative):
    """The chance below -a is erfc(a / sqrt(2)) / 2, to the last bits."""
    if dtype not in DTYPES:
        pytest.skip("this backend has no float64")
    a = keras.ops.convert_to_tensor(np.linspace(0, 9, 61), dtype=dtype)
    exact = [
        float(mpmath.erfc(mpmath.mpf(float(v)) / mpmath.sqrt(2)) / 2)
        for v in keras.ops.convert_to_numpy(a)
    ]
    got = keras.ops.convert_to_numpy(lower_tail(a))
    # exp(-a**2 / 2) magnifies the rounding of a**2.
    assert got == pytest.approx(exact, rel=40 * relative)


def test_erfinv_at_its_ends():
    """The inverse of the error function is infinite at 1, NaN beyond."""
    np.testing.assert_array_equal(
        value(ops.erfinv, [-1.0, 1.0, 1.5, NAN]), [-INF, INF, NAN, NAN]
    )


def test_erfinv_is_odd_and_live_near_zero():
    """Tiny arguments give tiny results, not 0."""
    x = np.float32([1e-30, 1e-8, 0.3])
    up, down = value(ops.erfinv, x), value(ops.erfinv, -x)
    assert up.tolist() == (-down).tolist()
    assert up[0] == pytest.approx(1e-30 * np.sqrt(np.pi) / 2, rel=1e-6)
