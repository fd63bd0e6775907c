"""What a watch does about a step that is not finite."""

import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import stablekeras
from stablekeras.errors import NonFiniteError, ReplayError
from stablekeras.watch.bundle import read
from tests.scenarios.watched import (
    BAD_BATCH,
    BATCH,
    BATCHES,
    compiled,
    data,
    differing,
    fit,
    poisoned,
    state,
    watch,
    without_bad_batch,
)


def _all_bad(x, start=0):
    x = x.copy()
    x[start * BATCH :, 0] = np.inf
    return x


def test_stop_ends_cleanly():
    """`fit` returns its History and later callbacks see the end."""
    x, y = data()
    seen = []
    last = keras.callbacks.LambdaCallback(
        on_train_end=lambda logs: seen.append(logs)
    )
    watching = watch("stop")
    model = compiled("adam", jit_compile=False)
    history = fit(model, poisoned(x), y, [watching, last])
    assert len(history.history["loss"]) == 1
    assert np.isfinite(history.history["loss"]).all()
    assert history.history["nonfinite_steps"] == [1]
    assert [i.action for i in watching.incidents] == ["stop"]
    assert int(model.optimizer.iterations) == BAD_BATCH
    assert len(seen) == 1
    assert model.stop_training


def test_raise_carries_the_incident():
    """The error names the step; its state is that before the step."""
    x, y = data()
    watching = watch("raise", diagnose=True)
    model = compiled("adam", jit_compile=False)
    with pytest.raises(NonFiniteError, match="step 3") as raised:
        fit(model, poisoned(x), y, [watching])
    assert raised.value.incident is watching.incidents[0]
    assert raised.value.diagnosis.samples == (5,)
    assert int(model.optimizer.iterations) == BAD_BATCH


def test_the_batch_is_recorded_as_the_step_saw_it():
    """`Incident.batch` holds exactly the rows of the failing batch."""
    x, y = data()
    bad = poisoned(x)
    watching = watch("stop")
    fit(compiled("adam", jit_compile=False), bad, y, [watching])
    rows = slice(BAD_BATCH * BATCH, (BAD_BATCH + 1) * BATCH)
    recorded_x, recorded_y = watching.incidents[0].batch
    np.testing.assert_array_equal(recorded_x, bad[rows])
    np.testing.assert_array_equal(recorded_y, y[rows])


@pytest.mark.parametrize("steps", [1, 3])
def test_consecutive_skips_end_the_training(steps):
    """After so many in a row the next bad step stops it."""
    x, y = data()
    watching = watch("skip", max_consecutive_skips=2)
    model = compiled("sgd", jit_compile=False, steps_per_execution=steps)
    history = fit(model, _all_bad(x, start=1), y, [watching])
    assert [i.action for i in watching.incidents] == ["skip", "skip", "stop"]
    assert [i.step for i in watching.incidents] == [1, 2, 3]
    assert watching.skipped == 2
    assert len(history.history["loss"]) == 1
    assert int(model.optimizer.iterations) == 1


def test_only_the_latest_incidents_hold_their_batch():
    """All are counted and named; memory does not grow with their batches."""
    x, y = data()
    watching = watch("skip", max_consecutive_skips=None)
    model = compiled("sgd", jit_compile=False)
    fit(model, _all_bad(x), y, [watching], epochs=9)
    assert len(watching.incidents) == watching.skipped == 9 * BATCHES
    held = [i.batch is not None for i in watching.incidents]
    assert held == [False] * (9 * BATCHES - 50) + [True] * 50


def test_total_skips_end_the_training():
    """`max_skips` counts over the whole training, good steps between."""
    x, y = data()
    watching = watch("skip", max_skips=1)
    fit(compiled("sgd", jit_compile=False), poisoned(x), y, [watching])
    assert [(i.epoch, i.action) for i in watching.incidents] == [
        (0, "skip"),
        (1, "stop"),
    ]


def test_an_epoch_without_a_good_step_has_no_mean():
    """Its loss is NaN, not the 0 of an empty mean that would look best."""
    x, y = data()
    watching = watch("skip", max_consecutive_skips=None)
    history = fit(
        compiled("sgd", jit_compile=False), _all_bad(x), y, [watching]
    )
    assert np.isnan(history.history["loss"]).all()
    assert history.history["nonfinite_steps"] == [BATCHES, BATCHES]


def test_a_finite_gradient_that_adam_cannot_survive():
    """3e19 overflows Adam's second moment: refused, as an update."""
    inputs = keras.Input((1,))
    outputs = layers.Dense(1, use_bias=False, kernel_initializer="ones")(inputs)
    x = np.ones((24, 1), "float32")
    x[8] = 3e19 * 8
    for optimizer, trips in (("adam", [1]), (keras.optimizers.SGD(1e-30), [])):
        model = keras.Model(inputs, outputs)
        model.compile(
            optimizer, lambda y, p: keras.ops.mean(p), jit_compile=False
        )
        watching = watch("skip")
        fit(model, x, x, [watching], epochs=1)
        assert [i.step for i in watching.incidents] == trips
        assert all("update" in i.tripped for i in watching.incidents)
        assert all(np.isfinite(v).all() for v in state(model))


def test_a_variable_fault_is_named_and_rolled_back():
    """Inf written by other code is found at the next step and undone."""
    x, y = data()

    class Sabotage(keras.callbacks.Callback):
        done = False

        def on_train_batch_end(self, batch, logs=None):
            if batch == 2 and not self.done:
                self.done = True
                kernel = self.model.layers[1].kernel
                kernel.assign(kernel * np.inf)

    watching = watch("rollback")
    model = compiled("adam", jit_compile=False)
    fit(model, x, y, [watching, Sabotage()])
    assert [(i.epoch, i.step, i.action) for i in watching.incidents] == [
        (0, 3, "rollback")
    ]
    assert "variable" in watching.incidents[0].tripped
    assert all(np.isfinite(v).all() for v in state(model))
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(5e-4)


def test_rollback_returns_to_the_snapshot():
    """Weights, slots, statistics, seeds are the epoch's first, bit for bit."""
    x, y = data()
    watching = watch("rollback", max_consecutive_skips=1)
    bad = _all_bad(x, start=BAD_BATCH)
    model = compiled("adam", jit_compile=False)
    before = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: before.append(
            [w.numpy() for w in model.variables]
        )
    )
    after = []
    note_end = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: after.append(
            [w.numpy() for w in model.variables]
        )
    )
    fit(model, bad, y, [watching, note, note_end], epochs=1)
    assert [i.action for i in watching.incidents] == ["rollback", "stop"]
    assert differing(after[BAD_BATCH - 1], before[0]) != []
    assert differing(after[BAD_BATCH], before[0]) == []


def test_an_epoch_that_was_rolled_back_whole_has_no_mean():
    """With its last step refused no step is left: NaN, not 0."""
    x, y = data()
    bad = x.copy()
    bad[-1, 0] = np.nan
    watching = watch("rollback", max_consecutive_skips=1)
    model = compiled("adam", jit_compile=False)
    history = fit(model, bad, y, [watching], epochs=1)
    assert [(i.step, i.action) for i in watching.incidents] == [
        (BATCHES - 1, "rollback")
    ]
    assert np.isnan(history.history["loss"]).all()


SCHEDULE = keras.optimizers.schedules.ExponentialDecay


@pytest.mark.parametrize(
    ("make", "rate"),
    [
        (lambda rate: keras.optimizers.SGD(rate), 0.05),
        pytest.param(
            lambda rate: keras.optimizers.SGD(SCHEDULE(rate, 1000, 0.9)),
            0.05,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["constant", "schedule"],
)
def test_a_diverging_training_recovers(make, rate):
    """From a learning rate of 10 it ends within 5% of the right start."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 8)).astype("float32")
    noise = rng.normal(size=(256, 1)).astype("float32")
    y = x @ rng.normal(size=(8, 1)).astype("float32") + 0.5 * noise

    def train(rate, *callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8,)), layers.Dense(1)])
        model.compile(make(rate), "mse", jit_compile=False)
        history = fit(model, x, y, callbacks, batch_size=32, epochs=20)
        return model.evaluate(x, y, verbose=0), history

    watching = watch("rollback")
    recovered, history = train(10.0, watching)
    right, _ = train(rate)
    assert {i.action for i in watching.incidents} == {"rollback"}
    assert len(history.history["loss"]) == 20
    assert recovered <= 1.05 * right
    diverged, _ = train(10.0)
    assert not diverged <= 1.05 * right


def test_a_divergence_is_written_down(tmp_path):
    """Its folder holds report and state; as it has no batch, no replay.

    Nor does the page offer one, or say that a step was left out.
    """
    x, y = data()
    watching = stablekeras.NaNWatch("rollback", directory=tmp_path, verbose=0)
    model = compiled(keras.optimizers.SGD(50.0), jit_compile=False)
    fit(model, x, y, [watching])
    found = [i for i in watching.incidents if i.tripped == ("divergence",)]
    assert found
    record = read(found[0].path).incident
    assert (record.epoch, record.step) == (found[0].epoch, found[0].step)
    assert record.diagnosis == found[0].diagnosis
    page = pathlib.Path(found[0].path, "report.html").read_text("utf-8")
    assert "Rolled back to the last good snapshot" in page
    assert "Run it again" not in page
    with pytest.raises(ReplayError, match=r"without one \(SK601: the mean"):
        stablekeras.replay(found[0].path)


def test_a_bad_validation_batch_is_reported_and_left_out():
    """Its batch is recorded, the mean is that of the others, and it shows."""
    x, y = data()
    watching = watch("stop")
    model = compiled("sgd", jit_compile=False)
    history = fit(model, x, y, [watching], validation_data=(poisoned(x), y))
    assert [(i.epoch, i.step, i.action) for i in watching.incidents] == [
        (0, BAD_BATCH, "report"),
        (1, BAD_BATCH, "report"),
    ]
    assert watching.incidents[0].tripped == ("validation",)
    assert np.isnan(watching.incidents[0].batch[0][5, 2])
    rest = without_bad_batch(x, y)
    expected = model.evaluate(*rest, batch_size=BATCH, verbose=0)
    assert history.history["val_loss"][1] == expected
    assert history.history["val_nonfinite_steps"] == [1, 1]
    assert len(history.history["loss"]) == 2


def test_a_validation_without_a_good_batch_has_no_mean():
    """Its loss is NaN, not the 0 of an empty mean."""
    x, y = data()
    model = compiled("sgd", jit_compile=False)
    history = fit(
        model, x, y, [watch()], validation_data=(x, y * np.nan), epochs=1
    )
    assert np.isnan(history.history["val_loss"]).all()
    assert np.isfinite(history.history["loss"]).all()


def test_the_backup_is_kept(tmp_path):
    """BackupAndRestore keeps its backup of a training that was stopped."""
    x, y = data()
    model = compiled("sgd", jit_compile=False)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    fit(model, poisoned(x), y, [backup, watch("stop")])
    assert (tmp_path / "backup" / "latest.weights.h5").exists()
    assert backup.delete_checkpoint is True
    fit(model, x, y, [backup, watch("stop")])
    assert not (tmp_path / "backup").exists()


def test_loss_scale_overflows_are_counted_not_incidents():
    """The search for a loss scale goes on as in Keras, bit for bit."""
    x, y = data()

    def make():
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(1e-3), initial_scale=2.0**24
        )
        return compiled(optimizer, dtype="mixed_float16", jit_compile=False)

    watching = watch("stop")
    watched, plain = make(), make()
    fit(watched, x, y, [watching])
    fit(plain, x, y)
    assert watching.incidents == []
    assert watching.overflows > 0
    assert differing(state(watched), state(plain)) == []


def test_a_collapsing_loss_scale_is_an_incident():
    """A gradient too large at scale 1 is no search any more."""
    x, y = data()
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(1e-3), initial_scale=1.0
    )
    model = compiled(optimizer, dtype="mixed_float16", jit_compile=False)
    watching = watch("stop", diagnose=True)
    fit(model, x, y * 1e4, [watching])
    assert [i.tripped for i in watching.incidents] == [("gradient", "scale")]
    assert float(optimizer.dynamic_scale) == 1.0
    assert watching.incidents[0].diagnosis.code.startswith("SK7")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("action", "ignore"),
        ("max_skips", -1),
        ("max_skips", 1.5),
        ("max_consecutive_skips", True),
        ("rollback_lr_factor", 0.0),
        ("rollback_lr_factor", float("nan")),
        ("snapshot_every", 0),
        ("snapshot_every", "step"),
        ("directory", 3),
        ("diagnose", "yes"),
        ("verbose", -1),
    ],
)
def test_bad_arguments_are_refused(argument, value):
    """Each names the rule, what was received, and the remedy."""
    with pytest.raises((ValueError, TypeError), match=r"Received: .+\. Pass"):
        stablekeras.NaNWatch(**{argument: value})
