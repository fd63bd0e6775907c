"""Several loss scales in one step: each answers for its own gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.scenarios.watched import differing, state, watch

X = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
HIGH, LOW = 2.0**24, 4.0


class Pair(keras.Model):
    """Two networks, each with an optimizer that searches a scale."""

    def __init__(self, scales, apart):
        super().__init__()
        keras.utils.set_random_seed(3)
        self.nets = [layers.Dense(6), layers.Dense(6)]
        self.apart = apart
        self.searching = [
            keras.optimizers.LossScaleOptimizer(
                keras.optimizers.Adam(1e-2), initial_scale=scale
            )
            for scale in scales
        ]

    def call(self, x):
        return self.nets[1](self.nets[0](x))

    def train_step(self, data):
        x, _ = data
        logs = {}
        # Where they are not apart, the second one sees the first one's work.
        views = (lambda i: self.nets[i](x)), (lambda i: self(x))
        for i, optimizer in enumerate(self.searching):
            with tf.GradientTape() as tape:
                view = views[0 if self.apart else i](i)
                loss = tf.reduce_mean(tf.square(tf.cast(view, x.dtype) - x))
                scaled = optimizer.scale_loss(loss)
            variables = self.nets[i].trainable_variables
            optimizer.apply(tape.gradient(scaled, variables), variables)
            logs[f"{i}_loss"] = loss
        return logs


@pytest.fixture(autouse=True)
def _half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


def _train(callbacks, scales, apart, x=X, **compiling):
    model = Pair(scales, apart)
    model.compile(**compiling)
    model.fit(x, x, batch_size=8, verbose=0, shuffle=False, callbacks=callbacks)
    return model


slow = pytest.mark.slow
COMPILING = [
    {"jit_compile": False},
    pytest.param({"run_eagerly": True}, marks=slow),
    pytest.param({"jit_compile": True}, marks=slow),
]


@pytest.mark.parametrize("compiling", COMPILING)
@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("scales", [(HIGH, LOW), (LOW, HIGH), (HIGH, HIGH)])
def test_each_scale_is_searched_for_as_in_keras(scales, apart, compiling):
    """Only the scale that overflowed is halved; the other one's step stands."""
    watching = watch("stop")
    watched = _train([watching], scales, apart, **compiling)
    plain = _train([], scales, apart, **compiling)
    assert watching.incidents == []
    assert watching.overflows > 0
    found = [state(model, *model.searching) for model in (watched, plain)]
    assert differing(*found) == []


@pytest.mark.parametrize("compiling", COMPILING)
@pytest.mark.parametrize("apart", [True, False])
def test_a_fault_is_an_incident_at_any_scale(apart, compiling):
    """A NaN leaves both networks, slots and scales as they were."""
    bad = X.copy()
    bad[17, 2] = np.nan
    watching = watch("skip")
    skipped = _train([watching], (HIGH, LOW), apart, bad, **compiling)
    clean = np.delete(X, range(16, 24), axis=0)
    expected = _train([watch("skip")], (HIGH, LOW), apart, clean, **compiling)
    assert [i.step for i in watching.incidents] == [2]
    found = [state(model, *model.searching) for model in (skipped, expected)]
    assert differing(*found) == []
