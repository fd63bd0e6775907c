"""Models and data that the tests of the watch train, small and seeded."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import stablekeras

BATCH = 8
BATCHES = 7
BAD_BATCH = 3
BAD_ROW = 5


def data(seed=0, rows=BATCH * BATCHES - 3):
    """Returns clean inputs and targets; the last batch is a short one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6)).astype("float32")
    y = (x @ rng.normal(size=(6, 1)) + 0.1).astype("float32")
    return x, y


def poisoned(x, value=np.nan, rows=(BAD_ROW,)):
    """Returns `x` with one entry of some rows of the bad batch replaced."""
    x = x.copy()
    x[[BATCH * BAD_BATCH + row for row in rows], 2] = value
    return x


def without_bad_batch(*arrays):
    """Returns the arrays without the rows of the bad batch."""
    rows = slice(BATCH * BAD_BATCH, BATCH * (BAD_BATCH + 1))
    return [np.delete(a, rows, axis=0) for a in arrays]


def watch(action="skip", **kwargs):
    """Returns a silent watch that writes nothing and explains nothing."""
    defaults = {"directory": None, "verbose": 0, "diagnose": False}
    return stablekeras.NaNWatch(action, **(defaults | kwargs))


def mlp(dtype="float32", cls=keras.Model):
    """Returns an MLP with every kind of state that a step changes."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="tanh", dtype=dtype)(inputs)
    x = layers.BatchNormalization(dtype=dtype)(x)
    x = layers.Dropout(0.25, seed=3, dtype=dtype)(x)
    return cls(inputs, layers.Dense(1, dtype=dtype)(x))


def compiled(optimizer="sgd", dtype="float32", cls=keras.Model, **kwargs):
    """Returns a compiled MLP."""
    model = mlp(dtype, cls)
    model.compile(optimizer, "mse", **kwargs)
    return model


def fit(model, x, y, callbacks=(), **kwargs):
    """Fits without shuffling, so that batches can be counted."""
    defaults = {"batch_size": BATCH, "epochs": 2}
    return model.fit(
        x,
        y,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
        **(defaults | kwargs),
    )


def state(model, *optimizers):
    """Returns every value that a step may change, in a fixed order."""
    variables = [
        *model.variables,
        *(v for m in model.metrics for v in m.variables),
    ]
    for optimizer in optimizers or (model.optimizer,):
        if optimizer is not None:
            variables += optimizer.variables
    return [np.array(v.numpy()) for v in variables]


def differing(a, b):
    """Returns the positions at which two states differ in any bit."""
    assert len(a) == len(b)
    return [
        i
        for i, (p, q) in enumerate(zip(a, b, strict=True))
        if p.tobytes() != q.tobytes()
    ]


class Adversaries(keras.Model):
    """A GAN: two optimizers in one step, the second reads the first's work."""

    def __init__(self):
        super().__init__()
        self.judge = keras.Sequential([layers.Dense(4), layers.Dense(1)])
        self.forger = keras.Sequential([layers.Dense(4), layers.Dense(6)])
        self.seed = keras.random.SeedGenerator(3)

    def compile(self, judge_optimizer, forger_optimizer, **kwargs):
        super().compile(**kwargs)
        self.judge_optimizer = judge_optimizer
        self.forger_optimizer = forger_optimizer

    def call(self, x):
        return self.judge(x)

    def train_step(self, data):
        real, _ = data
        noise = keras.random.normal((BATCH, 3), seed=self.seed)

        def cost(label, logits):
            return tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(
                    tf.fill(tf.shape(logits), label), logits
                )
            )

        with tf.GradientTape() as tape:
            judged = cost(1.0, self.judge(real))
            judged += cost(0.0, self.judge(self.forger(noise)))
        weights = self.judge.trainable_variables
        self.judge_optimizer.apply_gradients(
            zip(tape.gradient(judged, weights), weights, strict=True)
        )
        with tf.GradientTape() as tape:
            forged = cost(1.0, self.judge(self.forger(noise)))
        weights = self.forger.trainable_variables
        self.forger_optimizer.apply_gradients(
            zip(tape.gradient(forged, weights), weights, strict=True)
        )
        return {"d_loss": judged, "g_loss": forged}


class Direct(keras.Model):
    """A step that calls `optimizer.apply` itself and logs no loss."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            error = tf.reduce_mean(tf.square(self(x, training=True) - y))
        gradients = tape.gradient(error, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"rmse": tf.sqrt(error)}


class WithoutOptimizer(keras.Model):
    """A step that updates its weights, and a counter, by hand."""

    def build(self, *args):
        super().build(*args)
        self.__dict__["counter"] = tf.Variable(0, trainable=False)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        for v, g in zip(self.trainable_variables, gradients, strict=True):
            v.value.assign_sub(0.01 * g)
        self.counter.assign_add(1)
        return {"loss": loss}
