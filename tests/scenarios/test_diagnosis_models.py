"""Broken training steps of real models: custom steps, masks, half floats."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import stablekeras
from stablekeras.errors import ReplayError
from stablekeras.watch.diagnose import explain
from stablekeras.watch.records import Incident
from stablekeras.watch.replay import replay_step

ROWS = 16


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(ROWS, 10)).astype("float32")


@pytest.fixture
def y():
    return np.random.default_rng(1).normal(size=(ROWS, 1)).astype("float32")


@pytest.fixture
def mixed_float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


def _model(*layers, loss, optimizer="adam", shape=(10,), **options):
    model = keras.Sequential([keras.Input(shape), *layers])
    model.compile(optimizer, loss, **options)
    model.optimizer.build(model.trainable_variables)
    return model


def _explain(model, *batch, tripped=("loss",), state=None, **options):
    """Replays, checks that nothing changed, and explains."""
    variables = [*model.variables]
    before = [variable.numpy() for variable in variables]
    incident = Incident(0, 0, "stop", tripped, batch=batch, state=state or {})
    trace = replay_step(model, incident, **options)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    return explain(trace)


def _line(fn, words):
    """Returns the place of the line of a function that holds some words."""
    lines, first = inspect.getsourcelines(fn)
    (place,) = (i for i, line in enumerate(lines) if words in line)
    return f"test_diagnosis_models.py:{first + place}"


class Adversaries(keras.Model):
    """Two networks, two optimizers, two gradients in one step."""

    def __init__(self):
        super().__init__()
        self.maker = keras.layers.Dense(10, name="maker")
        self.judge = keras.layers.Dense(1, name="judge")
        self.maker_optimizer = keras.optimizers.Adam()
        self.judge_optimizer = keras.optimizers.SGD(1e4)

    def call(self, x):
        return self.judge(self.maker(x))

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as tape:
            judged = tf.reduce_mean(tf.square(self(x)))
        own = self.judge.trainable_variables
        self.judge_optimizer.apply_gradients(
            zip(tape.gradient(judged, own), own, strict=True)
        )
        with tf.GradientTape() as tape:
            p = tf.sigmoid(self(x))
            made = -tf.reduce_mean(tf.math.log(p))
        own = self.maker.trainable_variables
        self.maker_optimizer.apply_gradients(
            zip(tape.gradient(made, own), own, strict=True)
        )
        return {"judged": judged, "made": made}


def test_the_second_of_two_gradients_sees_the_first_update(x, y):
    """A step with two optimizers is replayed in order, updates included."""
    model = Adversaries()
    model.compile()
    model(x)
    model.maker_optimizer.build(model.maker.trainable_variables)
    model.judge_optimizer.build(model.judge.trainable_variables)
    diagnosis = _explain(model, x, y)
    assert (diagnosis.code, diagnosis.op_type) == ("SK102", "Log")
    assert diagnosis.location == _line(Adversaries.train_step, "tf.math.log(p)")
    assert 'layer "judge"' in " ".join(diagnosis.contributing)
    assert 0 < len(diagnosis.samples) <= ROWS


class Penalised(keras.Model):
    """A gradient within a gradient."""

    def __init__(self):
        super().__init__()
        self.critic = keras.layers.Dense(
            1, use_bias=False, kernel_initializer="zeros", name="critic"
        )

    def call(self, x):
        return self.critic(x)

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                score = self(x)
            slope = tf.norm(inner.gradient(score, x), axis=1)
            penalty = tf.reduce_mean((slope - 1.0) ** 2)
        gradient = outer.gradient(penalty, self.trainable_variables)
        self.optimizer.apply(gradient, self.trainable_variables)
        return {"loss": penalty}


def test_a_gradient_penalty_at_zero(x, y):
    """The norm of a gradient of zero is named, in the user's own step."""
    model = Penalised()
    model.compile("adam")
    model(x)
    diagnosis = _explain(model, x, y)
    assert (diagnosis.code, diagnosis.phase) == ("SK402", "backward")
    assert diagnosis.op_type == "Sqrt"
    assert diagnosis.location == _line(Penalised.train_step, "tf.norm(")
    assert diagnosis.samples == tuple(range(ROWS))


def test_an_embedding_of_zeros():
    """Sparse gradients of an embedding lead to the norm of its rows."""
    ids = np.arange(ROWS * 5).reshape(ROWS, 5) % 10
    layers = (
        keras.layers.Embedding(
            10, 4, embeddings_initializer="zeros", name="table"
        ),
        keras.layers.Lambda(lambda t: tf.norm(t, axis=-1), name="length"),
    )
    model = _model(*layers, loss="mse", shape=(5,))
    diagnosis = _explain(model, ids, np.ones((ROWS, 5), "float32"))
    assert (diagnosis.code, diagnosis.layer) == ("SK402", "length")
    assert 'layer "table"' in " ".join(diagnosis.contributing)


class LogCell(keras.layers.Layer):
    """A recurrent cell that takes a log of a sigmoid."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.output_size = 4

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(shape[-1], 4), initializer="ones", name="kernel"
        )

    def call(self, x, states):
        z = keras.ops.matmul(x, self.kernel)
        state = states[0] + tf.math.log(tf.sigmoid(z))
        return state, [state]


def test_a_cell_inside_a_recurrent_loop():
    """The op, row and layer are found inside the loop of an RNN."""
    series = np.ones((ROWS, 6, 3), "float32")
    series[5, 2] = -1e4
    layers = (
        keras.layers.RNN(LogCell(name="cell"), name="loop"),
        keras.layers.Dense(1),
    )
    model = _model(*layers, loss="mse", shape=(6, 3))
    diagnosis = _explain(model, series, np.ones((ROWS, 1), "float32"))
    assert (diagnosis.code, diagnosis.layer) == ("SK102", "loop/cell")
    assert diagnosis.samples == (5,)
    assert diagnosis.location == _line(LogCell.call, "tf.math.log")
    assert "row 5" in " ".join(diagnosis.contributing)


def test_a_fully_masked_row_in_a_pooling_layer():
    """A mask that leaves a row empty is named, with layer and row."""
    ids = np.ones((ROWS, 5), int)
    ids[3] = 0
    layers = (
        keras.layers.Embedding(10, 4, mask_zero=True),
        keras.layers.GlobalAveragePooling1D(name="pool"),
    )
    model = _model(*layers, loss="mse", shape=(5,))
    diagnosis = _explain(model, ids, np.ones((ROWS, 4), "float32"))
    assert (diagnosis.code, diagnosis.layer) == ("SK503", "pool")
    assert diagnosis.samples == (3,)


def test_nan_in_one_of_several_inputs():
    """Array, row and column of a NaN are named, by the input's own key."""
    inputs = {
        "a": keras.Input((3,), name="a"),
        "b": keras.Input((2,), name="b"),
    }
    joined = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
    model = keras.Model(inputs, keras.layers.Dense(1)(joined))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    a, b = np.ones((ROWS, 3), "float32"), np.ones((ROWS, 2), "float32")
    b[2, 1] = np.nan
    diagnosis = _explain(model, {"a": a, "b": b}, a[:, :1])
    assert (diagnosis.code, diagnosis.samples) == ("SK501", (2,))
    assert "\"x['b']\" holds 1 NaN of 32, in rows 2, columns 1" in (
        diagnosis.cause
    )


def test_nan_beside_strings(x, y):
    """A batch that also holds strings is replayed, lookup table and all."""
    words, numbers = keras.Input((1,), dtype="string"), keras.Input((3,))
    lookup = keras.layers.StringLookup(vocabulary=["a", "b"])
    embedded = keras.layers.Embedding(3, 2)(lookup(words))
    joined = keras.layers.Concatenate()(
        [keras.layers.Flatten()(embedded), numbers]
    )
    model = keras.Model([words, numbers], keras.layers.Dense(1)(joined))
    model.compile("adam", "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    given = np.array([["a"], ["b"]] * (ROWS // 2), dtype=object)
    bad = np.ones((ROWS, 3), "float32")
    bad[5, 2] = np.inf
    diagnosis = _explain(model, (given, bad), np.ones((ROWS, 1), "float32"))
    assert (diagnosis.code, diagnosis.samples) == ("SK501", (5,))
    assert '"x[1]"' in diagnosis.cause


def test_what_is_not_dense_is_not_replayed(y):
    """A ragged batch gets an error that says how to replay it."""
    model = _model(keras.layers.Dense(1), loss="mse")
    ragged = tf.RaggedTensor.from_row_lengths(tf.ones(ROWS), [1] * ROWS)
    with pytest.raises(ReplayError, match=r"a RaggedTensor\. Convert it"):
        _explain(model, ragged, y)


def test_nan_in_a_row_of_weight_zero(x, y):
    """A NaN target that a zero weight multiplies is named as data."""
    y = y.copy()
    y[4] = np.nan
    weight = np.ones(ROWS, "float32")
    weight[4] = 0.0
    model = _model(keras.layers.Dense(1), loss="mse")
    diagnosis = _explain(model, x, y, weight)
    assert (diagnosis.code, diagnosis.samples) == ("SK501", (4,))
    assert 'array "y"' in diagnosis.cause


def test_a_label_out_of_range(x):
    """Wrong labels are listed with their rows and the range."""
    labels = np.arange(ROWS) % 4
    labels[[6, 9]] = -1, 4
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = _model(keras.layers.Dense(4), loss=loss)
    diagnosis = _explain(model, x, labels)
    assert (diagnosis.code, diagnosis.samples) == ("SK502", (6, 9))
    assert "hold -1, 4 in rows 6, 9" in diagnosis.cause


def test_a_variable_that_already_is_nan(x, y):
    """The variable is named by its path, and its layer."""
    model = _model(keras.layers.Dense(1, name="broken"), loss="mse")
    model.layers[0].bias.assign([np.nan])
    diagnosis = _explain(model, x, y)
    assert (diagnosis.code, diagnosis.layer) == ("SK602", "broken")
    assert model.layers[0].bias.path in diagnosis.cause


def test_a_recorded_state_stands_in_for_the_variables(x, y):
    """Values of the incident's state are read in place of the model's."""
    model = _model(keras.layers.Dense(1, name="head"), loss="mse")
    path = model.layers[0].bias.path
    assert _explain(model, x, y).title == "not reproduced"
    state = {path: np.array([np.inf], "float32")}
    diagnosis = _explain(model, x, y, state=state)
    assert (diagnosis.code, diagnosis.layer) == ("SK602", "head")


def test_an_update_that_overflows(x, y):
    """Finite loss and gradient, infinite second moment: the optimizer."""
    model = _model(
        keras.layers.Dense(1), loss=lambda y, p: tf.reduce_mean(p) * 1e21
    )
    diagnosis = _explain(model, x, y, tripped=("update",))
    assert (diagnosis.code, diagnosis.op_type) == ("SK603", "Square")
    assert "loss and gradient are finite" in diagnosis.cause


def test_weights_that_grew(x, y):
    """A product that overflows on huge weights is called a divergence."""
    model = _model(
        keras.layers.Dense(4, name="one"),
        keras.layers.Dense(1, name="two"),
        loss="mse",
    )
    model.layers[0].kernel.assign(np.full((10, 4), 1e20))
    model.layers[1].kernel.assign(np.full((4, 1), 1e20))
    diagnosis = _explain(model, x, y)
    assert (diagnosis.code, diagnosis.layer) == ("SK601", "two")
    assert "has grown to 1e+20" in diagnosis.cause


def test_losses_that_grew_are_told(x, y):
    """The losses of the last steps stand in the cause of a divergence."""
    model = _model(keras.layers.Dense(1), loss="mse")
    history = [{"loss": 10.0**power} for power in (0, 9, 18, 27, 36)]
    diagnosis = _explain(model, x * 1e22, y, history=history)
    assert diagnosis.code == "SK601"
    assert "the last losses were 1, 1e+09, 1e+18" in diagnosis.cause


def _mean_log(y, p):
    return -tf.reduce_mean(tf.math.log(p))


def test_softmax_under_a_loss_scale(mixed_float16, x, y):
    """In mixed precision the formula is named, not the loss scale."""
    model = _model(
        keras.layers.Dense(3, name="logits"),
        keras.layers.Softmax(dtype="float32"),
        loss=_mean_log,
    )
    diagnosis = _explain(model, x * 1e3, y)
    assert diagnosis.code == "SK101"
    assert diagnosis.location == _line(_mean_log, "tf.math.log")
    assert 'layer "logits"' in " ".join(diagnosis.contributing)


def test_a_scaled_loss_that_overflows(mixed_float16, x, y):
    """A finite loss times the loss scale is named as that."""
    model = _model(
        keras.layers.Dense(3),
        loss=lambda y, p: tf.reduce_mean(tf.cast(p, "float32") ** 2) * 1e35,
    )
    assert _explain(model, x, y).code == "SK701"


def test_a_gradient_too_large_for_half(mixed_float16, x, y):
    """A finite scaled loss with an infinite float16 gradient is named."""
    model = _model(
        keras.layers.Dense(3),
        loss=lambda y, p: tf.reduce_mean(tf.cast(p, "float32") ** 2) * 1e3,
    )
    diagnosis = _explain(model, x, y, tripped=("gradient",))
    assert (diagnosis.code, diagnosis.phase) == ("SK703", "backward")


def test_a_lost_loss_scale(mixed_float16, x, y):
    """A loss scale of infinity is named, whatever else it breaks."""
    model = _model(keras.layers.Dense(3), loss="mse")
    model.optimizer.dynamic_scale.assign(np.inf)
    assert _explain(model, x, y).code == "SK702"


@tf.custom_gradient
def _broken_backward(x):
    def backward(dy):
        return dy / (x - x)

    return x * 2.0, backward


def test_a_custom_gradient(x, y):
    """A custom gradient is judged by its own formula, at its own line."""
    model = _model(
        keras.layers.Dense(4), keras.layers.Lambda(_broken_backward), loss="mse"
    )
    diagnosis = _explain(model, x, y)
    assert (diagnosis.code, diagnosis.phase) == ("SK201", "backward")
    assert diagnosis.op_type == "RealDiv"
    name = "test_diagnosis_models.py:"
    assert diagnosis.location.startswith(name)
    source = inspect.getsource(inspect.getmodule(_explain)).splitlines()
    assert "dy / (x - x)" in source[int(diagnosis.location[len(name) :]) - 1]


def test_a_python_function_stays_unknown(x, y):
    """What happens inside a `py_function` is not guessed at."""

    def opaque(t):
        out = tf.py_function(lambda a: a * np.nan, [t], tf.float32)
        return tf.ensure_shape(out, t.shape)

    model = _model(
        keras.layers.Dense(4),
        keras.layers.Lambda(opaque, name="opaque"),
        loss="mse",
    )
    diagnosis = _explain(model, x, np.ones((ROWS, 4), "float32"))
    assert (diagnosis.code, diagnosis.op_type) == ("SK000", "EagerPyFunc")
    assert diagnosis.layer == "opaque"
    assert any("64 NaN of 64" in fact for fact in diagnosis.evidence)


def test_what_only_the_compiler_breaks_is_said(x, y):
    """A failure of XLA alone is reported as that, not explained away."""

    def loss(y, p):
        # TensorFlow's kernel gives 0 for a gradient of 0, XLA 0 * Inf.
        return tf.reduce_mean(tf.sqrt(p * 0.0)) * 0.0

    model = _model(keras.layers.Dense(4), loss=loss, jit_compile=True)
    diagnosis = _explain(model, x, y, tripped=("gradient",))
    assert (diagnosis.code, diagnosis.title) == ("SK000", "not reproduced")
    said = " ".join(diagnosis.evidence)
    assert "compiled as in training, 2 of 3" in said


def test_random_layers_see_the_same_seeds(x, y):
    """The replayed loss is, to the bit, that of the step that follows."""
    model = _model(
        keras.layers.Dense(64), keras.layers.Dropout(0.5), loss="mse"
    )
    incident = Incident(0, 0, "stop", ("update",), batch=(x, y))
    losses = []
    for _ in range(2):
        trace = replay_step(model, incident)
        ((_, ref),) = trace.losses
        losses.append(trace.execution.values([ref])[ref])
    assert losses[0] == losses[1]
    assert float(losses[0]) == pytest.approx(
        float(model.train_on_batch(x, y)), rel=1e-6
    )


def test_the_first_infinity_in_time_is_not_blamed(x):
    """An overflow that recovers runs first, and is not what is named."""

    def loss(x):
        gate = 1.0 / (1.0 + tf.exp(-1000.0 * x))
        p = tf.nn.softmax(1000.0 * x)
        return tf.reduce_mean(gate) - tf.reduce_mean(tf.math.log(p))

    diagnosis = stablekeras.diagnose(loss, x)
    assert (diagnosis.code, diagnosis.op_type) == ("SK101", "Log")
    model = _model(keras.layers.Identity(), loss=lambda y, p: loss(p))
    trace = replay_step(model, Incident(0, 0, "stop", batch=(x, x)))
    first = next(n for n in trace.execution.nodes if n.is_bad)
    assert first.type == "Exp"
    assert explain(trace).op_type == "Log"


def test_a_healthy_function_has_no_diagnosis(x):
    """A finite value with a finite gradient is not diagnosed."""

    def loss(x):
        return tf.reduce_mean(tf.nn.log_softmax(1000.0 * x))

    assert stablekeras.diagnose(loss, x) is None


def test_functions_of_the_old_kind_run_as_one_op():
    """Keras' CTC holds loops that only TensorFlow 1 names: no obstacle."""
    series = np.ones((4, 10, 4), "float32")
    series[1, 2] = np.nan
    model = _model(
        keras.layers.Dense(5), loss=keras.losses.CTC(), shape=(10, 4)
    )
    labels = np.ones((4, 3), int)
    diagnosis = _explain(model, series, labels)
    assert (diagnosis.code, diagnosis.samples) == ("SK501", (1,))
    assert "at (1, 2, 0)" in diagnosis.cause


def test_a_loss_that_a_layer_adds(x, y):
    """A formula in `add_loss` is found with its layer and line."""

    class Adds(keras.layers.Layer):
        def call(self, x):
            length = tf.reduce_sum(x * x, axis=1) * 0.0
            self.add_loss(tf.reduce_mean(tf.sqrt(length)))
            return x

    model = _model(
        keras.layers.Dense(4, kernel_regularizer="l2"),
        Adds(name="adds"),
        keras.layers.Dense(1),
        loss="mse",
    )
    diagnosis = _explain(model, x, y)
    assert (diagnosis.code, diagnosis.layer) == ("SK401", "adds")
    assert diagnosis.location == _line(Adds.call, "tf.sqrt(length)")


def test_one_of_several_outputs(x, y):
    """The loss of one output is found among several, in dicts."""
    inputs = keras.Input((10,))
    outputs = {
        "good": keras.layers.Dense(1)(inputs),
        "bad": keras.layers.Dense(3, activation="softmax", name="head")(inputs),
    }
    model = keras.Model(inputs, outputs)
    model.compile("adam", {"good": "mse", "bad": _mean_log})
    x = x / 100.0
    x[[3, 8]] = 1e4
    diagnosis = _explain(model, x, {"good": y, "bad": np.ones((ROWS, 3))})
    assert (diagnosis.code, diagnosis.samples) == ("SK101", (3, 8))
    assert 'layer "head"' in " ".join(diagnosis.contributing)


def test_eager_code_in_a_step(x, y):
    """A step that asks tensors for their values is replayed all the same."""

    class Careful(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(1, name="head")

        def call(self, x):
            return self.head(x)

        def train_step(self, data):
            x, _ = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.sqrt(self(x) * 0.0))
            gradient = tape.gradient(loss, self.trainable_variables)
            if float(loss.numpy()) < 1e9:
                self.optimizer.apply(gradient, self.trainable_variables)
            return {"loss": loss}

    model = Careful()
    model.compile("sgd", run_eagerly=True)
    model(x)
    diagnosis = _explain(model, x, y)
    assert (diagnosis.code, diagnosis.samples) == ("SK401", tuple(range(ROWS)))
    assert diagnosis.location == _line(Careful.train_step, "tf.sqrt")


def test_a_statistic_that_a_layer_writes(x, y):
    """A moving variance that overflows is the layer's, not the optimizer's."""
    model = _model(
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dense(1),
        loss="mse",
    )
    x = x.copy()
    x[5] = 1e30
    diagnosis = _explain(model, x, y, tripped=("variable",))
    assert (diagnosis.code, diagnosis.layer) == ("SK310", "norm")
    assert 5 in diagnosis.samples
