"""Trainings that die of the user's own formulas, until they are stabilized."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import stablekeras
from stablekeras.demo import tasks

log = tf.math.log
RNG = np.random.default_rng(7)
X = RNG.normal(size=(256, 6)).astype("float32") * 300
SIDE = (X @ RNG.normal(size=(6, 1)) > 0).astype("float32")
CLASS = np.eye(3, dtype="float32")[(X @ RNG.normal(size=(6, 3))).argmax(-1)]


def hand_sigmoid(z):
    return 1.0 / (1.0 + tf.exp(-z))


def hand_softmax(z):
    return tf.exp(z) / tf.reduce_sum(tf.exp(z), -1, keepdims=True)


def bad_loss(y, p):
    return -tf.reduce_mean(y * log(p) + (1 - y) * log(1 - p), -1)


def bad_classes(y, p):
    return -tf.reduce_sum(y * log(p), -1)


@pytest.fixture(autouse=True)
def _policy():
    yield
    keras.config.set_dtype_policy("float32")


def trained(loss, activation, units=1, *, labels=SIDE, change=None, **options):
    """Fits a linear model from a fixed seed; returns it and its history."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(units, activation=activation)]
    )
    model.compile(
        keras.optimizers.Adam(0.05), loss=loss, metrics=["accuracy"], **options
    )
    if change is not None:
        model = change(model)
    history = model.fit(X, labels, batch_size=64, epochs=4, verbose=0)
    return model, history.history


def stable_loss(y, z):
    return keras.losses.binary_crossentropy(y, z, from_logits=True)


def stable_classes(y, z):
    return keras.losses.categorical_crossentropy(y, z, from_logits=True)


@pytest.mark.parametrize(
    "policy", ["float32", "mixed_float16", "mixed_bfloat16"]
)
@pytest.mark.parametrize("jit", [False, True])
def test_the_textbook_model_learns(jit, policy):
    """Only `stabilize(bad_loss)` changed: it trains as the stable one does."""
    keras.config.set_dtype_policy(policy)
    loss = stablekeras.stabilize(bad_loss)
    model, history = trained(loss, hand_sigmoid, jit_compile=jit)
    _, wanted = trained(stable_loss, None, jit_compile=jit)
    np.testing.assert_allclose(history["loss"], wanted["loss"], rtol=2e-2)
    assert history["loss"][-1] < history["loss"][0]
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert {found.code for found in loss.rewrites} == {"SK102"}
    assert {found.location.split(":")[0] for found in loss.rewrites} == {
        "test_stabilize.py"
    }


def test_the_textbook_model_dies_without():
    """The scenario bites: the loss as written ends in NaN weights."""
    model, _ = trained(bad_loss, hand_sigmoid, jit_compile=False)
    assert not all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.parametrize("task", [tasks.cancer, tasks.digits])
def test_the_textbook_model_is_as_accurate(task):
    """On real data: as accurate as from logits, where it died as written."""
    task = task()
    activation, loss = task.by_hand
    stable = stable_loss if len(task.train[1][0]) == 1 else stable_classes

    def accuracy(loss, activation, predict):
        model = task.model((activation, loss), jit_compile=False)
        model.fit(*task.train, batch_size=32, epochs=20, verbose=0)
        finite = all(np.isfinite(w).all() for w in model.get_weights())
        predicted = predict(model(task.test[0], training=False).numpy())
        return finite, np.mean(predicted == predict(task.test[1]))

    def from_chances(p):
        return p > 0.5 if p.shape[-1] == 1 else p.argmax(-1)

    def from_logits(z):
        # Labels, which are 0 and 1, come here as well.
        if z.shape[-1] > 1:
            return z.argmax(-1)
        return z > 0.0

    _, wanted = accuracy(stable, None, from_logits)
    finite, found = accuracy(
        stablekeras.stabilize(loss), activation, from_chances
    )
    assert finite
    assert wanted > 0.8
    assert found == pytest.approx(wanted, abs=0.01)
    finite, died = accuracy(loss, activation, from_chances)
    assert not finite
    assert died < wanted - 0.2


@pytest.mark.parametrize("activation", ["softmax", hand_softmax, tf.nn.softmax])
def test_the_softmax_model_learns(activation):
    """Keras' softmax, TensorFlow's and a hand-written one are all found."""
    loss = stablekeras.stabilize(bad_classes)
    _, history = trained(loss, activation, 3, labels=CLASS, jit_compile=False)
    _, wanted = trained(
        stable_classes, None, 3, labels=CLASS, jit_compile=False
    )
    np.testing.assert_allclose(history["loss"], wanted["loss"], rtol=1e-4)
    assert [found.code for found in loss.rewrites] == ["SK101"]


def test_the_whole_model_is_stabilized():
    """`stabilize(model)` cures the step and leaves predictions unchanged."""
    model, history = trained(
        bad_loss, hand_sigmoid, change=stablekeras.stabilize, jit_compile=False
    )
    _, wanted = trained(stable_loss, None, jit_compile=False)
    np.testing.assert_allclose(history["loss"], wanted["loss"], rtol=1e-4)
    assert {found.code for found in model.rewrites} == {"SK102"}
    plain = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(1, activation=hand_sigmoid)]
    )
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        model.predict(X, verbose=0), plain.predict(X, verbose=0)
    )
    truth = np.mean(stable_loss(SIDE, logits(model)))
    assert model.evaluate(X, SIDE, verbose=0)[0] == pytest.approx(
        truth, rel=1e-4
    )


def logits(model):
    kernel, bias = model.get_weights()
    return X @ kernel + bias


class OwnStep(keras.Model):
    """A model that writes its loss into its own training step."""

    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(1, activation=hand_sigmoid)

    def call(self, x):
        return self.head(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(bad_loss(y, self(x, training=True)))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(
            zip(gradients, self.trainable_variables, strict=True)
        )
        return {"loss": loss}


def test_an_own_training_step_is_stabilized():
    """A `train_step` with its own tape is rewritten before it is derived."""
    keras.utils.set_random_seed(3)
    model = OwnStep()
    model.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    stablekeras.stabilize(model).fit(X, SIDE, epochs=2, verbose=0)
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert {found.code for found in model.rewrites} == {"SK102"}


def test_an_activation_can_be_stabilized():
    """As a layer's activation, the hand-written sigmoid is Keras' sigmoid."""
    activation = stablekeras.stabilize(hand_sigmoid)
    _, history = trained("mse", activation, jit_compile=False)
    _, wanted = trained("mse", "sigmoid", jit_compile=False)
    np.testing.assert_allclose(history["loss"], wanted["loss"], rtol=1e-4)
    assert {found.code for found in activation.rewrites} == {"SK305"}


def test_a_stable_loss_trains_bit_for_bit():
    """Stabilizing a stable loss changes no bit of a training."""
    loss = stablekeras.stabilize(stable_loss)
    model, history = trained(loss, None, jit_compile=False)
    twin, wanted = trained(stable_loss, None, jit_compile=False)
    assert loss.rewrites == []
    assert history["loss"] == wanted["loss"]
    for ours, theirs in zip(
        model.get_weights(), twin.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_it_is_saved_and_loaded_by_name(tmp_path):
    """A saved model finds the stabilized loss like any custom loss."""
    loss = stablekeras.stabilize(bad_classes)
    model, _ = trained(loss, "softmax", 3, labels=CLASS, jit_compile=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(
        tmp_path / "model.keras", custom_objects={"bad_classes": loss}
    )
    assert loaded.loss is loss
    np.testing.assert_array_equal(
        loaded.predict(X, verbose=0), model.predict(X, verbose=0)
    )


@pytest.mark.parametrize("steps", [1, 3])
def test_it_costs_no_trace(steps):
    """The loss is traced as often as the plain one, and not again."""

    def traced(wrap):
        traces = []

        def loss(y, p):
            traces.append(1)
            return bad_loss(y, p)

        model, _ = trained(
            wrap(loss),
            hand_sigmoid,
            jit_compile=False,
            steps_per_execution=steps,
        )
        first = len(traces)
        model.fit(X, SIDE, batch_size=64, epochs=2, verbose=0)
        return first, len(traces)

    plain, again = traced(lambda loss: loss)
    assert traced(stablekeras.stabilize) == (plain, again) == (plain, plain)
