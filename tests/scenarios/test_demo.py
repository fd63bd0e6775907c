"""The textbook model on real data: lost without the watch, whole with it."""

import keras
import numpy as np
import pytest

from stablekeras import NaNWatch
from stablekeras.demo import tasks


class _Keep(keras.callbacks.Callback):
    """Copies the state before each call of the train function."""

    def on_train_batch_begin(self, batch, logs=None):
        self.before = _state(self.model)


def _state(model):
    return {
        v.path: v.numpy().tobytes()
        for v in [*model.variables, *model.optimizer.variables]
    }


def _train(task, *callbacks, epochs=10, **options):
    model = task.model(task.by_hand, **options)
    x, y = task.train
    model.fit(
        x,
        y,
        batch_size=tasks.BATCH,
        epochs=epochs,
        verbose=0,
        callbacks=list(callbacks),
    )
    return model


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_the_failing_step_never_happened(jit_compile, steps_per_execution):
    """Every weight, slot and counter is that before the step, bit for bit."""
    options = {
        "jit_compile": jit_compile,
        "steps_per_execution": steps_per_execution,
    }
    watch, keep = NaNWatch(directory=None, verbose=0), _Keep()
    model = _train(tasks.cancer(), watch, keep, **options)
    assert _state(model) == keep.before
    (incident,) = watch.incidents
    assert (incident.epoch, incident.step, incident.action) == (0, 0, "stop")
    found = incident.diagnosis
    assert (found.code, found.op_type) == ("SK102", "Log")
    assert found.location.startswith("tasks.py:")
    # Independent of the watch: the rows whose hand-written sigmoid is 0 or 1.
    x = incident.batch[0]
    p = np.asarray(model(x))
    bad = ((p == 0) | (p == 1)).any(axis=1)
    assert set(found.samples) <= set(np.flatnonzero(bad).tolist())
    assert found.samples


def test_without_the_watch_all_weights_are_lost():
    """Keras' TerminateOnNaN stops with NaN in every weight."""
    model = _train(tasks.cancer(), keras.callbacks.TerminateOnNaN())
    assert all(np.isnan(v.numpy()).any() for v in model.trainable_variables)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_a_later_failure_is_caught_at_its_own_step(steps_per_execution):
    """Digits train for epochs before log(0); the state is that just before.

    The reference is plain Keras, run for exactly the steps before.
    """
    task = tasks.digits()
    watch = NaNWatch(directory=None, verbose=0)
    model = _train(
        task, watch, epochs=30, steps_per_execution=steps_per_execution
    )
    (incident,) = watch.incidents
    assert incident.diagnosis.code == "SK101"
    done = int(model.optimizer.iterations.numpy())
    steps = -(-len(task.train[0]) // tasks.BATCH)
    assert done == incident.epoch * steps + incident.step

    class StopBefore(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations.numpy()) == done:
                self.model.stop_training = True

    plain = _train(task, StopBefore(), epochs=30)
    assert list(_state(plain).values()) == list(_state(model).values())
