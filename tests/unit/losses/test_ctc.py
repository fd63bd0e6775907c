"""CTC of masked frames and rows."""

import keras
import numpy as np
import pytest

from stablekeras import losses

NAN = float("nan")


def masked_step(loss, labels, x, mask, weight=None):
    """Value and gradient of logits whose frames are masked."""
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        x._keras_mask = tf.constant(mask)
        value = loss(labels, x, sample_weight=weight)
    return value.numpy(), tape.gradient(value, x).numpy()


@pytest.mark.parametrize("frames", [3, 5])
def test_masked_frames_are_left_out_of_time(frames):
    """A row with masked frames costs what the row without them costs."""
    rng = np.random.default_rng(frames)
    labels = np.array([[1, 2], [1, 0], [2, 0]])
    x = rng.normal(size=(3, frames, 4))
    mask = np.ones((3, frames), "bool")
    mask[0, 1:-2] = mask[1, :2] = mask[2, -1] = False
    dirty = np.where(mask[:, :, None], x, NAN)
    values, slope = masked_step(losses.CTC(reduction=None), labels, dirty, mask)
    assert values.shape == (3,)
    for row in range(3):
        kept = x[row : row + 1, mask[row]]
        expected = losses.ctc(labels[row : row + 1], kept)
        np.testing.assert_allclose(values[row : row + 1], expected, rtol=1e-12)
    assert (slope[~mask] == 0).all()
    assert np.isfinite(slope).all()


def test_rows_without_frames_and_rows_of_weight_0_do_not_count():
    """The mean is over the rows that have a frame, weighted as asked."""
    labels = np.array([[1, 0], [2, 0], [1, 2]])
    x = np.random.default_rng(0).normal(size=(3, 4, 3))
    mask = np.array([[True] * 4, [False] * 4, [True, True, True, False]])
    dirty = np.where(mask[:, :, None], x, NAN)
    ones = losses.ctc(labels[:1], x[:1]), losses.ctc(labels[2:], x[2:, :3])
    first, last = (float(one[0]) for one in ones)
    mean, _ = masked_step(losses.CTC(), labels, dirty, mask)
    assert mean == pytest.approx((first + last) / 2, rel=1e-12)
    dirty[0] = NAN
    total, slope = masked_step(
        losses.CTC(reduction="sum"), labels, dirty, mask, [0.0, 1.0, 2.0]
    )
    assert total == pytest.approx(2 * last, rel=1e-12)
    assert (slope[:2] == 0).all()


@pytest.mark.parametrize("jit", [False, True])
def test_a_model_that_masks_its_frames_trains(jit):
    """Padding that an Embedding masks does not reach the CTC loss."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(4, 3, mask_zero=True),
            keras.layers.Dense(3),
        ]
    )
    model.compile("sgd", losses.CTC(), jit_compile=jit)
    tokens = np.array([[1, 2, 3, 0, 0], [2, 2, 1, 3, 0]])
    labels = np.array([[1, 0], [1, 2]])
    expected = np.mean(
        [
            losses.ctc(labels[row][None], model(tokens[row][None, :n]))[0]
            for row, n in enumerate((3, 4))
        ]
    )
    history = model.fit(tokens, labels, verbose=0).history["loss"]
    assert history[0] == pytest.approx(expected, rel=1e-5)
