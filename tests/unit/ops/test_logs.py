"""Logarithms at and below their edges."""

import numpy as np
import pytest

from stablekeras import ops
from tests.accuracy.backends import MODES, derivatives
from tests.unit.ops.calculus import INF, NAN, slope, value

pytestmark = pytest.mark.backends

FLOOR = 2.0**-46  # the square of float32's epsilon


def test_clamped_log_still_learns_below_the_floor():
    """Value and gradient are those of the floor, not 0."""
    x = [-1.0, 0.0, FLOOR / 4, FLOOR]
    assert slope(ops.clamped_log, x).tolist() == [1 / FLOOR] * 4
    assert set(value(ops.clamped_log, x)) == {np.log(np.float32(FLOOR))}


def test_clamped_log_is_exact_above_the_floor():
    """Where the probability is legitimate nothing is clamped."""
    x = np.float32([1e-13, 1e-7, 0.5, 1.0, 1e30])
    assert value(ops.clamped_log, x) == pytest.approx(
        np.log(x.astype("float64")), rel=2e-7
    )
    assert slope(ops.clamped_log, x) == pytest.approx(1 / x, rel=2e-7)


def test_a_half_precision_gradient_of_the_clamped_log_is_finite():
    """float16 cannot hold 1 / floor; its largest number serves."""
    x = np.zeros((1, 1), "float16")
    _, gradient, _ = derivatives(ops.clamped_log, [x], 1.0, "eager")[0]
    assert gradient.tolist() == [[65504.0]]


@pytest.mark.parametrize("floor", [0.0, -1.0, INF, NAN])
def test_a_floor_must_be_positive(floor):
    """A floor that bounds nothing is refused."""
    with pytest.raises(ValueError, match=r"floor must be .* Received: floor="):
        ops.clamped_log([1.0], floor=floor)


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (ops.log1mexp, [0.0, INF, -1.0], [-INF, 0.0, NAN]),
        (ops.log1p, [-1.0, INF, -2.0], [-INF, INF, NAN]),
        (ops.clamped_log, [INF, NAN], [INF, NAN]),
    ],
)
def test_ends_of_the_domain_are_limits(function, x, expected):
    """At its ends a logarithm is its limit, outside it is NaN."""
    np.testing.assert_array_equal(value(function, x), expected)


@pytest.mark.parametrize(
    ("function", "x", "y", "expected"),
    [
        (ops.logaddexp, [INF, -INF, -INF], [INF, -INF, 2.0], [INF, -INF, 2.0]),
        (ops.log_sub_exp, [1.0, 1.0, -INF], [1.0, -INF, -INF], [-INF, 1, -INF]),
        (ops.log_sub_exp, [1.0], [2.0], [NAN]),
        (ops.xlogy, [0.0, 0.0, 0.0], [0.0, INF, NAN], [0.0, 0.0, NAN]),
        (ops.xlogy, [1.0, NAN], [0.0, 0.0], [-INF, NAN]),
        (ops.xlog1py, [0.0, 0.0], [-1.0, NAN], [0.0, NAN]),
    ],
)
def test_infinities_and_zeros_have_their_limit(function, x, y, expected):
    """Two infinities that meet, and 0 * log(0), are not NaN."""
    got = np.asarray(function(np.float32(x), np.float32(y)))
    np.testing.assert_array_equal(got, np.float32(expected))


def test_a_tie_shares_the_gradient():
    """The gradient of logaddexp at a tie is one half each, not 1 and 0."""
    both = slope(lambda x: ops.logaddexp(x[:, 0], x[:, 1]), [[2.0, 2.0]])
    assert both.tolist() == [[0.5, 0.5]]


def test_nothing_times_log_of_nothing_has_a_finite_gradient():
    """At (0, 0) the slope of xlogy is the log of the smallest number."""
    got = slope(lambda x: ops.xlogy(x[:, 0], x[:, 1]), [[0.0, 0.0]])
    assert got[0, 0] == pytest.approx(np.log(2.0**-126))
    assert got[0, 1] == 0.0


@pytest.mark.parametrize(
    ("function", "x", "y", "expected"),
    [
        (ops.xlogy, -1.25, 2.0**-100, 2.0**100),
        (ops.xlogy, -3e38, 0.5, 2.0),
        (ops.xlogy, 0.0, 0.5, 2.0),
        (ops.xlogy, 0.0, 0.0, 0.0),
        (ops.xlog1py, -3e38, -0.5, 2.0),
        (ops.xlog1py, 0.0, 1.0, 0.5),
    ],
)
def test_the_mixed_second_derivative_does_not_meet_the_other(
    function, x, y, expected
):
    """By x and y it is 1 / y, though by y twice it is beyond the format."""
    rows = np.float32([[x, y]])
    both = lambda v: function(v[:, 0], v[:, 1])  # noqa: E731
    assert derivatives(both, [rows], 1.0, "eager")[0][2].tolist() == [
        [0.0, expected]
    ]


def test_broadcast_gradients_are_summed_back():
    """A scalar that was broadcast gets the sum of all its gradients."""
    got = slope(
        lambda x: ops.xlogy(x[:, 0], x[:1, 1]), [[1.0, 2.0], [3.0, 2.0]]
    )
    assert got[:, 1].tolist() == [2.0, 0.0]


def test_entropy_of_a_sure_distribution_is_zero():
    """p = 0 and p = 1 add nothing; the gradient stays finite."""
    assert value(ops.entropy, [[0.0, 1.0]]).tolist() == [0.0]
    assert np.isfinite(slope(ops.entropy, [[0.0, 1.0]])).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("function", [ops.xlogy, ops.xlog1py])
def test_mixed_derivatives_by_a_large_number(function, mode):
    """Both are 1 / y, to the last bits where y is near the end of float32."""
    # Enough for the kernels of many.
    x = np.float32([[5.1888606e-12, 1.1509171e34]] * 16)
    one = derivatives(lambda v: function(v[:, 0], v[:, 1]), [x], 1.0, mode)
    other = derivatives(
        lambda v: function(v[:, 1], v[:, 0]), [x[:, ::-1]], 1.0, mode
    )
    exact = 1 / np.float64(x[0, 1])
    assert one[0][2][0, 1] == pytest.approx(exact, rel=1e-6, abs=0)
    assert other[0][2][0, 1] == pytest.approx(exact, rel=1e-6, abs=0)
