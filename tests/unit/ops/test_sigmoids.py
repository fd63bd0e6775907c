"""The logistic family at infinity and at its joints."""

import numpy as np
import pytest

from stablekeras import ops
from tests.unit.ops.calculus import INF, NAN, slope, value

pytestmark = pytest.mark.backends

ENDS = [-INF, INF, NAN]


@pytest.mark.parametrize(
    ("function", "low", "high", "slope_low", "slope_high"),
    [
        (ops.sigmoid, 0.0, 1.0, 0.0, 0.0),
        (ops.log_sigmoid, -INF, 0.0, 1.0, 0.0),
        (ops.softplus, 0.0, INF, 0.0, 1.0),
        (ops.log_cosh, INF, INF, -1.0, 1.0),
        (ops.tanh, -1.0, 1.0, 0.0, 0.0),
        (ops.expm1, -1.0, INF, 0.0, INF),
    ],
)
def test_infinity_gives_the_limit(function, low, high, slope_low, slope_high):
    """Value and gradient at both infinities are the limits; NaN stays."""
    np.testing.assert_array_equal(value(function, ENDS), [low, high, NAN])
    np.testing.assert_array_equal(
        slope(function, ENDS), [slope_low, slope_high, NAN]
    )


def test_softplus_and_its_inverse_cancel():
    """The inverse of softplus finds the number again, large and small."""
    x = np.float32([1e-6, 0.5, 3.0, 1000.0])
    again = np.asarray(ops.softplus(ops.softplus_inverse(x)))
    assert again == pytest.approx(x, rel=1e-5)


def test_logit_and_sigmoid_cancel():
    """The logit of a probability has that probability, both halves."""
    p = np.float32([1e-30, 0.1, 0.49, 0.5, 0.51, 0.9])
    assert np.asarray(ops.sigmoid(ops.logit(p))) == pytest.approx(p, rel=1e-5)


def test_logit_at_its_ends():
    """A sure event has an infinite logit; outside there is none."""
    np.testing.assert_array_equal(
        value(ops.logit, [0.0, 1.0, -0.1, 1.1]), [-INF, INF, NAN, NAN]
    )


def test_the_largest_numbers_do_not_overflow():
    """log_cosh and softplus of the largest number are finite."""
    big = np.finfo("float32").max
    assert value(ops.log_cosh, [big, -big]).tolist() == [big, big]
    assert value(ops.softplus, [big]).tolist() == [big]


def test_the_inverse_of_softplus_keeps_its_digits_near_its_zero():
    """At log(2) it is 0, and beside it does not cancel."""
    x = np.float32([0.69357151, 0.69310426, 0.6, 0.8])
    exact = np.log(np.expm1(x.astype("float64")))
    assert value(ops.softplus_inverse, x) == pytest.approx(exact, rel=1e-6)
