"""Put a value that is not finite into a training, at one exact place.

A fault travels with the data: every row of a batch has four finite numbers
beside its features, `(place, unit, numerator, denominator)`, and the layers
below turn those of the rows they are meant for into NaN, Inf or something
huge. A healthy row has `(0, 0, 0, 1)`. So one compiled model serves any number
of faults, and the first value that is not finite is made by one known op.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

__all__ = [
    "HEALTHY",
    "Disturbance",
    "GradientDisturbance",
    "Sabotage",
    "row",
]

HEALTHY = (0.0, 0.0, 0.0, 1.0)
_QUOTIENTS = {
    "nan": (0.0, 0.0),
    "inf": (1.0, 0.0),
    "-inf": (-1.0, 0.0),
}


def row(place, unit, value):
    """Returns what a row must carry to have `value` put in.

    Args:
        place: Number of the disturbance that is meant, from 1.
        unit: Position along the last axis, taken modulo its length.
        value: `"nan"`, `"inf"`, `"-inf"` or a finite number.
    """
    quotient = _QUOTIENTS.get(value)
    numerator, denominator = quotient or (float(value), 1.0)
    return np.array([place, unit, numerator, denominator], "float32")


def _disturbance(fault, place, like):
    """Returns what is added to `like`: 0 but where a row asks for this."""
    meant = fault[:, 0] == place
    value = tf.where(meant, fault[:, 2], 0.0) / tf.where(
        meant, fault[:, 3], 1.0
    )
    units = tf.shape(like)[-1]
    chosen = tf.range(units) == tf.cast(fault[:, 1:2], tf.int32) % units
    shape = tf.concat(
        [tf.shape(like)[:1], tf.ones_like(tf.shape(like)[1:-1]), [units]], 0
    )
    bumps = tf.where(chosen, value[:, None], 0.0)
    return tf.cast(tf.reshape(bumps, shape), like.dtype)


class Disturbance(layers.Layer):
    """Adds a row's value to one unit of an activation.

    Args:
        place: Its number; rows that carry it are disturbed here.
    """

    def __init__(self, place, **kwargs):
        # The codes are numbers, not features: they stay in float32.
        super().__init__(autocast=False, **kwargs)
        self.place = place

    def call(self, x, fault):
        return x + _disturbance(fault, self.place, x)


class GradientDisturbance(Disturbance):
    """Adds it to the gradient that flows back, and leaves the value alone."""

    def call(self, x, fault):
        @tf.custom_gradient
        def identity(x):
            def gradient(upstream):
                return upstream + _disturbance(fault, self.place, upstream)

            return tf.identity(x), gradient

        return identity(x)


class Sabotage(keras.callbacks.Callback):
    """Writes a value into one entry of a variable after a step.

    Args:
        write: Called with the model once step `step` of `epoch` has ended, as
            user code between two steps might be.
        epoch: Epoch.
        step: Step; with several steps a call, the last of a call.
    """

    def __init__(self, write, epoch, step):
        super().__init__()
        self._write = write
        self._when = (epoch, step)
        self._epoch = 0
        self.done = False

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        # Keras numbers the end of a short last chunk as if it were whole.
        if (self._epoch, batch) >= self._when and not self.done:
            self._write(self.model)
            self.done = True
