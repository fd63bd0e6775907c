"""The figures of the last steps that an incident's report draws."""

import keras
import numpy as np
import pytest

import stablekeras
from stablekeras.watch.history import StepHistory
from tests.scenarios.watched import BAD_BATCH, compiled, data, fit, poisoned

ClippedOptimizer = stablekeras.optimizers.ClippedOptimizer


def _watch():
    return stablekeras.NaNWatch("skip", directory=None, verbose=0)


def test_history_is_bounded():
    """The oldest rows go; what is not known is left out."""
    history = StepHistory(length=2)
    for loss, norm in ((1.0, 2.0), (None, None), (3.0, None), (None, 4.0)):
        history.add(loss, norm)
    assert history.rows() == ({"loss": 3.0}, {"gradient_norm": 4.0})


@pytest.mark.parametrize(
    "kind", ["graph", "jit", "eager", "loss scale", "eager loss scale"]
)
def test_an_incident_is_explained_with_the_steps_before_it(kind, monkeypatch):
    """`investigate` gets loss and gradient norm of each committed step."""
    from stablekeras.watch import investigate

    given = []
    original = investigate.investigate

    def spy(*args, history=(), **kwargs):
        given.append(history)
        return original(*args, history=history, **kwargs)

    monkeypatch.setattr(investigate, "investigate", spy)
    x = np.ones((24, 1), "float32")
    x[16] = np.nan
    optimizer = keras.optimizers.SGD(0.25)
    if "scale" in kind:
        optimizer = keras.optimizers.LossScaleOptimizer(
            optimizer, initial_scale=4.0
        )
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros"),
        ]
    )
    model.compile(
        optimizer,
        "mse",
        jit_compile=kind == "jit",
        run_eagerly=kind.startswith("eager"),
    )
    fit(model, x, np.ones((24, 1), "float32"), [_watch()], epochs=1)
    # loss (w - 1)**2, gradient 2 (w - 1); w goes 0, 0.5; losses are means.
    assert given == [
        (
            {"loss": 1.0, "gradient_norm": 2.0},
            {"loss": 0.625, "gradient_norm": 1.0},
        )
    ]


@pytest.mark.parametrize("scaled", [False, True])
def test_the_logs_say_what_clipping_did(scaled, tmp_path):
    """Bar, History and CSVLogger show the norm, the rate and the skips."""
    x, y = data()
    optimizer = ClippedOptimizer(keras.optimizers.SGD(0.01), clipnorm=1e-3)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model = compiled(optimizer, jit_compile=False)
    file = tmp_path / "log.csv"
    seen = []
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(dict(logs))
    )
    watch = _watch()
    watch_first = [watch, spy, keras.callbacks.CSVLogger(file)]
    history = model.fit(
        poisoned(x),
        y,
        batch_size=8,
        epochs=2,
        shuffle=False,
        verbose=1,
        callbacks=watch_first,
    )
    report = (
        optimizer.report()
        if not scaled
        else (optimizer.inner_optimizer.report())
    )
    assert history.history["grad_norm"][-1] == report["grad_norm"] > 0
    assert history.history["clip_rate"] == [1.0, 1.0]
    assert history.history["skipped_steps"] == [1.0, 2.0]
    assert [row["skipped_steps"] for row in seen[:7]] == [
        float(step >= BAD_BATCH) for step in range(7)
    ]
    header = file.read_text().splitlines()[0].split(",")
    assert {"grad_norm", "clip_rate", "skipped_steps"} < set(header)


def test_what_a_step_logs_itself_stays():
    """A step's own `grad_norm` is not overwritten."""
    x, y = data()

    class Own(keras.Model):
        def train_step(self, data):
            return super().train_step(data) | {"grad_norm": 7.0}

    model = compiled(
        ClippedOptimizer(keras.optimizers.SGD(0.01), clipnorm=1.0),
        cls=Own,
        jit_compile=False,
    )
    history = fit(model, x, y, [_watch()], epochs=1)
    assert history.history["grad_norm"] == [7.0]
    assert history.history["clip_rate"][0] > 0


def test_without_clipping_nothing_is_added():
    """A plain optimizer has no such logs."""
    x, y = data()
    model = compiled("sgd", jit_compile=False)
    history = fit(model, x, y, [_watch()], epochs=1)
    assert set(history.history) == {"loss", "nonfinite_steps"}


def test_a_streak_that_only_the_optimizer_sees_is_raised():
    """`max_consecutive_skips` of the optimizer holds under a watch too."""
    x, y = data()
    spike = stablekeras.optimizers.SpikeSkip(window=2)
    optimizer = ClippedOptimizer(
        keras.optimizers.SGD(1e-4), clip=spike, max_consecutive_skips=1
    )
    y = y.copy()
    y[32:] *= 1e4
    model = compiled(optimizer, jit_compile=False)
    with pytest.raises(stablekeras.errors.TooManySkipsError):
        fit(model, x, y, [_watch()], epochs=1)
