"""Roots, powers and hypotenuses where their tangent is vertical."""

import keras
import numpy as np
import pytest

from stablekeras import ops
from tests.unit.ops.calculus import INF, NAN, slope, value

pytestmark = pytest.mark.backends


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (ops.sqrt, [0.0, INF, -1.0, NAN], [0.0, INF, NAN, NAN]),
        (ops.rsqrt, [0.0, INF, -1.0, NAN], [INF, 0.0, NAN, NAN]),
    ],
)
def test_roots_have_their_limits(function, x, expected):
    """0 and infinity are limits; a negative number has no root."""
    np.testing.assert_array_equal(value(function, x), expected)


def test_the_root_of_zero_has_no_gradient():
    """A vertical tangent has gradient 0, so that 0 * inf cannot arise."""
    assert slope(ops.sqrt, [0.0, 4.0]).tolist() == [0.0, 0.25]


def test_an_unselected_branch_does_not_spoil_the_gradient():
    """A single `where` is safe around our functions."""

    def guarded(function):
        return lambda x: keras.ops.where(x > 0, function(x), 0.0)

    for function in (ops.rsqrt, ops.log1p, ops.logit, ops.erfinv):
        x = [0.0, -1.0, 0.5] if function is not ops.erfinv else [-1.0, 0.5]
        assert np.isfinite(slope(guarded(function), x)).all(), function


@pytest.mark.parametrize(
    ("x", "y", "by_base", "by_exponent"),
    [
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 1.0, 1.0, 0.0),
        (0.0, 2.0, 0.0, 0.0),
        (0.0, 0.5, 0.0, 0.0),
        (2.0, 3.0, 12.0, 8 * np.log(2)),
        (-2.0, 3.0, 12.0, 0.0),
        (1e20, 1.5, 1.5e10, None),
    ],
)
def test_power_has_a_finite_gradient(x, y, by_base, by_exponent):
    """Also at a base of 0, where Keras' gradient is NaN or infinite."""
    got = slope(lambda v: ops.power(v[:, 0], v[:, 1]), [[x, y]])[0]
    assert got[0] == pytest.approx(by_base, rel=1e-6)
    if by_exponent is not None:
        assert got[1] == pytest.approx(by_exponent, rel=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        # x**(y - 1) overflows, y times it does not.
        (7.968411765015126e-29, -0.3858071267604828, -3.35466766e38),
        # x**(y - 1) underflows, y times it does not.
        (0.875, 680.0, 2.8574386507e-37),
        (-0.875, 680.0, -2.8574386507e-37),
        (-0.875, 681.0, 2.5039356706e-37),
        (-0.875, 22.0, -1.3322686064),
        (-0.875, 23.0, 1.2187229865),
        (-0.875, 22.5, NAN),
    ],
)
def test_the_slope_of_a_power_is_finite_where_its_factor_is_not(x, y, expected):
    """What the exponent multiplies may be beyond the format's ends."""
    got = slope(lambda v: ops.power(v[:, 0], v[:, 1]), [[x, y]])[0, 0]
    assert got == pytest.approx(expected, rel=5e-7, nan_ok=True)


def test_integer_powers_stay_integers():
    """As in Keras, integers to integers are integers."""
    out = ops.power(np.int32([2, 3]), np.int32([3, 2]))
    assert "int" in keras.backend.standardize_dtype(out.dtype)
    assert np.asarray(out).tolist() == [8, 9]


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_hypot_does_not_square(size):
    """Neither the square of 1e30 nor that of 1e-30 is in float32."""
    rows = [[3 * size, -4 * size]]
    got = value(lambda v: ops.hypot(v[:, 0], v[:, 1]), rows)
    assert np.ravel(got)[0] == pytest.approx(5 * size, rel=1e-6)
    both = slope(lambda v: ops.hypot(v[:, 0], v[:, 1]), rows)
    assert both == pytest.approx(np.array([[0.6, -0.8]]), rel=1e-6)


def test_hypot_at_the_origin_and_at_infinity():
    """Gradient 0 at the origin; an infinite leg has an infinite length."""
    hypot = lambda v: ops.hypot(v[:, 0], v[:, 1])  # noqa: E731
    assert slope(hypot, [[0.0, 0.0]]).tolist() == [[0.0, 0.0]]
    assert np.ravel(value(hypot, [[INF, 1.0]])).tolist() == [INF]
    assert np.isnan(value(hypot, [[NAN, 1.0]])).all()
