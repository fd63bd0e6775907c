"""The wrapper: what it leaves alone, where it works, what it says."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import stablekeras
from stablekeras import ops as sk

log = tf.math.log
Z = np.array([[0.0, 150.0, 3.0], [1.0, 2.0, 3.0]], np.float32)
Y = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], np.float32)
LOSS = np.array([150.0, 1.4076059], np.float32)


def bad(y, z):
    """A cross-entropy as people write it."""
    return -tf.reduce_sum(y * log(tf.nn.softmax(z)), -1)


def shifted(z):
    e = tf.exp(z - tf.reduce_max(z, -1, keepdims=True))
    return e / tf.reduce_sum(e, -1, keepdims=True)


STABLE = {
    "cross-entropy from logits": lambda z: (
        keras.losses.categorical_crossentropy(Y, z, from_logits=True)
    ),
    "binary from logits": lambda z: keras.losses.binary_crossentropy(
        Y, z, from_logits=True
    ),
    "sigmoid cross-entropy": lambda z: tf.nn.sigmoid_cross_entropy_with_logits(
        Y, z
    ),
    "softplus": lambda z: tf.maximum(z, 0) + tf.math.log1p(tf.exp(-tf.abs(z))),
    "logsumexp": lambda z: tf.reduce_logsumexp(z, -1),
    "log softmax": lambda z: z - tf.reduce_logsumexp(z, -1, keepdims=True),
    "log softmax op": tf.nn.log_softmax,
    "shifted softmax": shifted,
    "double where": lambda z: tf.where(z > 0, log(tf.where(z > 0, z, 1)), 0),
    "guarded sqrt": lambda z: tf.sqrt(tf.reduce_sum(z**2, -1) + 1e-8),
    "squared error": lambda z: tf.reduce_mean((z - Y) ** 2),
    "huber": lambda z: keras.losses.huber(Y, z),
    "poisson": lambda z: keras.losses.poisson(Y, z + 1),
    "layer norm": lambda z: (
        (z - tf.reduce_mean(z, -1, keepdims=True))
        / tf.sqrt(tf.math.reduce_variance(z, -1, keepdims=True) + 1e-5)
    ),
    "attention": lambda z: tf.nn.softmax(z @ tf.transpose(z) / 8.0) @ z,
    "gaussian nll": lambda z: 0.5 * tf.exp(-z) * (z - 1) ** 2 + 0.5 * z,
    "gelu": keras.activations.gelu,
    "ours": lambda z: sk.log_softmax(z) + sk.softplus(z) + sk.logsumexp(z),
    "our norm": lambda z: sk.norm(z, axis=-1),
    "our loss": lambda z: stablekeras.losses.binary_crossentropy(
        Y, tf.sigmoid(z)
    ),
}


@pytest.mark.parametrize("fn", STABLE.values(), ids=STABLE.keys())
def test_a_stable_function_is_left_as_it_is(fn):
    """Nothing is replaced, and the result is the same bit for bit."""
    stable = stablekeras.stabilize(fn)
    got, wanted = stable(tf.constant(Z)), fn(tf.constant(Z))
    assert stable.rewrites == []
    np.testing.assert_array_equal(got, wanted)


def test_what_fills_up_diagonals_is_kept():
    """Diagonals side by side are filled up with 0, whose log is -inf."""

    def diagonals(z):
        p = tf.nn.softmax(z)
        return log(tf.linalg.diag_part(p, k=(-1, 1))) + log(p)

    stable = stablekeras.stabilize(diagonals)
    z = tf.constant([[0.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.5, 1.0, 0.25]])
    got, wanted = stable(z).numpy(), diagonals(z).numpy()
    assert len(stable.rewrites) == 1
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    assert np.isneginf(got).sum() == 2


def test_it_is_idempotent():
    """Stabilizing twice is stabilizing once."""
    once = stablekeras.stabilize(bad)
    assert stablekeras.stabilize(once) is once


def test_the_rewrites_say_what_and_where():
    """A rewrite has code, location, formula before and after."""
    loss = stablekeras.stabilize(bad)
    np.testing.assert_allclose(loss(Y, Z), LOSS, rtol=1e-6)
    (found,) = loss.rewrites
    assert found.code == "SK101"
    assert found.location.startswith("test_stabilize.py:")
    assert found.before == "log(softmax(z))"
    assert found.after == "log_softmax(z, axis=1)"
    assert str(found) == (
        f"SK101 {found.location}: log(softmax(z)) -> log_softmax(z, axis=1)"
    )


@pytest.mark.parametrize("jit", [False, True])
def test_it_works_under_tf_function(jit):
    """Under `tf.function`, compiled or not, and it is traced once."""
    traces = []

    @stablekeras.stabilize
    def loss(y, z):
        traces.append(1)
        return bad(y, z)

    @tf.function(jit_compile=jit)
    def step(y, z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = loss(y, z)
        return value, tape.gradient(value, z)

    for _ in range(3):
        value, gradient = step(tf.constant(Y), tf.constant(Z))
    np.testing.assert_allclose(value, LOSS, rtol=1e-6)
    np.testing.assert_allclose(gradient[0], [-1, 1, 0], atol=1e-7)
    assert len(traces) == 1


def test_it_is_traced_once_eagerly():
    """Repeated eager calls do not trace again; a new shape does once."""
    traces = []

    @stablekeras.stabilize
    def loss(y, z):
        traces.append(1)
        return bad(y, z)

    for rows in (2, 1, 2, 1):
        loss(tf.constant(Y[:rows]), tf.constant(Z[:rows]))
    count = len(traces)
    for _ in range(5):
        loss(tf.constant(Y), tf.constant(Z))
        loss(tf.constant(Y[:1]), tf.constant(Z[:1]))
    assert len(traces) == count <= 2


def hessian(fn, x):
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = fn(x)
        g = inner.gradient(y, x)
    return outer.gradient(g, x)


def test_second_derivatives_are_right():
    """The replaced formula can be derived twice."""
    fn = stablekeras.stabilize(lambda x: log(1 / (1 + tf.exp(-x))))
    x = tf.constant([-100.0, 0.0, 1.0, 100.0])
    p = 1 / (1 + np.exp(-np.array([-100.0, 0.0, 1.0, 100.0])))
    np.testing.assert_allclose(hessian(fn, x), -p * (1 - p), atol=1e-7)


def in_function(z):
    return tf.function(lambda p: log(p))(tf.nn.softmax(z))


def in_deep_function(z):
    inner = tf.function(lambda p: tf.function(lambda q: log(q))(p) * 2)
    return inner(tf.nn.softmax(z)) / 2


def in_map(z):
    return tf.map_fn(lambda row: log(tf.nn.softmax(row)), z)


def in_loop(z):
    total = tf.zeros_like(z)
    for _ in tf.range(2):
        total += log(tf.nn.softmax(z)) / 2
    return total


def in_branch(z):
    return tf.cond(
        tf.reduce_sum(z) > 0, lambda: log(tf.nn.softmax(z)), lambda: z
    )


def in_case(z):
    branches = [lambda: z, lambda: log(tf.nn.softmax(z))]
    return tf.switch_case(tf.constant(1), branches)


def in_vectorized_map(z):
    return tf.vectorized_map(lambda row: log(tf.nn.softmax(row)), z)


@pytest.mark.parametrize(
    "fn",
    [
        in_function,
        in_deep_function,
        in_map,
        in_loop,
        in_branch,
        in_case,
        in_vectorized_map,
    ],
)
def test_it_looks_into_functions_and_loops(fn):
    """Formulas in nested functions, branches and loops are replaced."""
    stable = stablekeras.stabilize(fn)
    z = tf.constant(Z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        y = stable(z)
    gradient = tape.gradient(y, z)
    np.testing.assert_allclose(y, tf.nn.log_softmax(z), rtol=1e-6)
    np.testing.assert_allclose(gradient[0], [1, -2, 1], atol=1e-6)
    assert {found.code for found in stable.rewrites} == {"SK101"}


def test_own_gradients_are_kept():
    """A function with a derivative of its own keeps it."""

    @tf.custom_gradient
    def reversed_gradient(x):
        return x * 1.0, lambda g: -2.0 * g

    fn = stablekeras.stabilize(
        lambda z: reversed_gradient(z) + log(tf.sigmoid(z))
    )
    z = tf.constant([-200.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(z)
        y = fn(z)
    np.testing.assert_allclose(y, [-400.0, -np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(y, z), [-1.0, -1.5], rtol=1e-6)


def test_structures_and_keywords_pass():
    """Dicts, tuples, keywords and Python values go in and come out."""

    @stablekeras.stabilize
    def fn(inputs, *, scale, name="x"):
        return {name: log(tf.sigmoid(inputs["z"])) * scale, "kept": scale}

    out = fn({"z": tf.constant([-200.0])}, scale=2.0)
    np.testing.assert_allclose(out["x"], [-400.0])
    assert float(out["kept"]) == 2.0


def test_any_keywords_pass():
    """Calls of other forms are traced by themselves."""

    @stablekeras.stabilize
    def fn(*args, scale=1.0, **names):
        return scale * log(tf.sigmoid(sum(args, *names.values())))

    z = tf.constant([-200.0])
    for args, names, wanted in (
        ((z,), {}, -200.0),
        ((z, z), {"scale": 0.5}, -200.0),
        ((z,), {"start": -50.0}, -250.0),
        ((z,), {}, -200.0),
    ):
        np.testing.assert_allclose(fn(*args, **names), [wanted])
    assert {found.code for found in fn.rewrites} == {"SK102"}


def test_variables_get_their_gradient():
    """A captured variable is derived by through the replaced formula."""
    w = tf.Variable([-300.0])
    fn = stablekeras.stabilize(lambda x: log(tf.sigmoid(w * x)))
    with tf.GradientTape() as tape:
        y = fn(tf.constant([1.0]))
    np.testing.assert_allclose(y, [-300.0])
    np.testing.assert_allclose(tape.gradient(y, w), [1.0])


def test_what_cannot_be_traced_runs_as_it_is():
    """The original is called, once warned, and the warning says why."""

    @stablekeras.stabilize
    def fn(x):
        return log(tf.sigmoid(tf.constant(x.numpy())))

    with pytest.warns(UserWarning, match="'fn' as it is: it cannot be traced"):
        first = fn(tf.constant([0.0]))
    np.testing.assert_allclose([first, fn(tf.constant([0.0]))], -np.log(2))
    assert fn.rewrites == []


def test_a_reason_is_one_line():
    """What AutoGraph reports over many lines is told in one."""

    @stablekeras.stabilize
    def fn(z):
        total = 0.0
        for _ in tf.range(2):
            total = total + z
        return total

    with pytest.warns(UserWarning, match="'fn' as it is") as caught:
        np.testing.assert_allclose(fn(tf.constant([1.0, 2.0])), [2.0, 4.0])
    (text,) = [str(w.message) for w in caught]
    assert "\n" not in text
    assert "has shape () before the loop" in text


def test_errors_of_the_function_are_its_own():
    """What the function raises, the stabilized function raises."""

    @stablekeras.stabilize
    def fn(x):
        raise KeyError("mine")

    with (
        pytest.warns(UserWarning, match="KeyError"),
        pytest.raises(KeyError, match="mine"),
    ):
        fn(tf.constant(1.0))


def test_it_takes_functions_only():
    """Anything that cannot be called is refused."""
    with pytest.raises(TypeError, match="fn must be a function"):
        stablekeras.stabilize(3.0)


def test_it_keeps_name_and_documentation():
    """The wrapper stands for the function by name."""
    loss = stablekeras.stabilize(bad)
    assert (loss.__name__, loss.__doc__) == ("bad", bad.__doc__)
    assert loss.__wrapped__ is bad


def test_loss_objects_can_be_stabilized():
    """A `keras.losses.Loss` is a function too."""
    loss = stablekeras.stabilize(keras.losses.CategoricalCrossentropy())

    @tf.function
    def step(z):
        return loss(Y, tf.cast(tf.nn.softmax(z), tf.float64))

    np.testing.assert_allclose(step(Z), LOSS.mean(), rtol=1e-6)
    assert [found.code for found in loss.rewrites] == ["SK101"]


def test_inner_tapes_see_the_original():
    """A gradient penalty is computed as before, not broken."""

    @stablekeras.stabilize
    def penalty(z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = tf.reduce_sum(tf.sin(z))
        return tf.reduce_sum(tape.gradient(y, z) ** 2)

    z = tf.constant([0.1, 0.5])
    np.testing.assert_allclose(penalty(z), np.sum(np.cos([0.1, 0.5]) ** 2))


@pytest.mark.parametrize("wrap", [lambda fn: fn, tf.function])
def test_an_inner_tape_differentiates_the_stand_in(wrap):
    """A step with its own tape is rewritten before it is differentiated."""

    def step(z, y):
        with tf.GradientTape() as tape:
            tape.watch(z)
            e = tf.exp(z)
            p = e / tf.reduce_sum(e, -1, keepdims=True)
            loss = -tf.reduce_sum(y * log(p))
        return loss, tape.gradient(loss, z)

    z = tf.constant([[-200.0, 0.0, 300.0]])
    y = tf.constant([[1.0, 0.0, 0.0]])
    stable = stablekeras.stabilize(step)
    loss, slope = wrap(stable)(z, y)
    assert loss.numpy() == 500.0
    np.testing.assert_allclose(slope, [[-1.0, 0.0, 1.0]], atol=1e-7)
    assert [found.code for found in stable.rewrites] == ["SK101"]
    assert not np.isfinite(wrap(step)(z, y)[1]).all()


def test_a_check_sees_what_is_computed():
    """`check_numerics` behind a replaced formula does not raise for it."""

    @stablekeras.stabilize
    def fn(z):
        return tf.debugging.check_numerics(log(tf.nn.softmax(z)), "bad") * 2

    np.testing.assert_allclose(fn(tf.constant([[0.0, 150.0]])), [[-300, 0]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="bad"):
        fn(tf.constant([[np.nan, 0.0]]))
