"""Each clipping rule against its formula, computed in numpy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from stablekeras import NaNWatch, optimizers


def updates(rule, gradients, start=None):
    """Returns the gradient that SGD is handed in each step, as arrays."""
    optimizer = optimizers.ClippedOptimizer(keras.optimizers.SGD(1.0), rule)
    shapes = [np.shape(g) for g in gradients[0]]
    variables = [keras.Variable(np.zeros(s, "float32")) for s in shapes]
    if start is not None:
        for v, value in zip(variables, start, strict=True):
            v.assign(value)
    handed = []
    for step in gradients:
        before = [v.numpy() for v in variables]
        optimizer.apply([tf.constant(g, "float32") for g in step], variables)
        handed.append(
            [b - v.numpy() for b, v in zip(before, variables, strict=True)]
        )
    return handed, optimizer


def fresh_scalars(rule, values):
    """Returns the same with the weight set back to 0 before each step."""
    optimizer = optimizers.ClippedOptimizer(keras.optimizers.SGD(1.0), rule)
    v = keras.Variable([0.0])
    out = []
    for value in values:
        v.assign([0.0])
        optimizer.apply([tf.constant([value], "float32")], [v])
        out.append(-float(v.numpy()[0]))
    return out


def test_global_norm_scales_all_gradients_together():
    """All gradients are multiplied by c/norm, and only above c."""
    handed, _ = updates(optimizers.GlobalNorm(1.0), [[[30.0], [40.0]]])
    np.testing.assert_allclose(handed[0], [[0.6], [0.8]], rtol=1e-6)
    handed, _ = updates(optimizers.GlobalNorm(100.0), [[[30.0], [40.0]]])
    assert [h[0] for h in handed[0]] == [30.0, 40.0]


def test_norm_scales_each_gradient_alone():
    """A small gradient beside a large one stays as it is."""
    handed, _ = updates(optimizers.Norm(1.0), [[[30.0, 40.0], [0.5]]])
    np.testing.assert_allclose(handed[0][0], [0.6, 0.8], rtol=1e-6)
    assert handed[0][1] == [0.5]


def test_value_limits_each_entry():
    """Entries beyond the bound are set to it, the others kept."""
    handed, _ = updates(optimizers.Value(1.0), [[[30.0, -0.5, -2.0]]])
    assert handed[0][0].tolist() == [1.0, -0.5, -1.0]


def test_adaptive_gradient_limits_units_by_their_weights():
    """Each column is limited to 0.01 of its weights' norm, at least 1e-3."""
    weights = np.array([[3.0, 0.0], [4.0, 0.0]], "float32")
    gradient = np.array([[6.0, 1.0], [8.0, 0.0]], "float32")
    handed, _ = updates(optimizers.AdaptiveGradient(), [[gradient]], [weights])
    expected = [[0.03, 1e-5], [0.04, 0.0]]
    np.testing.assert_allclose(handed[0][0], expected, rtol=1e-4, atol=1e-9)


def test_adaptive_gradient_takes_a_variable_without_entries():
    """It passes as it is, and the others are clipped."""
    weights = [np.zeros((0, 3), "float32"), np.full((1, 1), 5.0, "float32")]
    gradients = [np.zeros((0, 3), "float32"), np.ones((1, 1), "float32")]
    handed, _ = updates(optimizers.AdaptiveGradient(), [gradients], weights)
    assert handed[0][0].shape == (0, 3)
    np.testing.assert_allclose(handed[0][1], [[0.05]], rtol=1e-4)


def test_adaptive_gradient_leaves_the_last_layer():
    """Of two layers, the variables of the second pass as they are."""
    model = keras.Sequential(
        [keras.layers.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(1)]
    )
    optimizer = optimizers.ClippedOptimizer(
        keras.optimizers.SGD(1.0), optimizers.AdaptiveGradient()
    )
    before = model.get_weights()
    grads = [tf.ones_like(v) for v in model.trainable_variables]
    optimizer.apply(grads, model.trainable_variables)
    moved = [
        float(np.max(np.abs(a - b)))
        for a, b in zip(before, model.get_weights(), strict=True)
    ]
    assert max(moved[:2]) < 0.05
    np.testing.assert_allclose(moved[2:], 1.0, rtol=1e-6)


def test_adaptive_gradient_clips_rows_at_constant_indices_under_xla():
    """Duplicates are summed, and each row is limited by that of the weights."""
    optimizer = optimizers.ClippedOptimizer(
        keras.optimizers.SGD(1.0), optimizers.AdaptiveGradient(0.5)
    )
    v = keras.Variable(np.full((4, 2), 3.0, "float32"))
    optimizer.build([v])

    @tf.function(jit_compile=True)
    def step():
        rows = tf.constant([[3.0, 0.0], [0.0, 4.0], [0.0, 1.0]])
        slices = tf.IndexedSlices(rows, tf.constant([2, 2, 0]), (4, 2))
        optimizer.apply([slices], [v])

    step()
    limit = 0.5 * 18**0.5
    expected = [[0.0, 1.0], [0.0, 0.0], [0.6 * limit, 0.8 * limit], [0.0, 0.0]]
    np.testing.assert_allclose(3.0 - v.numpy(), expected, rtol=1e-6)


def test_percentile_is_that_of_numpy_over_the_history():
    """The threshold is numpy's percentile of the norms so far, this one too."""
    norms = np.random.default_rng(0).uniform(1.0, 9.0, 30)
    got = fresh_scalars(optimizers.Percentile(10, history=12), norms)
    expected = [
        min(n, np.percentile(norms[max(0, i - 11) : i + 1], 10))
        for i, n in enumerate(norms)
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_z_score_follows_the_paper():
    """Warm-up, threshold and both moving averages follow the formulas."""
    norms = np.random.default_rng(0).uniform(1.0, 2.0, 40)
    norms[[20, 30]] = [500.0, 8.0]
    got = fresh_scalars(optimizers.ZScore(warmup=10), norms)
    mean, variance, expected = 0.0, 0.0, []
    for i, n in enumerate(norms):
        if i < 10:
            expected.append(n)
            mean, variance = np.mean(norms[: i + 1]), np.var(norms[: i + 1])
            continue
        z = (n - mean) / math.sqrt(variance)
        if z > 2.5:
            n = mean + 2.5**2 / z * math.sqrt(variance)
        expected.append(n)
        mean = 0.97 * mean + 0.03 * n
        variance = 0.97 * variance + 0.03 * (n - mean) ** 2
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert got[20] < 3.0


def test_ada_gc_follows_the_paper():
    """Global clipping in the warm-up, then each tensor by its own average."""
    rng = np.random.default_rng(0)
    steps = [
        [rng.uniform(0.2, 2.0, 1), rng.uniform(0.2, 2.0, 1)] for _ in range(9)
    ]
    steps[6][0] = np.array([50.0])
    optimizer = optimizers.ClippedOptimizer(
        keras.optimizers.SGD(1.0), optimizers.AdaGC(warmup=4)
    )
    variables = [keras.Variable([0.0]), keras.Variable([0.0])]
    averages = [math.inf, math.inf]
    for i, step in enumerate(steps):
        for v in variables:
            v.assign([0.0])
        optimizer.apply([tf.constant(g, "float32") for g in step], variables)
        norms = np.array([float(g[0]) for g in step])
        if i < 4:
            clipped = norms * min(1.0, 1.0 / np.linalg.norm(norms))
            averages = np.minimum(averages, clipped)
        else:
            clipped = np.minimum(norms, 1.05 * averages)
            averages = 0.98 * averages + 0.02 * clipped
        got = [-float(v.numpy()[0]) for v in variables]
        np.testing.assert_allclose(got, clipped, rtol=1e-5)


def test_ada_gc_does_not_freeze_a_variable_after_a_zero_gradient():
    """A gradient of 0 in the warm-up is no measurement of its size."""
    rule = optimizers.AdaGC(warmup=2)
    handed, _ = updates(rule, [[[0.0], [0.5]]] * 2 + [[[0.25], [0.5]]])
    assert handed[2][0].tolist() == [0.25]


@pytest.mark.parametrize(
    "rule",
    [
        optimizers.Percentile(10),
        optimizers.Percentile(50, history=3),
        optimizers.ZScore(warmup=4),
        optimizers.SpikeSkip(window=6),
    ],
    ids=repr,
)
def test_a_norm_of_zero_is_not_remembered(rule):
    """After gradients of 0 a training goes on as if there had been none."""
    norms = [1.0, 2.0, 1.5, 1.0, 2.5, 1.0, 90.0, 2.0]
    late = fresh_scalars(rule, [0.0] * 5 + norms[:5] + [0.0] + norms[5:])
    again = type(rule).from_config(rule.get_config())
    assert late[:5] + late[10:11] == [0.0] * 6
    assert late[5:10] + late[11:] == fresh_scalars(again, norms)
    assert min(late[5:8]) > 0.0


def test_spike_skip_takes_rounding_for_no_spike():
    """A norm that differs from equal ones in its last digit is usual."""
    value = np.float32(0.1)
    above = np.nextafter(value, np.float32(1.0))
    got = fresh_scalars(optimizers.SpikeSkip(window=8), [value] * 8 + [above])
    assert got[8] == above


def test_spike_skip_skips_what_exceeds_six_deviations():
    """A spike is skipped and not remembered, so the next one is too."""
    values = [1.0, 1.1, 0.9, 1.0, 50.0, 60.0, 1.05]
    got = fresh_scalars(optimizers.SpikeSkip(window=8), values)
    expected = [1.0, 1.1, 0.9, 1.0, 0.0, 0.0, 1.05]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_spike_skip_looks_at_the_loss():
    """A loss that stands out is enough, whatever the gradient is."""
    optimizer = optimizers.ClippedOptimizer(
        keras.optimizers.SGD(1.0), optimizers.SpikeSkip(window=4)
    )
    v = keras.Variable([0.0])
    for loss in (1.0, 1.1, 0.9, 500.0, float("nan"), 1.0):
        optimizer.scale_loss(tf.constant(loss))
        optimizer.apply([tf.constant([1.0])], [v])
    assert optimizer.report()["skipped"] == 2
    assert v.numpy().tolist() == [-4.0]


def test_rules_in_a_list_apply_in_order():
    """The second rule clips what the first one left."""
    rules = [optimizers.Value(3.0), optimizers.GlobalNorm(1.0)]
    handed, optimizer = updates(rules, [[[300.0, 4.0]]])
    np.testing.assert_allclose(handed[0][0], [0.5**0.5] * 2, rtol=1e-6)
    assert optimizer.report()["grad_norm"] == pytest.approx(300.0266, rel=1e-6)


@pytest.mark.parametrize(
    "rule",
    [optimizers.ZScore(), optimizers.Percentile(), optimizers.AdaGC()],
    ids=repr,
)
def test_a_rule_of_two_optimizers_has_two_memories(rule):
    """The steps of one, of another shape too, are not seen by the other."""
    made = []
    for size, steps in ((1, 3), (2, 1)):
        optimizer = optimizers.ClippedOptimizer(keras.optimizers.SGD(), rule)
        optimizer.build([keras.Variable(np.zeros(size, "float32"))])
        made.append((optimizer, size, steps))
    for optimizer, size, steps in made:
        for _ in range(steps):
            optimizer.apply([tf.ones(size)])
    for optimizer, _, steps in made:
        (count,) = [v for v in optimizer.variables if v.name.endswith("_count")]
        assert int(count) == steps


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.GlobalNorm(0.0), "norm must be finite and > 0"),
        (lambda: optimizers.Norm(math.inf), "Received: norm=inf"),
        (lambda: optimizers.Value(-1.0), "Received: value=-1.0"),
        (lambda: optimizers.Value("1"), "Received: value='1'"),
        (
            lambda: optimizers.Percentile(101),
            "percentile must be in",
        ),
        (lambda: optimizers.Percentile(10, history=0), "history must be"),
        (lambda: optimizers.ZScore(math.nan), "threshold must be finite"),
        (lambda: optimizers.ZScore(momentum=1.0), "momentum must be in"),
        (lambda: optimizers.ZScore(warmup=0), "warmup must be an integer"),
        (lambda: optimizers.AdaGC(0), "ratio must be finite"),
        (lambda: optimizers.AdaGC(warmup=1.5), "warmup must be an integer"),
        (lambda: optimizers.AdaGC(warmup_norm=-1), "warmup_norm must be"),
        (lambda: optimizers.AdaptiveGradient(epsilon=0), "epsilon must be"),
        (lambda: optimizers.SpikeSkip(0), "deviations must be finite"),
        (lambda: optimizers.SpikeSkip(window=1), "window must be an integer"),
    ],
)
def test_bad_arguments_of_rules_are_refused(make, message):
    """Every argument out of range is named with its value."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("policy", "callbacks", "seen"),
    [
        ("float32", [], True),
        ("float32", ["watch"], True),
        ("mixed_float16", [], False),
        ("mixed_float16", ["log"], True),
        ("mixed_float16", ["log", "watch"], True),
    ],
)
def test_spike_skip_judges_the_loss_where_its_docstring_says_so(
    policy, callbacks, seen
):
    """Only committed steps of a training that shows the loss are remembered."""
    make = {
        "log": optimizers.LogClipping,
        "watch": lambda: NaNWatch("skip", directory=None, verbose=0),
    }
    rule = optimizers.SpikeSkip(window=100)
    layer = keras.layers.Dense(1, dtype=policy)
    model = keras.Sequential([keras.layers.Input((2,)), layer])
    optimizer = optimizers.ClippedOptimizer(keras.optimizers.SGD(1e-3), rule)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(
            optimizer, initial_scale=2.0
        )
    model.compile(optimizer, "mse")
    model.fit(
        np.ones((12, 2), "float32"),
        np.ones((12, 1), "float32"),
        batch_size=4,
        verbose=0,
        callbacks=[make[name]() for name in callbacks],
    )
    assert int(rule._norms.count) == 3
    assert int(rule._losses.count) == (3 if seen else 0)
