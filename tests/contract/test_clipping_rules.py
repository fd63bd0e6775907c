"""Every clipping rule through the same contract."""

import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from stablekeras import optimizers
from stablekeras.optimizers import ClippedOptimizer

RULES = {
    "GlobalNorm": lambda: optimizers.GlobalNorm(0.5),
    "Norm": lambda: optimizers.Norm(0.5),
    "Value": lambda: optimizers.Value(0.1),
    "AdaptiveGradient": lambda: optimizers.AdaptiveGradient(),
    "Percentile": lambda: optimizers.Percentile(30, history=5),
    "ZScore": lambda: optimizers.ZScore(warmup=3),
    "AdaGC": lambda: optimizers.AdaGC(warmup=3),
    "SpikeSkip": lambda: optimizers.SpikeSkip(3.0, window=4),
    "list": lambda: [optimizers.AdaGC(warmup=3), optimizers.Value(0.1)],
}
X = np.random.default_rng(0).standard_normal((48, 3)).astype("f4")
Y = X[:, :1] * np.linspace(1, 30, 48, dtype="f4")[:, None]
every_rule = pytest.mark.parametrize("name", RULES)
# The rule that stands for all in the short form of a costly test.
QUICK = ("AdaGC",)
quickly = pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in RULES
    ],
)


def compiled(rule, **kwargs):
    """Returns a small model with a rule, the same at each call."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)]
    )
    optimizer = ClippedOptimizer(keras.optimizers.Adam(0.01), rule)
    model.compile(optimizer, "mse", **kwargs)
    return model


def fit(model, x=X, y=Y, **kwargs):
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, **kwargs)


def state(model):
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@every_rule
def test_config_round_trip(name):
    """A rule made from its own config, by way of JSON, has that config."""
    optimizer = ClippedOptimizer(
        keras.optimizers.Adam(0.01), RULES[name](), max_consecutive_skips=3
    )
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    again = keras.optimizers.deserialize(config)
    assert again.get_config() == optimizer.get_config()
    assert repr(again.clip) == repr(optimizer.clip)


# Keras says so of the inner optimizer of a model that was not trained yet.
@pytest.mark.filterwarnings("ignore:Skipping variable loading")
@quickly
def test_memory_survives_every_way_to_save(name, tmp_path):
    """After loading, the state is the same and so is the next epoch."""
    model = compiled(RULES[name]())
    fit(model)
    saved, report = state(model), model.optimizer.report()
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(
        str(tmp_path / "checkpoint")
    )
    pickled = pickle.dumps(model)
    fit(model)
    expected = state(model)

    loaded = keras.models.load_model(tmp_path / "model.keras")
    fresh = compiled(RULES[name]())
    fresh.optimizer.build(fresh.trainable_variables)
    tf.train.Checkpoint(model=fresh, optimizer=fresh.optimizer).restore(
        path
    ).assert_consumed()
    for again in (loaded, pickle.loads(pickled), fresh):
        assert_same(state(again), saved)
        assert again.optimizer.report()["skipped"] == report["skipped"]
        assert again.optimizer.report()["grad_norm"] == report["grad_norm"]
    fit(loaded)
    assert_same(state(loaded), expected)

    trained, new = compiled(RULES[name]()), compiled(RULES[name]())
    fit(trained)
    for again in (trained, new):
        again.load_weights(tmp_path / "model.weights.h5")
        fit(again)
        assert_same(state(again), expected)


@quickly
def test_a_bad_batch_leaves_no_trace_in_the_memory(name):
    """With a bad batch removed or skipped, all but the skips is identical."""
    bad = X.copy()
    bad[19] = np.nan
    skipped = compiled(RULES[name]())
    fit(skipped, bad, epochs=2)
    keep = np.r_[0:16, 24:48]
    removed = compiled(RULES[name]())
    fit(removed, X[keep], Y[keep], epochs=2)
    for v, w in zip(
        (*skipped.variables, *skipped.optimizer.variables),
        (*removed.variables, *removed.optimizer.variables),
        strict=True,
    ):
        if v.name != "skips":
            np.testing.assert_array_equal(v.numpy(), w.numpy(), err_msg=v.path)
    assert np.isfinite(state(skipped)[0]).all()
    more = skipped.optimizer.report()["skipped"]
    assert more == removed.optimizer.report()["skipped"] + 2


@quickly
def test_eager_graph_and_xla_agree(name):
    """The three ways to run a step give the same weights within rounding."""
    results = []
    for kwargs in (
        {"run_eagerly": True},
        {"jit_compile": False},
        {"jit_compile": True, "steps_per_execution": 3},
    ):
        model = compiled(RULES[name](), **kwargs)
        fit(model)
        results.append(model.get_weights())
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@quickly
def test_a_second_fit_does_not_trace_again(name):
    """The same step serves both calls of fit."""
    model = compiled(RULES[name](), jit_compile=False)
    inner, traces = model.optimizer.inner_optimizer, []
    apply = inner.apply

    def counted(*args, **kwargs):
        traces.append(1)
        apply(*args, **kwargs)

    inner.apply = counted
    fit(model)
    before = len(traces)
    fit(model)
    assert len(traces) == before > 0


@quickly
def test_mixed_precision_clips_unscaled_gradients(name):
    """Under mixed_float16 the wrapper is inside of the loss scale."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(RULES[name]())
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    fit(model, X, X[:, :1], epochs=3)
    report = model.optimizer.inner_optimizer.report()
    # A scaled gradient would be some 2**10 times as large.
    assert 0.0 < report["grad_norm"] < 50.0
    assert all(np.isfinite(w).all() for w in model.get_weights())
