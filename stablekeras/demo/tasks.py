"""The two tasks of the demo, and the textbook formulas that break on them.

Nothing here is arranged to fail: the data are scikit-learn's, as they come,
and the formulas are those of the textbooks.
"""

import dataclasses
import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from stablekeras import activations, losses

__all__ = [
    "BATCH",
    "Recorded",
    "Task",
    "binary_loss_by_hand",
    "cancer",
    "categorical_loss_by_hand",
    "digits",
    "sigmoid_by_hand",
    "softmax_by_hand",
]

BATCH = 32


@keras.saving.register_keras_serializable(package="stablekeras")
def sigmoid_by_hand(x):
    """The logistic function as the textbook writes it."""
    return 1 / (1 + keras.ops.exp(-x))


@keras.saving.register_keras_serializable(package="stablekeras")
def softmax_by_hand(x):
    """The softmax as the textbook writes it."""
    e = keras.ops.exp(x)
    return e / keras.ops.sum(e, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable(package="stablekeras")
def binary_loss_by_hand(y_true, y_pred):
    """Binary cross-entropy as the textbook writes it."""
    log = keras.ops.log
    return keras.ops.mean(
        -log(y_pred) * y_true - log(1 - y_pred) * (1 - y_true), axis=-1
    )


@keras.saving.register_keras_serializable(package="stablekeras")
def categorical_loss_by_hand(y_true, y_pred):
    """Categorical cross-entropy as the textbook writes it."""
    return keras.ops.sum(-keras.ops.log(y_pred) * y_true, axis=-1)


@keras.saving.register_keras_serializable(package="stablekeras")
class Recorded(keras.Sequential):
    """A `Sequential` whose step also returns the norm of its gradient."""

    def train_step(self, data):
        """Runs one step; the loop of Keras' guide on custom training."""
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
        weights = self.trainable_weights
        gradients = tape.gradient(loss, weights)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return {"loss": loss, "grad_norm": tf.linalg.global_norm(gradients)}


@dataclasses.dataclass(frozen=True)
class Task:
    """One data set with its broken and its stable formulas.

    Args:
        name: What a person calls it.
        train: Features `(samples, features)` and labels
            `(samples, outputs)`, float32, unscaled.
        test: The same for the held-out quarter.
        hidden: Units of the hidden layers.
        learning_rate: Adam's.
        clipnorm: The `global_clipnorm` of the cured training.
        epochs: Epochs that a whole training takes.
        by_hand: Activation and loss from the textbook.
        stable: Ours, drop-in.
        keras: Keras' own, for the reference on scaled features.
    """

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    hidden: tuple[int, ...]
    learning_rate: float
    clipnorm: float
    epochs: int
    by_hand: tuple[Callable, Callable]
    stable: tuple[Callable, Callable]
    keras: tuple[str, str]

    def adam(self, *, decay=False):
        """Returns Adam; with `decay`, its rate falls to 0 by a cosine."""
        rate = self.learning_rate
        if decay:
            steps = self.epochs * math.ceil(len(self.train[0]) / BATCH)
            rate = keras.optimizers.schedules.CosineDecay(rate, steps)
        return keras.optimizers.Adam(rate)

    def model(self, formulas, optimizer=None, seed=0, **compile_options):
        """Returns a compiled model, the same weights at each call."""
        activation, loss = formulas
        keras.utils.set_random_seed(seed)
        outputs = self.train[1].shape[1]
        model = Recorded([keras.Input((self.train[0].shape[1],))])
        for number, units in enumerate(self.hidden):
            model.add(
                keras.layers.Dense(
                    units, activation="relu", name=f"hidden_{number}"
                )
            )
        model.add(
            keras.layers.Dense(outputs, activation=activation, name="head")
        )
        model.compile(optimizer or self.adam(), loss, **compile_options)
        # With its slots made now, they can be compared around any step.
        model.optimizer.build(model.trainable_variables)
        return model

    def scaled(self):
        """Returns the task with standardized features."""
        mean = self.train[0].mean(axis=0)
        deviation = self.train[0].std(axis=0)
        deviation[deviation == 0] = 1
        return dataclasses.replace(
            self,
            train=((self.train[0] - mean) / deviation, self.train[1]),
            test=((self.test[0] - mean) / deviation, self.test[1]),
        )

    def accuracy(self, model):
        """Returns the share of held-out samples classified right."""
        x, y = self.test
        predicted = np.asarray(model(x, training=False))
        if y.shape[1] == 1:
            return float(np.mean((predicted > 0.5) == (y > 0.5)))
        return float(np.mean(predicted.argmax(axis=1) == y.argmax(axis=1)))


def _split(x, y):
    from sklearn.model_selection import train_test_split

    labels = y if y.shape[1] == 1 else y.argmax(axis=1)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.25, random_state=0, stratify=labels
    )
    return (x_train, y_train), (x_test, y_test)


def cancer():
    """Breast cancer: 569 tumours, 30 measures from 0 to 4254, 2 classes."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    train, test = _split(x.astype("float32"), y.astype("float32")[:, None])
    return Task(
        name="breast cancer",
        train=train,
        test=test,
        hidden=(32,),
        learning_rate=1e-3,
        clipnorm=1.0,
        epochs=60,
        by_hand=(sigmoid_by_hand, binary_loss_by_hand),
        stable=(activations.sigmoid, losses.binary_crossentropy),
        keras=("sigmoid", "binary_crossentropy"),
    )


def digits():
    """Handwritten digits: 1797 pictures, 64 pixels from 0 to 16, 10 classes."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    one_hot = np.eye(10, dtype="float32")[y]
    train, test = _split(x.astype("float32"), one_hot)
    return Task(
        name="digits",
        train=train,
        test=test,
        hidden=(128, 64),
        learning_rate=1e-2,
        clipnorm=10.0,
        epochs=30,
        by_hand=(softmax_by_hand, categorical_loss_by_hand),
        stable=(activations.softmax, losses.categorical_crossentropy),
        keras=("softmax", "categorical_crossentropy"),
    )
