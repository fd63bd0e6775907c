"""Trainings with a ClippedOptimizer: callbacks, logs, backups, errors."""

import csv
import importlib

import keras
import numpy as np
import pytest

from stablekeras import NaNWatch
from stablekeras.errors import NonFiniteError, TooManySkipsError
from stablekeras.optimizers import (
    ClippedOptimizer,
    LogClipping,
    SpikeSkip,
    ZScore,
)

X = np.random.default_rng(0).standard_normal((32, 3)).astype("f4")
Y = X[:, :1] * 9
BAD = X.copy()
BAD[17] = np.inf


def model_with(jit_compile=False, inner=None, **kwargs):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)]
    )
    kwargs.setdefault("global_clipnorm", 1.0)
    optimizer = ClippedOptimizer(inner or keras.optimizers.Adam(0.01), **kwargs)
    model.compile(optimizer, "mse", jit_compile=jit_compile)
    return model


def fit(model, x=X, **kwargs):
    return model.fit(x, Y, batch_size=8, shuffle=False, verbose=0, **kwargs)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_logs_reach_history_csv_and_progress_bar(jit_compile, tmp_path):
    """All three numbers are in the logs of batches and of epochs."""
    batches = []
    seen = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: batches.append(dict(logs))
    )
    file = tmp_path / "log.csv"
    callbacks = [LogClipping(), keras.callbacks.CSVLogger(file), seen]
    model = model_with(jit_compile)
    history = fit(model, BAD, epochs=2, callbacks=callbacks).history
    assert history["skipped_steps"] == [1.0, 2.0]
    assert history["clip_rate"] == [1.0, 1.0]
    assert [b["skipped_steps"] for b in batches] == [0, 0, 1, 1, 1, 1, 2, 2]
    assert history["grad_norm"][-1] == model.optimizer.report()["grad_norm"]
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [float(row["skipped_steps"]) for row in rows] == [1.0, 2.0]
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.parametrize(
    "shows", [LogClipping, lambda: NaNWatch("skip", directory=None, verbose=0)]
)
def test_logs_reach_tensorboard(shows, tmp_path, monkeypatch):
    """Keras' callback writes all three numbers, by batch and by epoch."""
    written = {}

    def scalar(name, value, step):
        written.setdefault(name, []).append(float(value))

    # In place of what the package `tensorboard` adds to TensorFlow.
    summary = importlib.import_module("tensorflow.summary")
    monkeypatch.setattr(summary, "scalar", scalar)
    board = keras.callbacks.TensorBoard(
        tmp_path, write_graph=False, update_freq=1
    )
    model = model_with()
    history = fit(model, BAD, epochs=2, callbacks=[shows(), board]).history
    for name in ("grad_norm", "clip_rate", "skipped_steps"):
        assert written[f"epoch_{name}"] == history[name]
        assert len(written[f"batch_{name}"]) == 8
    assert written["epoch_skipped_steps"] == [1.0, 2.0]
    assert written["batch_skipped_steps"] == [0, 0, 1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(("shown", "skips"), [(True, 1), (False, 0)])
def test_spike_skip_sees_the_loss_behind_a_loss_scale(shown, skips):
    """A loss that stands out is skipped there as well, with `LogClipping`."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = model_with(global_clipnorm=None, clip=SpikeSkip(window=6))
    finally:
        keras.config.set_dtype_policy("float32")
    # Its gradient does not depend on the targets.
    model.compile(model.optimizer, lambda y, p: p - y, jit_compile=False)
    y = np.zeros((80, 1), "f4")
    y[50] = -1e5
    model.fit(
        np.tile(X[:8], (10, 1)),
        y,
        batch_size=8,
        shuffle=False,
        verbose=0,
        callbacks=[LogClipping()] if shown else [],
    )
    report = model.optimizer.inner_optimizer.report()
    assert report["skipped"] == skips


@pytest.mark.parametrize(
    ("jit_compile", "with_callback"), [(False, True), (True, False)]
)
def test_raise_stops_a_training_with_the_last_good_weights(
    jit_compile, with_callback
):
    """Step 2 is named, and the weights are those after two good steps."""
    model = model_with(jit_compile, nonfinite="raise")
    callbacks = [LogClipping()] if with_callback else []
    with pytest.raises(NonFiniteError, match=r"step 2 .*dense"):
        fit(model, BAD, callbacks=callbacks, epochs=3)
    reference = model_with(jit_compile)
    reference.fit(X[:16], Y[:16], batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_training_on_bad_data_only_raises():
    """A sustained streak is an error, not a training that does nothing."""
    model = model_with(max_consecutive_skips=3)
    with pytest.raises(TooManySkipsError, match="max_consecutive_skips=3"):
        fit(model, BAD * np.nan, callbacks=[LogClipping()], epochs=2)
    assert model.optimizer.report()["skipped"] == 4


def test_callbacks_that_set_the_learning_rate_work():
    """LearningRateScheduler and ReduceLROnPlateau act on the inner one."""
    model = model_with()
    fit(
        model,
        epochs=3,
        callbacks=[keras.callbacks.LearningRateScheduler(lambda e, r: r / 2)],
    )
    rate = float(model.optimizer.inner_optimizer.learning_rate)
    assert rate == pytest.approx(0.00125)
    plateau = keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.1, patience=0, min_delta=1e9
    )
    fit(model, epochs=2, callbacks=[plateau])
    rate = float(model.optimizer.learning_rate)
    assert rate == pytest.approx(0.000125)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_swap_ema_weights_finds_the_averages(policy):
    """The averages of the inner optimizer are the weights in the end."""
    keras.config.set_dtype_policy(policy)
    try:
        model = model_with(inner=keras.optimizers.SGD(0.1, use_ema=True))
    finally:
        keras.config.set_dtype_policy("float32")
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    fit(model, epochs=2, callbacks=[swap])
    optimizer = model.optimizer
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    averages = [v for v in optimizer.variables if v.name.endswith("average")]
    for w, a in zip(model.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(w.numpy(), a.numpy())


def test_backup_and_restore_continues_with_all_statistics(tmp_path):
    """A training that was interrupted ends as one that was not."""

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def train(*callbacks):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        model = model_with(global_clipnorm=None, clip=ZScore(warmup=5))
        fit(model, BAD, epochs=4, callbacks=[backup, *callbacks])
        return model

    whole = model_with(global_clipnorm=None, clip=ZScore(warmup=5))
    fit(whole, BAD, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        train(Interrupt())
    resumed = train()
    for a, b in zip(
        (*whole.variables, *whole.optimizer.variables),
        (*resumed.variables, *resumed.optimizer.variables),
        strict=True,
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
