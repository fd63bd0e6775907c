"""Tracing and running op by op: the same values, and no effects."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from stablekeras.graphs.badness import by_layer
from stablekeras.graphs.location import code_line, layer_path
from stablekeras.graphs.run import run
from stablekeras.graphs.trace import trace


def _values(fn, *args, **options):
    """Returns what a traced function gives when it is run op by op."""
    traced = trace(fn, args, **options)
    execution = run(traced, rows=len(args[0]))
    refs = [execution.ref(tensor) for _, tensor in traced.outputs]
    values = execution.values(refs)
    return [values[ref] for ref in refs], execution


X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


def _loop(x):
    _, total = tf.while_loop(
        lambda i, t: i < 4,
        lambda i, t: (i + 1, t * 1.5 + x),
        (tf.constant(0), tf.zeros_like(x)),
    )
    return total


def _branches(x):
    def one():
        return tf.switch_case(
            tf.constant(2), [lambda: x, lambda: x * 2, lambda: x * 3]
        )

    return tf.cond(tf.reduce_sum(x) > 1e9, lambda: x, one)


@tf.function
def _inner(x):
    return tf.nn.softmax(x) + 1.0


@tf.function(jit_compile=True)
def _compiled(x):
    return tf.exp(x) * 2.0


@tf.custom_gradient
def _custom(x):
    return tf.square(x), lambda dy: dy * 5.0


def _python_control_flow(x):
    total = tf.constant(0.0)
    for i in tf.range(3):
        if tf.reduce_sum(x) < 1e9:
            total += tf.cast(i, tf.float32) * tf.reduce_mean(x)
    return total


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: tf.matmul(x, x, transpose_b=True),
        lambda x: tf.einsum("ij,kj->ik", x, x),
        lambda x: tf.split(x, 2, axis=1)[1],
        lambda x: tf.map_fn(lambda row: row / tf.norm(row), x),
        lambda x: tf.vectorized_map(lambda row: tf.reduce_max(row), x),
        lambda x: tf.cast(tf.cast(x, tf.bfloat16), tf.float32),
        lambda x: tf.boolean_mask(x, x > 0),
        lambda x: tf.linalg.eigvalsh(tf.matmul(x, x, transpose_a=True)),
        _loop,
        _branches,
        _inner,
        _compiled,
        _custom,
        _python_control_flow,
    ],
    ids=range(14),
)
def test_values_and_gradients_are_those_of_eager(fn):
    """Whatever the control flow, op by op gives what eager mode gives."""

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = fn(x)
        return value, tape.gradient(value, x)

    (value, gradient), _ = _values(step, X)
    expected = step(tf.constant(X))
    np.testing.assert_allclose(value, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-6)


def test_writes_go_to_copies_and_are_read_back():
    """A variable keeps its value, and later reads see what was written."""
    variable = tf.Variable(1.0)

    def fn(x):
        variable.assign_add(2.0)
        first = variable.read_value()
        variable.assign(first * 10.0)
        return first, variable.read_value() + 0.0 * x[0, 0]

    (first, second), execution = _values(fn, X)
    assert (first, second) == (3.0, 30.0)
    assert variable.numpy() == 1.0
    assert len(execution.writes) == 2


def test_nothing_is_printed_checked_or_pulled(capfd):
    """Ops that act outside do not run."""
    ran = []

    def fn(x):
        tf.print("loud")
        tf.debugging.assert_less(x, -1e9)
        return x * 2.0

    (value,), _ = _values(fn, X)
    np.testing.assert_array_equal(value, X * 2)
    captured = capfd.readouterr()
    assert "loud" not in captured.out + captured.err
    assert ran == []


def test_unseeded_randomness_is_the_same_when_values_are_fetched():
    """What a run measured is what is fetched from it afterwards."""

    def fn(x):
        return tf.random.uniform((3,)) + 0.0 * x[0, :3]

    traced = trace(fn, (X,))
    execution = run(traced)
    ref = execution.ref(traced.outputs[0][1])
    value = execution.values([ref])[ref]
    assert execution.measured(ref).stats.max == value.max()
    assert execution.measured(ref).stats.min == value.min()


def test_an_op_that_raises_ends_the_run():
    """The error is kept with its op, and what ran before it stays."""

    def fn(x):
        y = tf.reduce_sum(x)
        return y + tf.linalg.inv(tf.zeros((2, 2)))[0, 0]

    execution = run(trace(fn, (X,)))
    assert execution.error.type == "MatrixInverse"
    assert "not invertible" in execution.error.error
    assert any(node.type == "Sum" for node in execution.nodes)


def test_hooks_are_taken_off_again():
    """Keras and TensorFlow are as they were, also after an error."""
    call, gradient = keras.Layer.__call__, tf.GradientTape.gradient

    def broken(x):
        raise RuntimeError("as it were")

    with pytest.raises(RuntimeError, match="as it were"):
        trace(broken, (X,))
    assert keras.Layer.__call__ is call
    assert tf.GradientTape.gradient is gradient


def test_rows_are_followed_through_reshapes_and_transposes():
    """A row keeps its number where the batch axis moves or is merged."""

    def fn(x):
        merged = tf.reshape(x, (-1,))
        turned = tf.transpose(tf.reshape(merged, (6, 2, 2)), (1, 2, 0))
        return tf.math.log(turned)

    x = np.abs(X) + 1.0
    x[[1, 4], 2] = 0.0
    _, execution = _values(fn, x)
    (log,) = (node for node in execution.nodes if node.type == "Log")
    assert log.outputs[0].stats.rows == (1, 4)


def test_line_and_layer_of_an_op():
    """An op knows the user's line and the path of layers that made it."""

    class Inner(keras.layers.Layer):
        def call(self, x):
            return tf.sqrt(x)  # here

    inputs = keras.Input((4,))
    block = keras.Sequential([Inner(name="root")], name="block")
    model = keras.Model(inputs, block(inputs))
    _, execution = _values(lambda x: model(x), np.abs(X))
    (sqrt,) = (node for node in execution.nodes if node.type == "Sqrt")
    assert layer_path(execution.traced, sqrt) == "block/root"
    name, _, line = code_line(sqrt.op).partition(":")
    assert name == "test_run.py"
    with open(__file__) as file:
        assert "# here" in file.readlines()[int(line) - 1]


def test_badness_by_layer_and_direction():
    """Entries that are not finite are counted for each layer and pass."""

    class Root(keras.layers.Layer):
        def call(self, x):
            return tf.sqrt(x)

    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Rescaling(0.0), Root(name="root")]
    )

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(model(x))
        return tape.gradient(value, x)

    _, execution = _values(step, X)
    counts = {key[:2]: key[2:] for key in by_layer(execution)}
    assert counts["root", "forward"] == (0, 24)
    assert counts["root", "backward"] == (24, 24)
    assert counts["loss", "forward"][0] == 0


def test_code_that_asks_for_values_is_given_them():
    """`numpy()`, `float()` and `if` see the values of this run."""
    seen = []

    def fn(x):
        total = tf.reduce_sum(x)
        seen.append(float(total.numpy()))
        if total < 1e9 and float(total) < 1e9:
            return total * 2.0
        return total

    (value,), _ = _values(fn, X)
    assert seen[-1] == pytest.approx(float(X.sum()), rel=1e-6)
    assert value == pytest.approx(2 * seen[-1], rel=1e-6)


def test_an_error_of_the_function_itself_is_its_own():
    """What fails whichever way it is traced raises what it first raised."""
    with pytest.raises(ValueError, match="Dimensions must be equal"):
        trace(lambda x: tf.matmul(x, x), (X,))
    with pytest.raises(AttributeError, match="no_such_name"):
        trace(lambda x: x.no_such_name, (X,))


def test_a_function_that_ran_before_is_traced_like_any_other():
    """Layers and derivatives are known inside a `tf.function` as well."""
    layer = keras.layers.Lambda(lambda t: tf.sqrt(t * 0.0), name="root")

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(layer(x))
        return tape.gradient(value, x)

    step(tf.constant(X))
    kind = type(step)
    call = kind.__call__
    _, execution = _values(step, X)
    assert kind.__call__ is call
    counts = {key[:2]: key[2:] for key in by_layer(execution)}
    assert counts["root", "forward"][0] == 0
    assert counts["root", "backward"][0] > 0
