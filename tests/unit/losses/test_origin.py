"""Which probabilities are traced back to logits, and which must not be."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from stablekeras import activations, losses, ops
from stablekeras.losses.origin import find_origin

LOGITS = np.array([[200.0, -200.0, 0.0], [0.0, 150.0, 1.0]], "float32")
LABELS = np.array([1, 0])
BITS = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]], "float32")


def by_hand(x):
    e = tf.exp(x)
    return e / tf.reduce_sum(e, -1, keepdims=True)


def by_hand_shifted(x):
    e = keras.ops.exp(x - keras.ops.max(x, axis=-1, keepdims=True))
    return e / keras.ops.sum(e, axis=-1, keepdims=True)


def narrow(dtype):
    return lambda x: tf.cast(tf.nn.softmax(tf.cast(x, dtype)), "float32")


def reshaped(x):
    return tf.reshape(tf.reshape(tf.nn.softmax(x), (1, 2, 3)), (-1, 3))


def squeezed(x):
    return tf.squeeze(tf.expand_dims(tf.nn.softmax(x), 1), 1)


def transposed(x):
    return tf.transpose(tf.nn.softmax(tf.transpose(x), axis=0))


def repeated(x):
    def exp():
        return tf.exp(x - tf.reduce_max(x, -1, keepdims=True))

    return exp() / tf.reduce_sum(exp(), -1, keepdims=True)


def new_axis(x):
    e = tf.exp(x)
    return e * (1 / tf.reduce_sum(e, -1)[:, tf.newaxis])


def log_sum(x):
    return tf.exp(x - tf.reduce_logsumexp(x, -1, keepdims=True))


def log_of_sum(x):
    total = tf.reduce_sum(tf.exp(x), -1, keepdims=True)
    return tf.exp(x - tf.math.log(total))


def twice(x):
    return tf.nn.softmax(tf.stack([x, 2 * x], 1))


def doubled(x):
    return tf.nn.softmax(tf.concat([x, 2 * x], 0))


def transposed_by_keras(x):
    p = keras.ops.softmax(keras.ops.transpose(x), axis=0)
    return keras.ops.transpose(p)


SOFTMAXES = {
    "tensorflow": tf.nn.softmax,
    "keras": keras.activations.softmax,
    "ours": activations.softmax,
    "by hand": by_hand,
    "by hand, shifted": by_hand_shifted,
    "float16": narrow("float16"),
    "bfloat16": narrow("bfloat16"),
    "reshaped": reshaped,
    "squeezed": squeezed,
    "transposed": transposed,
    "exp of log": lambda x: tf.exp(tf.nn.log_softmax(x)),
    "our operation": ops.softmax,
    "exp of our log": lambda x: tf.exp(ops.log_softmax(x)),
    "by hand, repeated": repeated,
    "by hand, new axis": new_axis,
    "minus logsumexp": log_sum,
    "minus log of sum": log_of_sum,
    "minus our logsumexp": lambda x: tf.exp(x - ops.logsumexp(x, -1, True)),
    "transposed by Keras": transposed_by_keras,
    "one step": lambda x: twice(x)[:, 0],
    "one step of three": lambda x: twice(x)[:, 0, :],
    "some rows": lambda x: doubled(x)[:2],
    "rows by number": lambda x: tf.gather(doubled(x), [0, 1]),
    "first half": lambda x: tf.split(doubled(x), 2)[0],
    "unstacked": lambda x: tf.unstack(twice(x), axis=1)[0],
    "joined": lambda x: tf.concat(
        [tf.nn.softmax(x[:1]), tf.nn.softmax(x[1:])], 0
    ),
    "stacked": lambda x: tf.stack([tf.nn.softmax(x[0]), tf.nn.softmax(x[1])]),
    "unchanged": lambda x: tf.ensure_shape(tf.nn.softmax(x), (2, 3)) * 1.0,
}
SIGMOIDS = {
    "tensorflow": tf.sigmoid,
    "keras": keras.activations.sigmoid,
    "ours": activations.sigmoid,
    "logistic": lambda x: 1 / (1 + tf.exp(-x)),
    "odds": lambda x: tf.exp(x) / (1 + tf.exp(x)),
    "tanh": lambda x: 0.5 * (1 + tf.tanh(x / 2)),
    "tanh, scaled": lambda x: 0.5 * (tf.tanh(0.5 * x) + 1),
    "complement": lambda x: 1 - tf.sigmoid(-x),
    "exp of log": lambda x: tf.exp(tf.math.log_sigmoid(x)),
    "branches": lambda x: tf.where(
        x >= 0, 1 / (1 + tf.exp(-x)), tf.exp(x) / (1 + tf.exp(x))
    ),
    "float16": lambda x: tf.cast(tf.sigmoid(tf.cast(x, "float16")), "float32"),
    "reshaped": lambda x: tf.reshape(tf.reshape(tf.sigmoid(x), (6,)), (2, 3)),
    "our operation": ops.sigmoid,
    "complement of ours": lambda x: 1 - ops.sigmoid(-x),
    "exp of our log": lambda x: tf.exp(ops.log_sigmoid(x)),
    "power": lambda x: (1 + tf.exp(-x)) ** -1,
    "columns": lambda x: tf.concat(
        [tf.sigmoid(x[:, :1]), tf.sigmoid(x)[:, 1:]], 1
    ),
    "one of two classes": lambda x: tf.nn.softmax(
        tf.stack([tf.zeros_like(x), x], -1)
    )[..., 1],
}
HIDDEN = {
    "scaled": lambda x: tf.nn.softmax(x) * 0.5,
    "masked": lambda x: tf.nn.softmax(x) * tf.constant([1.0, 1.0, 0.0]),
    "stopped": lambda x: tf.stop_gradient(tf.nn.softmax(x)),
    "shuffled": lambda x: tf.reshape(tf.nn.softmax(x), (3, 2)),
    "regularized": lambda x: (
        tf.exp(x) / (tf.reduce_sum(tf.exp(x), -1, keepdims=True) + 1e-3)
    ),
    "two plus": lambda x: 1 / (2 + tf.exp(-x)),
    "rounded": lambda x: tf.cast(tf.cast(tf.nn.softmax(x), "int32"), "float32"),
    "times a quotient": lambda x: tf.nn.softmax(x) * (x / (1 + tf.abs(x))),
}


def graph_step(form, loss):
    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(form(x))
        return value, tape.gradient(value, x)

    value, slope = step(tf.constant(LOGITS))
    return value.numpy(), tf.convert_to_tensor(slope).numpy()


@pytest.mark.parametrize("form", SOFTMAXES.values(), ids=SOFTMAXES)
def test_softmax_is_traced_back(form):
    """A saturated softmax gives the loss and gradient of its logits."""
    value, slope = graph_step(
        form, lambda p: losses.sparse_categorical_crossentropy(LABELS, p)
    )
    assert value.tolist() == [400.0, 150.0]
    np.testing.assert_allclose(
        slope, [[1, -1, 0], [-1, 1, 0]], atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("form", SIGMOIDS.values(), ids=SIGMOIDS)
def test_sigmoid_is_traced_back(form):
    """A saturated sigmoid gives the loss and gradient of its logits."""
    value, slope = graph_step(
        form, lambda p: losses.binary_crossentropy(BITS, p)
    )
    np.testing.assert_allclose(
        value, losses.binary_crossentropy(BITS, LOGITS, True), rtol=1e-6
    )
    assert abs(slope[0, 0]) == pytest.approx(1 / 3, rel=1e-3)


@pytest.mark.parametrize("form", HIDDEN.values(), ids=HIDDEN)
def test_what_is_no_softmax_is_not_taken_for_one(form):
    """What changes the values on the way hides the logits."""
    found = []

    @tf.function(autograph=False)
    def trace(x):
        origin = find_origin(form(x))
        found.append(origin is not None and "softmax" in origin.kinds)
        return x

    trace(tf.constant(LOGITS))
    assert found == [False]


def test_softmax_over_another_axis_is_normalized_again():
    """Shares along another axis are weights, whose logarithms are logits."""
    x = tf.constant([[1.0, 2.0], [3.0, 1.0]])
    p = tf.nn.softmax(x, axis=0).numpy()
    expected = -np.log(p[:, 0] / p.sum(1))

    @tf.function(autograph=False)
    def loss(x):
        return losses.sparse_categorical_crossentropy(
            [0, 0], tf.nn.softmax(x, axis=0)
        )

    np.testing.assert_allclose(loss(x), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("activation", "loss", "labels"),
    [
        (keras.activations.softmax, "SparseCategoricalCrossentropy", LABELS),
        (activations.softmax, "SparseCategoricalCrossentropy", LABELS),
        (ops.softmax, "SparseCategoricalCrossentropy", LABELS),
        (keras.activations.sigmoid, "BinaryCrossentropy", BITS),
        (activations.sigmoid, "BinaryCrossentropy", BITS),
        (ops.sigmoid, "BinaryCrossentropy", BITS),
    ],
)
def test_eager_activations_are_traced_back(activation, loss, labels):
    """In eager mode the logits that the activation attached are taken."""
    make = getattr(losses, loss)
    x = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = make()(labels, activation(x))
    expected = make(from_logits=True)(labels, LOGITS)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.abs(tape.gradient(value, x)).max() > 0.1


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "softmax", [keras.activations.softmax, activations.softmax, ops.softmax]
)
def test_a_softmax_is_not_taken_for_a_sigmoid(softmax, compiled):
    """Binary cross-entropy of a softmax is that of its probabilities."""
    x = tf.constant([[1.0, 2.0, 0.5]])
    expected = losses.binary_crossentropy(BITS[:1], softmax(x).numpy())

    def loss(x):
        return losses.binary_crossentropy(BITS[:1], softmax(x))

    if compiled:
        loss = tf.function(loss, autograph=False)
    np.testing.assert_allclose(loss(x), expected, rtol=1e-6)


def test_shares_that_are_no_softmax_any_more_keep_their_logits():
    """One column of a softmax is a sigmoid: 1 - p does not vanish in p = 1."""
    x = tf.constant([[50.0, -50.0, 0.0], [1.0, 2.0, 3.0]])

    @tf.function(autograph=False)
    def loss(x):
        p = tf.reshape(tf.nn.softmax(x)[:, 0], (2, 1))
        return losses.binary_crossentropy(tf.zeros((2, 1)), p)

    log_rest = np.log([np.exp(-50.0), 1 - 1 / (1 + np.e + np.e**2)])
    np.testing.assert_allclose(loss(x), -log_rest, rtol=1e-6)


def test_selection_goes_along_with_the_logits():
    """NaN logits of a masked row behind a softmax reach nothing."""

    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = losses.SparseCategoricalCrossentropy()
            value = loss(
                LABELS, tf.nn.softmax(x), sample_weight=tf.constant([1.0, 0.0])
            )
        return value, tape.gradient(value, x)

    x = LOGITS.copy()
    x[1] = np.nan
    value, slope = step(tf.constant(x))
    assert value == 200.0
    assert slope.numpy().tolist() == [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]]


def test_a_loss_inside_a_branch_looks_outside_it():
    """Probabilities made outside a `tf.cond` are traced back from inside."""

    @tf.function(autograph=False)
    def loss(x, on):
        p = tf.nn.softmax(x)
        return tf.cond(
            on,
            lambda: losses.sparse_categorical_crossentropy(LABELS, p),
            lambda: tf.zeros(2),
        )

    value = loss(tf.constant(LOGITS), tf.constant(True))
    assert value.numpy().tolist() == [400.0, 150.0]


def test_from_logits_of_a_softmax_warns_and_uses_its_logits():
    """As Keras: probabilities declared as logits are most likely a slip."""

    @tf.function(autograph=False)
    def loss(x):
        return losses.sparse_categorical_crossentropy(
            LABELS, tf.nn.softmax(x), from_logits=True
        )

    with pytest.warns(UserWarning, match="does not represent logits"):
        value = loss(tf.constant(LOGITS))
    assert value.numpy().tolist() == [400.0, 150.0]
