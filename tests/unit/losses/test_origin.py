"""Which probabilities are traced back to logits, and which must not be."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from stablekeras import activations, losses
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
}


def graph_step(form, loss):
    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(form(x))
        return value, tape.gradient(value, x)

    value, slope = step(tf.constant(LOGITS))
    return value.numpy(), slope.numpy()


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
        (keras.activations.sigmoid, "BinaryCrossentropy", BITS),
        (activations.sigmoid, "BinaryCrossentropy", BITS),
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


def test_eager_softmax_is_not_taken_for_a_sigmoid():
    """Binary cross-entropy of a softmax is that of its probabilities."""
    x = tf.constant([[1.0, 2.0, 0.5]])
    p = keras.activations.softmax(x)
    expected = losses.binary_crossentropy(BITS[:1], p.numpy())
    value = losses.binary_crossentropy(BITS[:1], p)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


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
