"""Categorical cross-entropy from logits: by a kernel, and compiled."""

import numpy as np
import pytest
import tensorflow as tf

from stablekeras import losses

HUGE = np.finfo("float32").max

ROWS = {
    "ordinary": ([0.5, -1.0, 2.0], [0.0, 1.0, 0.0]),
    "shares": ([0.5, -1.0, 2.0], [0.25, 0.25, 0.5]),
    "labels add up to 2": ([0.5, -1.0, 2.0], [1.0, 0.0, 1.0]),
    "no label": ([0.5, -1.0, 2.0], [0.0, 0.0, 0.0]),
    "far apart": ([300.0, -300.0, 0.0], [0.0, 1.0, 0.0]),
    "equal": ([7.0, 7.0, 7.0], [0.0, 0.0, 1.0]),
    "impossible, not asked": ([1.0, -np.inf, 2.0], [1.0, 0.0, 0.0]),
    "half the range": ([0.4 * HUGE, -0.4 * HUGE, 0.0], [0.0, 1.0, 0.0]),
    "a share of the range": ([HUGE, -HUGE, 0.0], [0.75, 0.25, 0.0]),
}


def _value_and_slope(logits, labels, jit):
    @tf.function(autograph=False, jit_compile=jit)
    def step(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = losses.categorical_crossentropy(y, x, from_logits=True)
        return value, tape.gradient(value, x)

    x, y = np.asarray([logits], "float32"), np.asarray([labels], "float32")
    value, slope = step(tf.constant(x), tf.constant(y))
    return value.numpy()[0], slope.numpy()[0]


def _expected(logits, labels):
    """Returns value and slope by the formula, in float64."""
    x, y = (np.asarray(np.float32(a), "float64") for a in (logits, labels))
    shares = np.exp(x - x.max())
    log_shares = x - x.max() - np.log(shares.sum())
    asked = y > 0
    value = -(y[asked] * log_shares[asked]).sum()
    return value, y.sum() * shares / shares.sum() - y


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("row", ROWS)
def test_value_and_slope_are_those_of_the_formula(row, jit):
    """Also where labels do not add up to 1 and differences overflow."""
    value, slope = _value_and_slope(*ROWS[row], jit)
    expected = _expected(*ROWS[row])
    np.testing.assert_allclose(value, expected[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(slope, expected[1], rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("jit", [False, True])
def test_nan_stays_nan_without_a_label(jit):
    """A NaN is not hidden by labels of 0."""
    value, slope = _value_and_slope([1.0, np.nan, 0.0], [0.0, 0.0, 0.0], jit)
    assert np.isnan(value)
    assert np.isnan(slope).all()
