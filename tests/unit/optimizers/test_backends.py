"""The clipped optimizer on whichever backend Keras runs."""

import keras
import numpy as np
import pytest
from keras import ops

from stablekeras import optimizers
from stablekeras.errors import NonFiniteError
from stablekeras.optimizers import ClippedOptimizer

pytestmark = pytest.mark.backends

K = keras.optimizers
BACKEND = keras.backend.backend()
STEPS = np.random.default_rng(0).standard_normal((6, 3, 2)).astype("f4")
BAD = np.full((3, 2), np.nan, "f4")

WAYS = {
    "global_norm": lambda: ClippedOptimizer(
        K.SGD(0.1, momentum=0.9), global_clipnorm=0.5
    ),
    "ada_gc": lambda: ClippedOptimizer(K.Adam(0.1), optimizers.AdaGC(warmup=2)),
    "veto": lambda: ClippedOptimizer(
        K.AdamW(0.1, use_ema=True),
        [optimizers.SpikeSkip(window=4), optimizers.Percentile(50, history=4)],
    ),
    "accumulation": lambda: ClippedOptimizer(
        K.Adam(0.1, gradient_accumulation_steps=2),
        [optimizers.ZScore(warmup=2), optimizers.AdaptiveGradient()],
    ),
}
every_way = pytest.mark.parametrize("name", WAYS)


def arrays(values):
    return [np.array(ops.convert_to_numpy(v)) for v in values]


def train(name, gradients):
    """Returns the state after each step, and the optimizer."""
    optimizer, v = WAYS[name](), keras.Variable(np.ones((3, 2), "f4"))
    optimizer.build([v])
    states = []
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient)], [v])
        states.append(arrays([v, *optimizer.inner_optimizer.variables]))
    return states, optimizer


def fitted(name, x, y):
    """Returns a model after two epochs on batches of 8."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)]
    )
    # Torch would need a compiler, and TensorFlow is tested elsewhere.
    model.compile(WAYS[name](), "mse", jit_compile=BACKEND == "jax")
    history = model.fit(
        x,
        y,
        batch_size=8,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[optimizers.LogClipping()],
    )
    return model, history.history


@every_way
def test_bad_steps_are_as_if_they_had_not_been(name):
    """A skip leaves all as it is, and the steps after it know of nothing."""
    clean, _ = train(name, STEPS)
    dirty, optimizer = train(name, [BAD, *STEPS[:3], BAD, BAD, *STEPS[3:]])
    for a, b in zip(clean[-1], dirty[-1], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(dirty[3], dirty[5], strict=True):
        np.testing.assert_array_equal(a, b)
    assert optimizer.report()["skipped"] == 3
    assert optimizer.report()["consecutive_skips"] == 0


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e20])
def test_norm_after_clipping_is_the_threshold(scale):
    """Within 1e-6, where a plain norm would over- or underflow."""
    threshold = 0.37 * scale
    optimizer = ClippedOptimizer(K.SGD(1.0), global_clipnorm=threshold)
    v = keras.Variable(np.zeros((3, 2), "f4"))
    optimizer.apply([ops.convert_to_tensor(STEPS[0] * np.float32(scale))], [v])
    (update,) = arrays([v])
    got = np.linalg.norm(update.astype("f8"))
    assert got == pytest.approx(threshold, rel=1e-6)


@every_way
def test_fit_leaves_the_bad_batch_out(name):
    """`fit` ends as it does without the bad batch, and says what it did."""
    x = np.random.default_rng(0).standard_normal((40, 3)).astype("f4")
    y = x[:, :1] * 3
    bad = x.copy()
    bad[19] = np.nan
    skipped, logs = fitted(name, bad, y)
    keep = np.r_[0:16, 24:40]
    removed, reference = fitted(name, x[keep], y[keep])
    for a, b in zip(skipped.get_weights(), removed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    vetoed = reference["skipped_steps"]
    assert logs["skipped_steps"] == [vetoed[0] + 1, vetoed[1] + 2]
    assert logs["grad_norm"] == reference["grad_norm"]
    assert skipped.optimizer.report()["clip_rate"] == reference["clip_rate"][-1]


@every_way
@pytest.mark.skipif(
    BACKEND != "jax",
    reason="Keras has none on TensorFlow, and on torch writes in place",
)
def test_stateless_apply_does_what_apply_does(name):
    """The values it returns are those that `apply` would have written."""
    import jax

    _, optimizer = train(name, [])
    (v,) = optimizer._known_variables
    before = arrays(optimizer.variables)
    weights, state = [v.value], [x.value for x in optimizer.variables]

    def step(weights, state, gradient):
        return optimizer.stateless_apply(state, [gradient], weights)

    step = jax.jit(step)
    gradients = [STEPS[0], BAD, *STEPS[1:], BAD]
    for gradient in gradients:
        weights, state = step(weights, state, ops.convert_to_tensor(gradient))
    for a, b in zip(before, arrays(optimizer.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    expected, reference = train(name, gradients)
    np.testing.assert_allclose(arrays(weights)[0], expected[-1][0], rtol=1e-6)
    optimizer.set_weights(arrays(state))
    report, wanted = optimizer.report(), reference.report()
    assert report["skipped"] == wanted["skipped"] == 2
    assert report["consecutive_skips"] == wanted["consecutive_skips"] == 1
    assert report["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-6)


def test_raise_names_the_step_once_it_is_known():
    """In eager execution the error comes from `apply`."""
    v = keras.Variable(np.zeros((3, 2), "f4"), name="evil")
    optimizer = ClippedOptimizer(K.SGD(1.0), nonfinite="raise")
    optimizer.apply([ops.convert_to_tensor(STEPS[0])], [v])
    with pytest.raises(NonFiniteError, match=r"step 1 .* gradient of evil"):
        optimizer.apply([ops.convert_to_tensor(BAD)], [v])
    np.testing.assert_array_equal(arrays([v])[0], -STEPS[0])
