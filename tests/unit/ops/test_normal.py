"""The polynomials behind erfinv and the normal distribution."""

import keras
import mpmath
import numpy as np
import pytest

from stablekeras import ops
from stablekeras.ops.normal import lower_tail
from tests.accuracy.backends import DTYPES, MODES, derivatives
from tests.unit.ops.calculus import INF, NAN, value, with_float64

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


@pytest.mark.parametrize("mode", MODES)
def test_erfinv_near_the_smallest_number(mode):
    """What is within the format is not flushed on the way."""
    x = np.float32([[-1.9393314e-38]])
    got = derivatives(ops.erfinv, [x], 1.0, mode, second=False)[0][0]
    exact = x.astype("float64") * np.sqrt(np.pi) / 2
    assert np.ravel(got) == pytest.approx(np.ravel(exact), rel=1e-6, abs=0)


@with_float64
def test_erfinv_between_its_regions():
    """Its slope keeps the digits of its value, which an exponential doubles."""
    x = 0.8500077339904406
    with mpmath.workdps(30):
        y = mpmath.erfinv(x)
        exact = mpmath.sqrt(mpmath.pi) / 2 * mpmath.exp(y * y)
    # 4 ULP, and what an ULP of x causes.
    allowed = 4 * 2.0**-51 + 12.7 * 2.0**-53
    rows = np.full((16, 1), x)  # enough for the kernels of many
    got = derivatives(ops.erfinv, [rows], 1.0, "eager", second=False)[0][1]
    with mpmath.workdps(30):
        assert max(abs(exact - v) for v in got.ravel()) < allowed
