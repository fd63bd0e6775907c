"""The models that the campaign breaks: seven kinds, each as small as it goes.

Every model takes `{"x": ..., "fault": ...}` and is disturbed at each of its
`places`: behind an odd number stands the disturbance of an activation, behind
the even one after it that of the gradient at the same point.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.faults.injection import Disturbance, GradientDisturbance

__all__ = ["KINDS", "Autoencoder", "Kind"]

TIME, FEATURES, VOCABULARY = 5, 4, 12


class _Points:
    """Hands out the disturbances of one model, numbered in order."""

    def __init__(self):
        self.fault = keras.Input((4,), name="fault")
        self.count = 0

    def __call__(self, x):
        self.count += 2
        number = self.count
        x = Disturbance(number - 1, name=f"disturb_{number - 1}")(x, self.fault)
        return GradientDisturbance(number, name=f"disturb_{number}")(
            x, self.fault
        )


def _mlp(at):
    x = inputs = keras.Input((FEATURES,), name="x")
    x = at(layers.Dense(8, activation="tanh")(x))
    x = layers.BatchNormalization()(x)
    x = at(layers.Dropout(0.25, seed=3)(x))
    return inputs, layers.Dense(1, dtype="float32")(x)


def _cnn(at):
    x = inputs = keras.Input((6, 6, 2), name="x")
    x = at(layers.Conv2D(4, 3, padding="same", use_bias=False)(x))
    x = at(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.MaxPooling2D()(layers.Dropout(0.2, seed=4)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return inputs, layers.Dense(3, dtype="float32")(at(x))


def _lstm(at):
    x = inputs = keras.Input((TIME, FEATURES), name="x")
    x = at(layers.LSTM(4)(at(layers.Dense(4)(x))))
    return inputs, layers.Dense(1, dtype="float32")(x)


def _transformer(at):
    x = inputs = keras.Input((TIME, FEATURES), name="x")
    x = at(layers.Dense(8)(x))
    attention = layers.MultiHeadAttention(2, 4, dropout=0.1, seed=5)
    x = x + at(attention(x, x, use_causal_mask=True))
    x = layers.LayerNormalization()(x)
    x = x + at(layers.Dense(8, activation="gelu")(x))
    x = layers.GlobalAveragePooling1D()(x)
    return inputs, layers.Dense(3, dtype="float32")(x)


def _text(at):
    """Ids of a small vocabulary: every batch has duplicates."""
    inputs = keras.Input((TIME,), dtype="int32", name="x")
    x = at(layers.Embedding(VOCABULARY, 6)(inputs))
    x = at(layers.Dense(6, activation="relu")(x))
    x = layers.GlobalAveragePooling1D()(x)
    return inputs, layers.Dense(3, dtype="float32")(x)


def _heads(at):
    """Two outputs by name, each with a loss of its own."""
    x = inputs = keras.Input((FEATURES,), name="x")
    x = at(layers.Dense(6, activation="tanh")(x))
    a = at(layers.Dense(4, activation="relu")(x))
    return inputs, {
        "value": layers.Dense(1, dtype="float32", name="value")(a),
        "kind": layers.Dense(3, dtype="float32", name="kind")(x),
    }


def _autoencoder(at):
    x = inputs = keras.Input((FEATURES,), name="x")
    x = at(layers.Dense(3, activation="tanh")(x))
    x = layers.LayerNormalization()(at(layers.Dense(FEATURES)(x)))
    return inputs, layers.Dense(FEATURES, dtype="float32")(x)


class Autoencoder(keras.Model):
    """A step of its own: loss, tape, update and logs are all by hand."""

    def train_step(self, data):
        x, y, weight = data
        with tf.GradientTape() as tape:
            error = tf.reduce_mean(tf.square(self(x, training=True) - y), -1)
            loss = tf.reduce_mean(error * weight)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"loss": loss}


class Kind:
    """One kind of model with the data that it is trained on.

    Args:
        layers: Takes the points of disturbance; returns input and outputs.
        loss: The loss, as `compile` takes it.
        shape: Shape of a row of `x`; `int` entries for the text model.
        targets: `"value"`, `"kind"`, both by name, or `"input"`.
        cls: The model's class.
    """

    def __init__(self, layers, loss, shape, targets, cls=keras.Model):
        self._layers = layers
        self.loss = loss
        self.shape = shape
        self.targets = targets
        self._cls = cls

    def build(self):
        """Returns a new model; its disturbances are `1 ... model.places`."""
        at = _Points()
        inputs, outputs = self._layers(at)
        model = self._cls({"x": inputs, "fault": at.fault}, outputs)
        model.places = at.count
        return model

    @property
    def is_text(self):
        return self._layers is _text

    def rows(self, rng, count):
        """Returns `count` healthy rows of x, y and sample weight."""
        if self.is_text:
            x = rng.integers(0, VOCABULARY, (count, *self.shape), "int32")
        else:
            x = rng.normal(size=(count, *self.shape)).astype("float32")
        flat = x.reshape(count, -1).astype("float32")
        value = np.tanh(flat[:, :1])
        kind = np.eye(3, dtype="float32")[np.abs(flat[:, 1].astype(int)) % 3]
        y = {
            "value": value,
            "kind": kind,
            "both": {"value": value, "kind": kind},
            "input": flat,
        }[self.targets]
        weight = rng.uniform(0.5, 1.5, count).astype("float32")
        if self.targets == "both":
            weight = {"value": weight, "kind": weight.copy()}
        return x, y, weight


def _entropy():
    return keras.losses.CategoricalCrossentropy(from_logits=True)


KINDS = {
    "mlp": Kind(_mlp, "mse", (FEATURES,), "value"),
    "cnn": Kind(_cnn, _entropy(), (6, 6, 2), "kind"),
    "lstm": Kind(_lstm, "mse", (TIME, FEATURES), "value"),
    "transformer": Kind(_transformer, _entropy(), (TIME, FEATURES), "kind"),
    "text": Kind(_text, _entropy(), (TIME,), "kind"),
    "heads": Kind(
        _heads, {"value": "mse", "kind": _entropy()}, (FEATURES,), "both"
    ),
    "autoencoder": Kind(_autoencoder, None, (FEATURES,), "input", Autoencoder),
}
