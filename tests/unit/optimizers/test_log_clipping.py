"""LogClipping: what it adds to the logs, and what it leaves."""

import keras
import numpy as np
import pytest

from stablekeras import NaNWatch
from stablekeras.optimizers import ClippedOptimizer, LogClipping


def logs_of(model, callbacks):
    """Returns the history of two epochs of four batches, one of them bad."""
    x, y = np.ones((16, 2), "float32"), np.ones((16, 1), "float32")
    x[5] = np.nan
    return model.fit(
        x,
        y,
        batch_size=4,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    ).history


def compiled(model):
    optimizer = ClippedOptimizer(keras.optimizers.SGD(0.01), clipnorm=0.1)
    model.compile(optimizer, "mse")
    return model


def test_skipped_steps_are_shown_as_they_add_up():
    """Norm, rate and skips so far stand in the history of each epoch."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    history = logs_of(compiled(model), [LogClipping()])
    assert history["skipped_steps"] == [1.0, 2.0]
    assert history["clip_rate"] == [1.0, 1.0]
    assert min(history["grad_norm"]) > 0.1


@pytest.mark.parametrize("first", [True, False])
def test_a_count_that_knows_more_is_kept(first):
    """A watch counts steps that never came to the optimizer, in any order."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    watch = NaNWatch("skip", directory=None, diagnose=False, verbose=0)
    callbacks = [watch, LogClipping()] if first else [LogClipping(), watch]
    history = logs_of(compiled(model), callbacks)
    assert history["skipped_steps"] == [1.0, 2.0]
    assert model.optimizer.report()["skipped"] == 0


def test_what_a_step_logs_itself_is_kept():
    """A `grad_norm` of the model's own `train_step` is not replaced."""

    class Own(keras.Sequential):
        def train_step(self, data):
            return {**super().train_step(data), "grad_norm": 7.0}

    model = Own([keras.Input((2,)), keras.layers.Dense(1)])
    history = logs_of(compiled(model), [LogClipping()])
    assert history["grad_norm"] == [7.0, 7.0]
    assert history["skipped_steps"] == [1.0, 2.0]
