"""The guard holds in every way a Keras model can be trained."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from stablekeras.errors import NonFiniteError
from tests.scenarios.watched import (
    BAD_BATCH,
    BATCH,
    compiled,
    data,
    differing,
    fit,
    mlp,
    poisoned,
    state,
    watch,
    without_bad_batch,
)


def _bad_steps(watching):
    return [(i.epoch, i.step) for i in watching.incidents]


def test_dict_inputs_and_sample_weights():
    """Structured batches are guarded and recorded as they are."""
    x, y = data()
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    out = layers.Dense(1)(layers.Concatenate()([a, b]))

    def make():
        keras.utils.set_random_seed(0)
        model = keras.Model({"a": a, "b": b}, out)
        model.set_weights([np.full((6, 1), 0.1), np.zeros(1)])
        model.compile("adam", "mse", jit_compile=False)
        return model

    def named(x):
        return {"a": x[:, :3], "b": x[:, 3:]}

    weights = np.linspace(0.5, 1.5, len(x)).astype("float32")
    watching = watch()
    model = make()
    fit(model, named(poisoned(x)), y, [watching], sample_weight=weights)
    assert _bad_steps(watching) == [(0, BAD_BATCH), (1, BAD_BATCH)]
    recorded, _, recorded_weights = watching.incidents[0].batch
    assert np.isnan(recorded["a"][5, 2])
    rows = slice(BAD_BATCH * BATCH, (BAD_BATCH + 1) * BATCH)
    np.testing.assert_array_equal(recorded_weights, weights[rows])
    clean_x, clean_y, clean_weights = without_bad_batch(x, y, weights)
    clean = make()
    fit(clean, named(clean_x), clean_y, sample_weight=clean_weights)
    assert differing(state(model), state(clean)) == []


@pytest.mark.parametrize("steps", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_the_last_short_batch_is_guarded(steps):
    """A bad row in the ragged last batch of a partial chunk is caught."""
    x, y = data()
    x[-1, 0] = np.nan
    watching = watch()
    model = compiled("adam", jit_compile=False, steps_per_execution=steps)
    fit(model, x, y, [watching])
    assert _bad_steps(watching) == [(0, 6), (1, 6)]
    assert len(watching.incidents[0].batch[0]) == len(x) - 6 * BATCH
    assert int(model.optimizer.iterations) == 12


def test_a_generator_of_unknown_length():
    """Data without a length: steps are counted all the same."""
    x, y = data(rows=40)
    x = poisoned(x)
    dataset = tf.data.Dataset.from_generator(
        lambda: (
            (x[i : i + BATCH], y[i : i + BATCH])
            for i in range(0, len(x), BATCH)
        ),
        output_signature=(
            tf.TensorSpec((None, 6), tf.float32),
            tf.TensorSpec((None, 1), tf.float32),
        ),
    )
    watching = watch()
    model = compiled("sgd", jit_compile=False, steps_per_execution=2)
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(
            dataset, epochs=1, shuffle=False, verbose=0, callbacks=[watching]
        )
    assert _bad_steps(watching) == [(0, BAD_BATCH)]
    assert int(model.optimizer.iterations) == 4


def test_embedding_gradients():
    """IndexedSlices with duplicate ids are summed into the flag."""
    keras.utils.set_random_seed(0)
    ids = np.tile(np.arange(4), (24, 1))
    y = np.ones((24, 1), "float32")
    y[10] = np.nan
    model = keras.Sequential(
        [layers.Embedding(8, 3), layers.Flatten(), layers.Dense(1)]
    )
    model.compile("adam", "mse", jit_compile=False)
    watching = watch()
    fit(model, ids, y, [watching], epochs=1)
    assert _bad_steps(watching) == [(0, 1)]
    assert all(np.isfinite(v).all() for v in state(model))


def test_a_gradient_alone_trips():
    """The loss is finite, the gradient of sqrt at 0 is not."""
    inputs = keras.Input((2,))
    outputs = layers.Dense(1, use_bias=False)(inputs)
    model = keras.Model(inputs, outputs)
    model.compile(
        "sgd",
        lambda y, p: keras.ops.sqrt(keras.ops.sum(p * p)),
        jit_compile=False,
    )
    x = np.ones((24, 2), "float32")
    x[8:16] = 0.0
    watching = watch(diagnose=True)
    fit(model, x, x[:, :1], [watching], epochs=1)
    assert [i.tripped for i in watching.incidents] == [("gradient",)]
    assert watching.incidents[0].diagnosis.phase == "backward"
    assert np.isfinite(model.get_weights()[0]).all()


def test_a_statistic_alone_trips():
    """An input whose variance overflows: the loss stays finite."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((2,)), layers.BatchNormalization(), layers.Dense(1)]
    )
    model.compile("sgd", "mse", jit_compile=False)
    x = np.random.default_rng(0).normal(size=(24, 2)).astype("float32")
    x[9, 0] = 1e25
    watching = watch()
    fit(model, x, x[:, :1] * 0, [watching], epochs=1)
    assert _bad_steps(watching) == [(0, 1)]
    assert all(np.isfinite(v).all() for v in state(model))


def test_a_metric_that_is_nan_is_no_alarm():
    """Metrics may be NaN in health; only losses trip."""
    x, y = data()
    watching = watch("stop")
    model = compiled(
        "sgd",
        jit_compile=False,
        metrics=[lambda y, p: keras.ops.mean(p) * float("nan")],
    )
    fit(model, x, y, [watching])
    assert watching.incidents == []


def test_train_on_batch():
    """Inside `guard`, `train_on_batch` is a transaction."""
    x, y = data()
    x = poisoned(x)
    watching = watch(diagnose=True)
    model = compiled("adam", jit_compile=False)
    clean = compiled("adam", jit_compile=False)
    with watching.guard(model):
        for i in range(0, len(x), BATCH):
            model.train_on_batch(x[i : i + BATCH], y[i : i + BATCH])
    for i in range(0, len(x), BATCH):
        if i // BATCH != BAD_BATCH:
            clean.train_on_batch(x[i : i + BATCH], y[i : i + BATCH])
    assert _bad_steps(watching) == [(0, BAD_BATCH)]
    assert watching.incidents[0].diagnosis.samples == (5,)
    everything = [
        *(v for v in model.variables),
        *model.optimizer.variables,
    ]
    expected = [*clean.variables, *clean.optimizer.variables]
    assert (
        differing(
            [v.numpy() for v in everything], [v.numpy() for v in expected]
        )
        == []
    )


@pytest.mark.parametrize(
    "mode",
    ["eager", "graph", pytest.param("jit", marks=pytest.mark.slow)],
)
def test_a_hand_written_loop(mode):
    """Inside `guard`, a bad `apply_gradients` leaves no trace."""
    x, y = data()
    bad = poisoned(x)

    def run(x, y, *guards):
        model = mlp()
        optimizer = keras.optimizers.Adam(1e-2)
        optimizer.build(model.trainable_variables)

        def step(x, y):
            with tf.GradientTape() as tape:
                prediction = model(x, training=True)
                loss = tf.reduce_mean(tf.square(prediction - y))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(
                zip(gradients, model.trainable_variables, strict=True)
            )
            return loss

        if mode != "eager":
            step = tf.function(step, jit_compile=mode == "jit")

        def loop():
            for i in range(0, len(x), BATCH):
                step(
                    tf.constant(x[i : i + BATCH]),
                    tf.constant(y[i : i + BATCH]),
                )

        if guards:
            with guards[0].guard(model, optimizer):
                loop()
        else:
            loop()
        return state(model, optimizer)

    # The short last batch would be compiled on its own.
    x, y, bad = x[:48], y[:48], bad[:48]
    watching = watch("skip", diagnose=True)
    skipped = run(bad, y, watching)
    expected = run(*without_bad_batch(x, y), watch("skip"))
    assert _bad_steps(watching) == [(0, BAD_BATCH)]
    assert differing(skipped, expected) == []
    diagnosis = watching.incidents[0].diagnosis
    assert diagnosis.code == "SK000"
    assert "stablekeras.diagnose(loss_fn, *batch)" in diagnosis.remedy


@pytest.mark.parametrize("compiled_step", [False, True])
def test_stop_and_raise_leave_a_hand_written_loop(compiled_step):
    """ "stop" ends the block quietly, "raise" with the error."""

    def attempt(action):
        model = mlp()
        optimizer = keras.optimizers.SGD(0.1)
        watching = watch(action)
        done = []

        def step(gradient):
            optimizer.apply([gradient], [model.layers[-1].bias])

        if compiled_step:
            step = tf.function(step)
        with watching.guard(model, optimizer):
            for value in (1.0, np.inf, 1.0):
                step(tf.constant([value]))
                done.append(value)
        return done, watching, optimizer

    done, watching, optimizer = attempt("stop")
    assert done == [1.0]
    assert [i.action for i in watching.incidents] == ["stop"]
    assert int(optimizer.iterations) == 1
    assert "apply" not in vars(optimizer)
    with pytest.raises(NonFiniteError, match="step 1"):
        attempt("raise")


def _bias_step(model, optimizer, **compiling):
    @tf.function(**compiling)
    def step(gradient):
        optimizer.apply([gradient], [model.layers[-1].bias])

    return lambda value: step(tf.constant([value]))


@pytest.mark.parametrize("jit", [False, True])
def test_a_compiled_step_is_guarded_in_each_block_and_only_there(jit):
    """Each refusal is told, numbered in its block; between blocks none is."""
    model, optimizer, watching = mlp(), keras.optimizers.SGD(0.1), watch("skip")
    step = _bias_step(model, optimizer, jit_compile=jit)
    for _ in range(2):
        with watching.guard(model, optimizer):
            for value in (1.0, np.inf, np.nan, 1.0):
                step(value)
    assert [i.step for i in watching.incidents] == [1, 2, 1, 2]
    assert int(optimizer.iterations) == 4
    assert watching.skipped == 4
    step(np.nan)
    assert np.isnan(model.layers[-1].bias.numpy()).all()
    assert watching.skipped == 4


def test_stop_leaves_the_second_block_of_a_compiled_step():
    """A step traced in the first block ends the second one quietly."""
    model, optimizer, watching = mlp(), keras.optimizers.SGD(0.1), watch("stop")
    step = _bias_step(model, optimizer)
    for _ in range(2):
        with watching.guard(model, optimizer):
            for value in (1.0, np.inf, 1.0):
                step(value)
    assert [i.step for i in watching.incidents] == [1, 1]
    assert int(optimizer.iterations) == 2


def test_a_step_traced_before_the_block_is_told():
    """It holds no guard; that must not go unnoticed."""
    model, optimizer = mlp(), keras.optimizers.SGD(0.1)
    step = _bias_step(model, optimizer)
    step(1.0)

    def block():
        with watch("skip").guard(model, optimizer):
            step(1.0)
            step(1.0)

    with pytest.warns(UserWarning, match="2 steps of SGD that were not"):
        block()


def test_train_on_batch_builds_a_model_inside_the_block():
    """The first batch is bad: refused, its loss NaN, the rest as without it."""
    x, y = data()

    def train(batches):
        keras.utils.set_random_seed(0)
        kinds = layers.Dropout(0.5), layers.BatchNormalization()
        model = keras.Sequential([layers.Dense(4), *kinds, layers.Dense(1)])
        model.compile("adam", "mse", jit_compile=False)
        with watch("skip").guard(model):
            losses = [
                model.train_on_batch(batch, y[:BATCH]) for batch in batches
            ]
        return losses, state(model)

    good = [x[i : i + BATCH] for i in range(0, 3 * BATCH, BATCH)]
    losses, skipped = train([good[0] * np.nan, *good])
    expected_losses, expected = train(good)
    assert np.isnan(losses[0])
    assert losses[1:] == expected_losses
    assert differing(skipped, expected) == []


def test_guard_needs_an_optimizer():
    """A model without one, and none given, is refused."""
    with pytest.raises(ValueError, match="Pass the optimizer"):
        watch().guard(mlp())


def _attention(x, heads=2):
    mask = np.triu(np.full((4, 4), -np.inf, "float32"), 1)
    q = layers.Dense(4)(x)
    scores = keras.ops.matmul(q, keras.ops.transpose(q, (0, 2, 1))) + mask
    return keras.ops.matmul(keras.ops.softmax(scores), layers.Dense(4)(x))


HEALTHY = {
    "mask": lambda x: _attention(layers.Reshape((4, 2))(x)),
    # exp overflows for some rows; nothing trained lies before it.
    "sigmoid": lambda x: (
        layers.Dense(4)(x) / (1.0 + keras.ops.exp(-300.0 * x[:, :4]))
    ),
    "masked": lambda x: layers.LSTM(4)(
        layers.Masking()(layers.Reshape((4, 2))(x))
    ),
    "dropout": lambda x: layers.Dropout(0.9)(layers.Dense(8)(x)),
    "norm": lambda x: layers.GroupNormalization(2)(layers.Dense(4)(x)),
}


QUICK = (("mask", "adam"), ("sigmoid", "rmsprop"))


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow)
        for pair in itertools.product(
            HEALTHY, ("sgd", "adam", "rmsprop", "adamw")
        )
    ],
)
def test_healthy_trainings_raise_no_alarm(kind, optimizer):
    """Infinities that do no harm are not blamed."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 8)).astype("float32")
    inputs = keras.Input((8,))
    outputs = layers.Dense(1)(layers.Flatten()(HEALTHY[kind](inputs)))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, "mse", jit_compile=False)
    watching = watch("stop")
    fit(model, x, x[:, :1], [watching])
    assert watching.incidents == []
    assert int(model.optimizer.iterations) == 12
