"""ClippedOptimizer: clipping, skipping, refusing, counting, delegating."""

import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from stablekeras import optimizers
from stablekeras.errors import NonFiniteError, TooManySkipsError
from stablekeras.optimizers import ClippedOptimizer

K = keras.optimizers

OPTIMIZERS = {
    "sgd": lambda: K.SGD(0.1, momentum=0.9),
    "schedule": lambda: K.SGD(K.schedules.ExponentialDecay(0.1, 1, 0.5)),
    "adam": lambda: K.Adam(0.1),
    "adamw_ema": lambda: K.AdamW(
        0.1, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=3
    ),
    "adafactor": lambda: K.Adafactor(0.1),
    "lion": lambda: K.Lion(0.1, weight_decay=0.1),
    "muon": lambda: K.Muon(0.1),
    "accumulating": lambda: K.Adam(0.1, gradient_accumulation_steps=3),
    "loss_scale": lambda: K.SGD(0.1, loss_scale_factor=128.0),
}


def state_of(optimizer, variables):
    """Returns all that a skipped step must leave, as arrays."""
    return [
        v.numpy() for v in (*optimizer.inner_optimizer.variables, *variables)
    ]


def stepper(optimizer, variables, indices=None):
    """Returns a function of one gradient, as rows at indices if given."""

    def step(g):
        if indices is not None:
            g = tf.IndexedSlices(g, tf.constant(indices), variables[0].shape)
        optimizer.apply([g], variables)

    return step


def identical(a, b):
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def muon_runs():
    """Whether the Muon of this Keras can be applied at all: 3.12's cannot."""
    v = keras.Variable(np.ones((3, 2), "f4"))
    try:
        K.Muon(0.1).apply([tf.ones((3, 2))], [v])
    except AttributeError:
        return False
    return True


def modes(quick):
    """Returns pairs of name and `jit_compile`; all but the quick are slow."""
    return [
        pytest.param(name, jit_compile)
        if jit_compile is False or name == quick
        else pytest.param(name, jit_compile, marks=pytest.mark.slow)
        for name in OPTIMIZERS
        for jit_compile in (None, False, True)
    ]


@pytest.mark.parametrize(("name", "jit_compile"), modes("adam"))
def test_bad_steps_are_as_if_they_had_not_been(name, jit_compile):
    """A run with bad steps ends bit-identical to a run without them."""
    if name == "muon" and not muon_runs():
        pytest.skip("the bare Muon of this Keras fails on TensorFlow")
    rng = np.random.default_rng(0)
    steps = [
        [
            rng.standard_normal((3, 2)).astype("f4"),
            rng.standard_normal(2).astype("f4"),
        ]
        for _ in range(7)
    ]

    def train(gradients):
        optimizer = ClippedOptimizer(OPTIMIZERS[name](), global_clipnorm=0.7)
        variables = [
            keras.Variable(np.ones((3, 2), "f4")),
            keras.Variable(np.ones(2, "f4")),
        ]
        optimizer.build(variables)

        def step(*grads):
            optimizer.apply(list(grads), variables)

        if jit_compile is not None:
            step = tf.function(step, jit_compile=jit_compile)
        for grads in gradients:
            before = state_of(optimizer, variables)
            step(*[tf.constant(g) for g in grads])
            after = state_of(optimizer, variables)
            finite = all(np.isfinite(g).all() for g in grads)
            assert identical(before, after) != finite
        return state_of(optimizer, variables), optimizer.report()

    clean, _ = train(steps)
    bad = [[g.copy() for g in steps[0]] for _ in range(3)]
    bad[0][0][1, 1] = np.nan
    bad[1][1][0] = np.inf
    bad[2][0][:] = -np.inf
    dirty, report = train(
        [bad[0], *steps[:2], bad[1], *steps[2:5], bad[2], bad[0], *steps[5:]]
    )
    assert identical(clean, dirty)
    assert report["skipped"] == 4
    assert report["consecutive_skips"] == 0


def test_without_the_guard_the_same_steps_do_damage():
    """The bare optimizer turns its weights NaN on what is skipped here."""
    v = keras.Variable([1.0, 1.0])
    K.Adam(0.1, global_clipnorm=0.7).apply([tf.constant([np.nan, 1.0])], [v])
    assert np.isnan(v.numpy()).all()


@pytest.mark.parametrize("jit_compile", [None, False, True])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e5, 1e20])
@pytest.mark.parametrize("setting", ["global_clipnorm", "clipnorm"])
def test_norm_after_clipping_is_at_most_the_threshold(
    setting, scale, jit_compile
):
    """Within 1e-6 for gradients of 1e-30 to 1e20; c exactly when clipped."""
    for threshold in (scale * 0.37, scale * 1e6):
        optimizer = ClippedOptimizer(K.SGD(1.0), **{setting: threshold})
        variables = [keras.Variable(np.zeros((5, 3), "f4"))]
        optimizer.build(variables)
        gradient = np.random.default_rng(0).standard_normal((5, 3)) * scale
        gradient = gradient.astype("f4")

        step = stepper(optimizer, variables)

        if jit_compile is not None:
            step = tf.function(step, jit_compile=jit_compile)
        step(tf.constant(gradient))
        exact = np.linalg.norm(gradient.astype("f8"))
        got = np.linalg.norm(variables[0].numpy().astype("f8"))
        expected = min(exact, threshold)
        assert got == pytest.approx(expected, rel=1e-6)
        report = optimizer.report()
        assert report["grad_norm"] == pytest.approx(exact, rel=1e-6)
        assert report["update_norm"] == pytest.approx(expected, rel=1e-6)
        assert report["clip_rate"] == (1.0 if exact > threshold else 0.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_gradients_do_not_round_beyond_the_threshold(dtype):
    """Rounded to 16 bits, the clipped gradient is still at most c."""
    rng = np.random.default_rng(0)
    for threshold in (0.1, 1.0, 1 / 3, 7e-6):
        optimizer = ClippedOptimizer(K.SGD(1.0), global_clipnorm=threshold)
        v = keras.Variable(np.zeros(50), dtype=dtype)
        gradient = tf.cast(rng.standard_normal(50) * 1e3, dtype)
        optimizer.apply([gradient], [v])
        got = np.linalg.norm(tf.cast(v.value, "float64").numpy())
        assert got <= threshold * (1 + 1e-6)
        assert got >= threshold * 0.9


def test_float64_gradients_beyond_float32_are_clipped():
    """With float64 variables, norms are computed in float64."""
    optimizer = ClippedOptimizer(K.SGD(1.0), global_clipnorm=1.0)
    v = keras.Variable([0.0, 0.0], dtype="float64")
    optimizer.apply([tf.constant([3e200, 4e200], "float64")], [v])
    np.testing.assert_allclose(v.numpy(), [-0.6, -0.8], rtol=1e-12)


def test_a_square_that_overflows_cannot_reach_adam():
    """A finite gradient of 3e19 is skipped, not squared to infinity."""
    optimizer, v = ClippedOptimizer(K.Adam(0.1)), keras.Variable([1.0, 1.0])
    for gradient in ([1.0, 1.0], [3e19, 1.0], [1.0, 1.0]):
        optimizer.apply([tf.constant(gradient)], [v])
    assert optimizer.report()["skipped"] == 1
    assert all(np.isfinite(x.numpy()).all() for x in optimizer.variables)
    bare, w = K.Adam(0.1), keras.Variable([1.0, 1.0])
    for gradient in ([1.0, 1.0], [3e19, 1.0], [1.0, 1.0]):
        bare.apply([tf.constant(gradient)], [w])
    assert np.isnan(w.numpy()[0])


def test_sgd_takes_what_it_does_not_square():
    """Without second moments, a gradient of 3e19 is applied as Keras does."""
    optimizer, v = ClippedOptimizer(K.SGD(1.0)), keras.Variable([0.0])
    optimizer.apply([tf.constant([3e19])], [v])
    assert v.numpy().tolist() == [np.float32(-3e19)]


def test_float16_square_that_overflows_is_skipped():
    """In a float16 slot a square overflows from 256 on."""
    optimizer = ClippedOptimizer(K.Adam(0.1))
    v = keras.Variable([1.0, 1.0], dtype="float16")
    optimizer.apply([tf.constant([300.0, 1.0], "float16")], [v])
    assert optimizer.report()["skipped"] == 1
    optimizer.apply([tf.constant([200.0, 200.0], "float16")], [v])
    assert optimizer.report()["skipped"] == 1


@pytest.mark.parametrize("jit_compile", [False, True])
def test_duplicate_rows_are_summed_before_the_norm(jit_compile):
    """Rows with the same index count as their sum, for every optimizer."""
    rows = np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]], "f4")
    dense = np.array([[0.0, 1.0], [0.0, 0.0], [2.0, 4.0]], "f4")
    for inner in (K.SGD, K.Adam, K.RMSprop):
        results = []
        for sparse in (True, False):
            optimizer = ClippedOptimizer(inner(0.1), global_clipnorm=1.0)
            v = keras.Variable(np.zeros((3, 2), "f4"))
            optimizer.build([v])

            step = stepper(optimizer, [v], [2, 2, 0] if sparse else None)
            step = tf.function(step, jit_compile=jit_compile)
            step(tf.constant(rows if sparse else dense))
            norm = optimizer.report()["grad_norm"]
            assert norm == pytest.approx(21**0.5, rel=1e-6)
            results.append(v.numpy())
        np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "inner",
    [lambda: K.RMSprop(0.1, momentum=0.5), lambda: K.Adadelta(0.1)],
    ids=["rmsprop", "adadelta"],
)
def test_rows_reach_every_optimizer_under_xla(inner):
    """Rows at other places in each step do what a dense gradient does."""

    def trained(sparse):
        optimizer = ClippedOptimizer(inner(), global_clipnorm=1.0)
        v = keras.Variable(np.zeros((4, 2), "f4"))
        optimizer.build([v])

        @tf.function(jit_compile=sparse)
        def step(indices):
            g = tf.IndexedSlices(tf.ones((3, 2)), indices, tf.constant([4, 2]))
            optimizer.apply([g if sparse else tf.convert_to_tensor(g)], [v])

        for indices in ([2, 2, 1], [3, 3, 3], [1, 0, 2]):
            step(tf.constant(indices))
        return v.numpy()

    np.testing.assert_allclose(
        trained(True), trained(False), rtol=1e-5, atol=1e-8
    )


def test_sparse_gradients_stay_sparse():
    """The inner optimizer gets IndexedSlices, one row for each index."""
    seen = []

    class Recorder(K.SGD):
        def update_step(self, gradient, variable, learning_rate):
            seen.append(gradient)
            super().update_step(gradient, variable, learning_rate)

    optimizer = ClippedOptimizer(Recorder(), global_clipnorm=1.0)
    v = keras.Variable(np.zeros((9, 2), "f4"))
    slices = tf.IndexedSlices(tf.ones((3, 2)), tf.constant([4, 4, 1]), (9, 2))
    optimizer.apply([slices], [v])
    assert isinstance(seen[0], tf.IndexedSlices)
    assert seen[0].indices.numpy().tolist() == [4, 1]


def test_missing_gradients_are_left_to_keras():
    """`None` warns as Keras warns, and all `None` is its error."""
    optimizer = ClippedOptimizer(K.SGD(1.0), [optimizers.AdaGC(warmup=0)])
    v, w = keras.Variable([0.0]), keras.Variable([0.0])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([tf.constant([1.0]), None], [v, w])
    assert (v.numpy()[0], w.numpy()[0]) == (-1.0, 0.0)
    with pytest.raises(ValueError, match="No gradients provided"):
        optimizer.apply([None, None], [v, w])


def test_a_gradient_that_overwrites_is_a_value():
    """It is neither clipped nor counted, but must be finite."""
    v, w = keras.Variable([1.0]), keras.Variable([0.0])
    v.overwrite_with_gradient = True
    optimizer = ClippedOptimizer(K.SGD(1.0), global_clipnorm=1.0)
    optimizer.apply([tf.constant([500.0]), tf.constant([5.0])], [v, w])
    assert (v.numpy()[0], w.numpy()[0]) == (500.0, -1.0)
    assert optimizer.report()["grad_norm"] == 5.0
    optimizer.apply([tf.constant([np.nan]), tf.constant([5.0])], [v, w])
    assert (v.numpy()[0], w.numpy()[0]) == (500.0, -1.0)


def test_accumulation_clips_the_mean_of_the_window():
    """Each window ends with the clipped mean of its good micro-batches."""
    steps = np.array([1.0, 3.0, np.nan, 5.0, 2.0, 0.1, 0.3, np.inf, 0.2], "f4")
    inner = K.SGD(1.0, gradient_accumulation_steps=3)
    optimizer = ClippedOptimizer(inner, global_clipnorm=1.0)
    v, seen = keras.Variable([0.0]), []
    for g in steps:
        optimizer.apply([tf.constant([g])], [v])
        seen.append(float(v.numpy()[0]))
    # mean(1, 3, 5) = 3 is clipped to 1; mean(2, 0.1, 0.3) = 0.8 is not.
    expected = [0, 0, 0, -1, -1, -1, -1.8, -1.8, -1.8]
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    report = optimizer.report()
    assert (report["clip_rate"], report["skipped"]) == (0.5, 2)


def test_report_names_the_variable_with_the_largest_share():
    """`worst_variable` is the path of the largest gradient."""
    optimizer = ClippedOptimizer(K.SGD(1.0), global_clipnorm=1.0)
    blank = optimizer.report()
    assert (blank["worst_variable"], blank["skipped"]) == (None, 0)
    v = [keras.Variable([0.0], name=n) for n in ("small", "large")]
    optimizer.apply([tf.constant([1.0]), tf.constant([9.0])], v)
    assert optimizer.report()["worst_variable"] == "large"
    assert all(
        isinstance(x, (int, float, str)) for x in optimizer.report().values()
    )


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_raise_names_step_and_variables(jit_compile):
    """The error comes from apply when eager and from check when compiled."""
    optimizer = ClippedOptimizer(K.SGD(1.0), nonfinite="raise")
    v = [keras.Variable([0.0], name=n) for n in ("good", "evil")]
    optimizer.build(v)

    def step(a, b):
        optimizer.apply([a, b], v)

    if jit_compile is not None:
        step = tf.function(step, jit_compile=jit_compile)
    one, nan = tf.constant([1.0]), tf.constant([np.nan])
    step(one, one)
    message = r"step 1 .* gradient of evil \(1"
    if jit_compile is None:
        with pytest.raises(NonFiniteError, match=message):
            step(one, nan)
    else:
        step(one, nan)
        step(one, one)
        with pytest.raises(NonFiniteError, match=message):
            optimizer.check()
    assert [x.numpy()[0] for x in v] == [-1.0, -1.0]
    step(one, one)
    assert [x.numpy()[0] for x in v] == [-2.0, -2.0]
    optimizer.check()


# Keras says so of any optimizer that is not built; ours loads when it is.
@pytest.mark.filterwarnings("ignore:Skipping variable loading")
def test_a_bare_optimizer_is_pickled_with_its_state():
    """Built for variables like those, the copy goes on as the original."""
    clip = [optimizers.ZScore(warmup=2), optimizers.Percentile(50, history=4)]
    optimizer = ClippedOptimizer(K.Adam(0.1), clip)
    v = keras.Variable(np.ones(3, "f4"))
    for g in (1.0, 2.0, np.nan, 3.0):
        optimizer.apply([tf.fill((3,), g)], [v])
    copy = pickle.loads(pickle.dumps(optimizer))
    assert copy.get_config() == optimizer.get_config()
    w = keras.Variable(v.numpy())
    copy.build([w])
    for o, x in ((optimizer, v), (copy, w)):
        o.apply([tf.fill((3,), 4.0)], [x])
    assert identical([v.numpy()], [w.numpy()])
    assert copy.report()["skipped"] == optimizer.report()["skipped"] == 1


def test_two_rules_of_a_kind_have_variables_of_their_own_names():
    """`get_state_tree`, which tells variables by name, goes and comes back."""
    rules = [optimizers.Percentile(10), optimizers.Percentile(50)]
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(ClippedOptimizer(K.Adam(0.1), rules), "mse")
    model.optimizer.build(model.trainable_variables)
    names = [v.name for v in model.optimizer.variables]
    assert {"percentile_norms", "percentile_norms_2"} < set(names)
    assert len(set(names)) == len(names)
    model.set_state_tree(model.get_state_tree())


def test_variables_are_named_the_same_whoever_builds():
    """Built by the first step, they have the paths that `build` gives."""
    v = keras.Variable([1.0])
    built, applied = (ClippedOptimizer("sgd", name="c") for _ in range(2))
    built.build([v])
    applied.apply([tf.ones(1)], [v])
    own = len(applied.variables) - len(applied.inner_optimizer.variables)
    paths = [x.path for x in applied.variables[:own]]
    assert paths == [x.path for x in built.variables[:own]]
    assert paths[0] == "c/norms"


def test_a_threshold_may_be_a_numpy_number():
    """Its configuration is written as JSON and read again all the same."""
    optimizer = ClippedOptimizer("sgd", clipnorm=np.float32(0.5))
    config = json.loads(json.dumps(optimizer.get_config()))
    assert config["clipnorm"] == 0.5
    assert ClippedOptimizer.from_config(config).get_config() == config


def test_a_sustained_streak_raises():
    """`max_consecutive_skips` pass in a row, one more does not."""
    optimizer = ClippedOptimizer(K.SGD(1.0), max_consecutive_skips=2)
    v, nan = keras.Variable([0.0]), tf.constant([np.nan])
    for gradient in (nan, nan, tf.constant([1.0]), nan, nan):
        optimizer.apply([gradient], [v])
    with pytest.raises(TooManySkipsError, match="max_consecutive_skips=2"):
        optimizer.apply([nan], [v])
    assert optimizer.report()["skipped"] == 5


def test_apply_if_takes_a_further_condition():
    """A step is committed only if the caller agrees, and the result says so."""
    optimizer, v = ClippedOptimizer(K.SGD(1.0)), keras.Variable([0.0])
    one = tf.constant([1.0])
    assert not optimizer.apply_if(tf.constant(False), [one], [v])
    assert optimizer.apply_if(tf.constant(True), [one], [v])
    assert v.numpy().tolist() == [-1.0]


REFUSED = {
    "clips": (
        lambda: K.Adam(global_clipnorm=2.0),
        "global_clipnorm=2.0.*clipnorm=1",
    ),
    "zero": (lambda: K.SGD(clipvalue=0.5), "SGD with clipvalue=0.5"),
    "wrapped": (lambda: ClippedOptimizer(K.SGD()), "must not wrap"),
    "order": (
        lambda: K.LossScaleOptimizer(K.SGD()),
        "LossScaleOptimizer\\(Clipped",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_inner_optimizers_that_cannot_be_wrapped_are_refused(name):
    """The error names both settings and the remedy."""
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        ClippedOptimizer(make(), clipnorm=1.0)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        (
            {"global_clipnorm": 0.0},
            ValueError,
            "global_clipnorm must be finite",
        ),
        ({"clipnorm": float("nan")}, ValueError, "Received: clipnorm=nan"),
        ({"clipvalue": -1.0}, ValueError, "clipvalue must be finite and > 0"),
        ({"clip": 1.0}, TypeError, "clip must be a clipping rule"),
        ({"clipnorm": 1.0, "clipvalue": 1.0}, ValueError, "Only one of"),
        (
            {"nonfinite": "ignore"},
            ValueError,
            'nonfinite must be "skip" or "raise".*Pass "skip" to leave',
        ),
        ({"max_consecutive_skips": 0}, ValueError, "must be an integer >= 1"),
        ({"clip": [optimizers.Norm(1.0)] * 1 + [3]}, TypeError, "Received"),
    ],
)
def test_bad_arguments_are_refused(kwargs, error, message):
    """Every argument is checked, with what was received and a remedy."""
    with pytest.raises(error, match=message):
        ClippedOptimizer(K.SGD(), **kwargs)
    with pytest.raises(TypeError, match="must be a keras"):
        ClippedOptimizer(None)


def test_gradients_that_cannot_be_taken_are_refused():
    """One for each variable, and real ones, before anything is changed."""
    optimizer, v = (
        ClippedOptimizer(K.SGD(), clipnorm=1.0),
        keras.Variable([0.0]),
    )
    with pytest.raises(ValueError, match="2 gradients for 1 variables"):
        optimizer.apply([tf.constant([1.0])] * 2, [v])
    with pytest.raises(TypeError, match=r"must be real.*complex64"):
        optimizer.build([tf.Variable([1j], dtype="complex64")])
    assert v.numpy().tolist() == [0.0]


def test_what_belongs_to_the_inner_optimizer_is_passed_on():
    """Learning rate, iterations, weight decay and hyperparameters are its."""
    inner = K.AdamW(0.5)
    optimizer = ClippedOptimizer(inner, clipvalue=1.0)
    optimizer.learning_rate = 0.25
    assert float(inner.learning_rate) == float(optimizer.learning_rate) == 0.25
    v = keras.Variable([0.0], name="kept")
    optimizer.exclude_from_weight_decay(var_names=["kept"])
    assert int(optimizer.apply_gradients([(tf.constant([1.0]), v)])) == 1
    assert int(inner.iterations) == 1
    assert optimizer.beta_1 == inner.beta_1
    with pytest.raises(AttributeError):
        optimizer.no_such_thing


INNER_SETTINGS = {
    "weight_decay": 0.1,
    "use_ema": True,
    "ema_momentum": 0.9,
    "ema_overwrite_frequency": 5,
    "gradient_accumulation_steps": 3,
    "loss_scale_factor": 8.0,
}


def test_settings_of_the_inner_optimizer_are_read_and_not_doubled():
    """Keras finds them on the wrapper, which keeps no slots for them."""
    inner = K.AdamW(0.5, **INNER_SETTINGS)
    optimizer = ClippedOptimizer(inner, clipvalue=1.0)
    read = {name: getattr(optimizer, name) for name in INNER_SETTINGS}
    assert read == INNER_SETTINGS
    optimizer.build([keras.Variable([0.0])])
    bare = K.AdamW(0.5, **INNER_SETTINGS)
    bare.build([keras.Variable([0.0])])
    assert len(inner.variables) == len(bare.variables)
    own = [v for v in optimizer.variables if "average" in v.name]
    assert len(own) == 1
    optimizer.use_ema = False
    assert not inner.use_ema
