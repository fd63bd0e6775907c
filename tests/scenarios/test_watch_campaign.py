"""Fifty healthy trainings, fifty silences: a watch that cries is taken out."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.scenarios.watched import watch

ROWS, FEATURES, EPOCHS = 96, 8, 3


def _masked_attention(x):
    """Causal attention whose mask is made of -inf."""
    x = layers.Dense(8)(layers.Reshape((4, 2))(x))
    mask = np.triu(np.full((4, 4), -np.inf, "float32"), 1)
    scores = keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))
    mask = keras.ops.cast(mask, scores.dtype)
    weights = keras.ops.softmax(scores + mask)
    return layers.Flatten()(keras.ops.matmul(weights, x))


def _padded_attention(x):
    """Keras' attention over rows of different lengths."""
    x = layers.Masking()(layers.Reshape((4, 2))(x))
    return keras.ops.reshape(layers.MultiHeadAttention(2, 4)(x, x), (-1, 8))


def _handmade_sigmoid(x):
    """exp overflows inside 1 / (1 + exp(-z)), which is 0 and right."""
    gate = 1.0 / (1.0 + keras.ops.exp(-300.0 * x))
    return layers.Dense(8)(x) * gate


def _normalized(x):
    x = layers.Dense(8, use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5, seed=1)(layers.Activation("gelu")(x))
    return layers.LayerNormalization()(layers.Dense(8)(x))


def _recurrent(x):
    return layers.GRU(6)(layers.Masking()(layers.Reshape((4, 2))(x)))


def _convolutional(x):
    x = layers.Conv1D(6, 3, padding="same")(layers.Reshape((8, 1))(x))
    x = layers.GroupNormalization(2)(x)
    return layers.GlobalMaxPooling1D()(layers.SpatialDropout1D(0.2)(x))


def _one_hot_max(x):
    """Infinities that `maximum` and `where` choose away."""
    z = layers.Dense(8)(x)
    top = keras.ops.max(
        keras.ops.where(z > 0, z, -np.inf), axis=-1, keepdims=True
    )
    return keras.ops.where(top > 0, z, keras.ops.zeros_like(z))


KINDS = {
    "mask": _masked_attention,
    "padding": _padded_attention,
    "sigmoid": _handmade_sigmoid,
    "normalized": _normalized,
    "recurrent": _recurrent,
    "convolution": _convolutional,
    "chosen": _one_hot_max,
}
OPTIMIZERS = ("sgd", "adam", "rmsprop", "adamw", "nadam", "lion")
TRAININGS = 50


def _training(number):
    """Returns the parts of training `number`; each number is another mix."""
    kinds = list(KINDS)
    kind = kinds[number % len(kinds)]
    optimizer = OPTIMIZERS[number % len(OPTIMIZERS)]
    precision = ("float32", "mixed_float16", "mixed_bfloat16")[number % 3]
    return kind, optimizer, precision, 1 + 2 * (number % 2)


def _run(number):
    kind, optimizer, precision, steps = _training(number)
    keras.utils.set_random_seed(number)
    rng = np.random.default_rng(number)
    x = rng.normal(size=(ROWS, FEATURES)).astype("float32")
    x[:, 6:] *= rng.integers(0, 2, size=(ROWS, 1))  # Padding of two lengths.
    label = (x[:, :1] > 0).astype("float32")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        inputs = keras.Input((FEATURES,))
        outputs = layers.Dense(1, dtype="float32")(KINDS[kind](inputs))
        model = keras.Model(inputs, outputs)
        optimizer = keras.optimizers.get(optimizer)
        if precision == "mixed_float16":
            # High, so that the search has to come down.
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, initial_scale=2.0**24
            )
        model.compile(
            optimizer,
            keras.losses.BinaryCrossentropy(from_logits=True),
            jit_compile=number % 10 == 9,
            steps_per_execution=steps,
        )
        watching = watch("skip", diagnose=True)
        history = model.fit(
            x,
            label,
            batch_size=16,
            epochs=EPOCHS,
            verbose=0,
            callbacks=[watching],
            validation_data=(x[:20], label[:20]),
        )
    finally:
        keras.config.set_dtype_policy(before)
    return watching, history, model


@pytest.mark.slow
@pytest.mark.parametrize("number", range(TRAININGS))
def test_a_healthy_training_raises_no_alarm(number):
    """No incident; the loss-scale search is counted as what it is."""
    watching, history, model = _run(number)
    assert [str(i.diagnosis) for i in watching.incidents] == []
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(w).all() for w in model.get_weights())
    searched = _training(number)[2] == "mixed_float16"
    assert (watching.overflows > 0) == searched


def test_the_mixes_are_the_ones_that_matter():
    """Every kind meets every precision; jit and chunks are among them."""
    mixes = [_training(n) for n in range(TRAININGS)]
    assert {(kind, precision) for kind, _, precision, _ in mixes} == {
        (kind, precision)
        for kind in KINDS
        for precision in ("float32", "mixed_float16", "mixed_bfloat16")
    }
    assert {steps for *_, steps in mixes} == {1, 3}
    assert {optimizer for _, optimizer, _, _ in mixes} == set(OPTIMIZERS)
