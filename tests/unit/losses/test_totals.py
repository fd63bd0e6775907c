"""Sums of many equal entries, whose roundings all point the same way."""

import numpy as np
import pytest
import tensorflow as tf

from stablekeras import losses

LOSSES = {
    "absolute": (losses.mean_absolute_error, lambda y, p: abs(y - p).mean()),
    "squared": (losses.mean_squared_error, lambda y, p: ((y - p) ** 2).mean()),
    "binary": (losses.binary_crossentropy, lambda y, p: -np.log(p).mean()),
    "dice": (
        lambda y, p: losses.dice(y, p, axis=-1),
        lambda y, p: 1 - 2 * (y * p).sum() / (y.sum() + p.sum()),
    ),
    "tversky": (
        lambda y, p: losses.tversky(y, p, axis=-1),
        lambda y, p: 1 - 2 * (y * p).sum() / (y.sum() + p.sum()),
    ),
}
# Rows and entries that lose digits where nothing is done about it.
SIZES = {"graph": (1, 1_000_000), "xla": (16, 1 << 16)}


@pytest.mark.parametrize("mode", SIZES)
@pytest.mark.parametrize("name", LOSSES)
def test_many_equal_entries_have_the_loss_of_one(name, mode):
    """Value and slope are within four units of float64's."""
    loss, exact = LOSSES[name]
    p = np.full(SIZES[mode], 0.3, "float32")
    y = np.ones_like(p)

    @tf.function(jit_compile=mode == "xla")
    def both(y, p):
        with tf.GradientTape() as tape:
            tape.watch(p)
            value = loss(y, p)
        return value, tape.gradient(value, p)

    value, slope = both(tf.constant(y), tf.constant(p))
    expected = exact(y[0].astype("float64"), p[0].astype("float64"))
    assert value.numpy()[0] == pytest.approx(expected, rel=5e-7)
    chance = float(p[0, 0])
    each = {
        "absolute": -1.0,
        "squared": -2 * (1 - chance),
        "binary": -1 / chance,
        # t / (t + a) of one entry, whose slope is shared by all.
        "dice": -2 / (1 + chance) ** 2,
        "tversky": -2 / (1 + chance) ** 2,
    }[name]
    np.testing.assert_allclose(slope.numpy()[0], each / p.shape[1], rtol=5e-7)
