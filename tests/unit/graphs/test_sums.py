"""One number that is finite exactly if every entry of a tensor is."""

import numpy as np
import pytest
import tensorflow as tf

from stablekeras.graphs.sums import half_square, presence

SHAPES = [(), (7,), (512,), (3, 5), (64, 48), (3, 3, 4, 16), (1024, 3), (0, 4)]


@tf.function(jit_compile=True)
def _both(x):
    return half_square(x), presence(x)


@pytest.fixture(scope="module", params=["eager", "jit"])
def sums(request):
    """Computes `(half_square, presence)`, compiled by XLA or not."""
    if request.param == "jit":
        return _both
    return lambda x: (half_square(x), presence(x))


@pytest.mark.parametrize("shape", SHAPES)
def test_half_square_is_the_sum(sums, shape):
    """Half the sum of squares, in whatever order it is added up."""
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    expected = 0.5 * np.sum(x.astype("float64") ** 2)
    np.testing.assert_allclose(sums(tf.constant(x))[0], expected, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(7,), (64, 48)])
def test_no_entry_that_is_not_finite_is_lost(sums, shape, bad):
    """Wherever it stands, both sums show it."""
    for place in (0, np.prod(shape) // 2, np.prod(shape) - 1):
        x = np.ones(shape, "float32")
        x.flat[place] = bad
        for found in sums(tf.constant(x)):
            assert not np.isfinite(found)


def test_what_squares_to_infinity_is_shown_by_half_square_alone(sums):
    """3e19 is present, but an optimizer may not survive its square."""
    x = np.zeros((64, 48), "float32")
    x[5, 5] = -3e19
    half, there = sums(tf.constant(x))
    assert np.isinf(half)
    assert np.isfinite(there)


def test_half_precision_is_summed_in_float32(sums):
    """300 squared is beyond float16, and no fault."""
    x = tf.fill((64, 48), tf.constant(300.0, tf.float16))
    half, _ = sums(x)
    assert half.dtype == tf.float32
    assert float(half) == 0.5 * 300.0**2 * 64 * 48


def test_float64_is_summed_in_float64(sums):
    """A sound gradient of 1e100 is no alarm."""
    half, there = sums(tf.fill((64, 48), tf.constant(1e100, tf.float64)))
    assert half.dtype == tf.float64
    assert np.isfinite(half)
    assert np.isfinite(there)
