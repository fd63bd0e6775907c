"""Variance and standard deviation of constant, huge and shifted data."""

import numpy as np
import pytest

from stablekeras import ops
from tests.accuracy.backends import MODES, derivatives
from tests.unit.ops.calculus import slope, value

pytestmark = pytest.mark.backends


def _std(x):
    return ops.std(x, axis=-1)


def test_constant_data_have_gradient_zero():
    """Where Keras' gradient of std is NaN ours is 0."""
    assert value(_std, [[0.1, 0.1, 0.1]]).tolist() == [0.0]
    assert slope(_std, [[0.1, 0.1, 0.1]]).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_std_does_not_square(size):
    """The spread of data of any size is found."""
    x = np.array([[1.0, 2.0, 4.0]])
    got = value(_std, x * size)[0]
    assert got == pytest.approx(np.std(x) * size, rel=1e-6)


def test_a_large_mean_does_not_hide_the_spread():
    """Data around 1e6 keep the digits their differences have."""
    x = np.float32([[1e6, 1e6 + 1, 1e6 + 2]])
    got = float(np.asarray(ops.var(x)))
    assert got == pytest.approx(2 / 3, rel=1e-6)


def test_shapes_are_those_of_numpy():
    """Axes and keepdims have NumPy's meaning."""
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    for axis in (None, 0, (0, 2)):
        for keepdims in (False, True):
            got = np.asarray(ops.var(x, axis=axis, keepdims=keepdims))
            expected = np.var(x.astype("float64"), axis, keepdims=keepdims)
            assert got.shape == expected.shape
            assert got == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [1000, 100_000])
def test_many_equal_numbers_have_no_spread(count, mode):
    """Where a program sums them one by one, what it loses is no spread."""
    x = np.full((1, count), 3.3, "float32")
    got = derivatives(_std, [x], 1.0, mode, second=False)[0]
    assert float(np.ravel(got[0])[0]) == 0.0
    assert not got[1].any()
