"""Given derivatives: first, second, and of what was not selected."""

import numpy as np
import pytest
from keras import ops as kops

from stablekeras.ops.gradient import with_derivative, with_pullback
from tests.accuracy.backends import derivatives
from tests.unit.ops.calculus import slope

pytestmark = pytest.mark.backends


def test_the_given_derivative_is_the_gradient():
    """The gradient is what was given, not that of the value."""
    odd = with_derivative(lambda x: x * 0, lambda x: 3 * x)
    assert slope(odd, [2.0]).tolist() == [6.0]


def test_the_derivative_is_differentiated_in_turn():
    """The second derivative is that of the given first one."""
    odd = with_derivative(lambda x: x * 0, lambda x: x * x)
    rows = np.float32([[3.0]])
    assert derivatives(odd, [rows], 1.0, "eager")[0][2].tolist() == [[6.0]]


def test_a_zero_upstream_selects_an_infinite_slope_away():
    """0 * inf is 0 where the function says its slope may be infinite."""
    log = with_derivative(kops.log, lambda x: 1 / x, singular=True)
    assert slope(lambda x: kops.where(x > 0, log(x), 0.0), [0.0]) == [0.0]


def test_a_live_upstream_meets_the_infinite_slope():
    """Nothing is hidden where the value is used."""
    log = with_derivative(kops.log, lambda x: 1 / x, singular=True)
    assert slope(log, [0.0]).tolist() == [np.inf]


def test_a_pullback_of_several_tensors_serves_each():
    """Every input gets its own gradient."""
    function = with_pullback(
        lambda x, y: x * y, lambda u, x, y: (u * 10 * y, u * 100 * x)
    )
    got = slope(lambda v: function(v[:, 0], v[:, 1]), [[2.0, 3.0]])
    assert got.tolist() == [[30.0, 200.0]]


def test_a_function_of_the_function_is_differentiated_twice():
    """The chain rule of the second order sees the given derivative."""
    square = with_pullback(
        lambda x: kops.stop_gradient(x * x), lambda u, x: (u * 2 * x,)
    )
    rows = np.float32([[3.0]])
    got = derivatives(lambda x: kops.square(square(x)), [rows], 1.0, "eager")
    assert got[0][2].tolist() == [[108.0]]
