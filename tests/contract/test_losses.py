"""Every loss through one contract: signatures, saving, fit, modes."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from stablekeras import losses
from stablekeras.losses import registry

NAN = float("nan")
NAMES = [n for n in dir(keras.losses) if not n.startswith("_") and n != "Loss"]
RNG = np.random.default_rng(0)
# What each loss asks for: labels, predictions.
SHARES = np.array([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]], "float32")
ONE_HOT = np.array([[0, 1, 0], [1, 0, 0]], "float32")
VALUES = RNG.normal(size=(2, 3)).astype("float32")
SAMPLES = {
    "CTC": (
        np.array([[1, 2], [1, 0]]),
        RNG.normal(size=(2, 4, 3)).astype("float32"),
    ),
    "Circle": (np.array([1, 1]), VALUES / 4),
    "SparseCategoricalCrossentropy": (np.array([1, 0]), SHARES),
    "CategoricalGeneralizedCrossEntropy": (np.array([1, 0]), SHARES),
    "CosineSimilarity": (VALUES[::-1].copy(), VALUES),
}
PUBLIC = [getattr(losses, n) for n in losses.__all__]
BASES = (losses.Loss, losses.LossFunctionWrapper)
CLASSES = [x for x in PUBLIC if inspect.isclass(x) and x not in BASES]
FUNCTIONS = [
    x
    for x in PUBLIC
    if inspect.isfunction(x) and x.__name__ not in registry.__all__
]
IDS = [c.__name__ for c in CLASSES]


def sample(cls):
    return SAMPLES.get(cls.__name__, (ONE_HOT, SHARES))


def parameters(thing):
    found = inspect.signature(thing).parameters
    return [(p.name, p.default) for p in found.values() if p.name != "z_loss"]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_keras_signature(name):
    """The module can be swapped whole: same names, arguments, defaults."""
    ours, theirs = getattr(losses, name), getattr(keras.losses, name)
    assert name in losses.__all__
    assert parameters(ours) == parameters(theirs)
    assert inspect.isclass(ours) == inspect.isclass(theirs)


def test_z_loss_is_off_by_default():
    """The one addition is a keyword that defaults to nothing."""
    added = [
        x.__name__
        for x in (*CLASSES, *FUNCTIONS)
        if "z_loss" in inspect.signature(x).parameters
    ]
    assert sorted(added) == [
        "CategoricalCrossentropy",
        "SparseCategoricalCrossentropy",
        "categorical_crossentropy",
        "sparse_categorical_crossentropy",
    ]
    for x in (losses.CategoricalCrossentropy, losses.categorical_crossentropy):
        z = inspect.signature(x).parameters["z_loss"]
        assert (z.default, z.kind) == (0.0, z.KEYWORD_ONLY)


@pytest.mark.parametrize("cls", CLASSES, ids=IDS)
def test_losses_survive_serialization(cls):
    """A loss made from its own description computes the same."""
    loss = cls()
    again = losses.deserialize(losses.serialize(loss))
    assert type(again) is cls
    assert again.get_config() == loss.get_config()
    y_true, y_pred = sample(cls)
    assert float(again(y_true, y_pred)) == float(loss(y_true, y_pred))


@pytest.mark.parametrize("cls", CLASSES, ids=IDS)
def test_names_lead_to_our_losses(cls):
    """`get` returns ours for class names; `keras.Loss` accepts them."""
    found = losses.get(cls.__name__)
    assert type(found) is cls
    assert isinstance(found, keras.losses.Loss)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_functions_survive_serialization(function):
    """A function is found again by its name and its description."""
    assert losses.get(function.__name__) is function
    assert losses.deserialize(losses.serialize(function)) is function


@pytest.mark.parametrize(
    "name", ["bce", "kld", "mae", "mape", "mse", "msle", "MSE"]
)
def test_short_names_are_those_of_keras(name):
    """A short name leads to our function of the name Keras knows it by."""
    ours, theirs = losses.get(name), keras.losses.get(name)
    assert ours is getattr(losses, theirs.__name__)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("cls", CLASSES, ids=IDS)
def test_eager_and_compiled_agree(cls, dtype):
    """Eager and XLA give one value and gradient, in the class's dtype."""
    y_true, y_pred = sample(cls)
    x = tf.cast(y_pred, dtype)
    loss = cls()

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(y_true, x)
        return value, tape.gradient(value, x)

    value, slope = step(x)
    compiled = tf.function(step, jit_compile=True, autograph=False)
    jitted_value, jitted_slope = compiled(x)
    assert value.dtype == ("float64" if dtype == "float64" else "float32")
    assert slope.dtype == dtype
    tolerance = 1e-12 if dtype == "float64" else 3e-6
    np.testing.assert_allclose(value, jitted_value, rtol=tolerance)
    wide = {"float16": 2e-3, "bfloat16": 2e-2}.get(dtype, tolerance)
    np.testing.assert_allclose(
        tf.cast(slope, "float64"),
        tf.cast(jitted_slope, "float64"),
        rtol=wide,
        atol=tolerance,
    )


@pytest.mark.parametrize("cls", CLASSES, ids=IDS)
def test_zero_weight_rows_reach_nothing(cls):
    """A run with a NaN row of weight 0 equals the run without that row."""
    y_true, y_pred = sample(cls)
    bad = np.full_like(y_pred[:1], NAN)
    x = tf.constant(np.concatenate([y_pred, bad]))
    labels = np.concatenate([y_true, y_true[:1]])
    if labels.dtype.kind == "f":
        labels[-1] = NAN
    weight = np.array([1.0, 2.0, 0.0], "float32")
    kwargs = {"axis": 1} if cls in (losses.Dice, losses.Tversky) else {}
    loss = cls(reduction="sum", **kwargs)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(labels, x, sample_weight=weight)
    slope = tape.gradient(value, x).numpy()
    clean = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(clean)
        expected = loss(y_true, clean, sample_weight=weight[:2])
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(
        slope[:2], tape.gradient(expected, clean), rtol=1e-6, atol=1e-7
    )
    assert (slope[2] == 0).all()


def test_a_compiled_model_saves_and_loads_its_loss(tmp_path):
    """A `.keras` file brings back our class with its arguments."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(
        "sgd",
        losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=-1, z_loss=1e-4
        ),
    )
    x, y = np.ones((4, 3), "float32"), np.array([0, 1, -1, 1])
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.loss) is losses.SparseCategoricalCrossentropy
    assert again.loss.z_loss == 1e-4
    assert again.loss.ignore_class == -1
    assert again.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "policy", ["float32", "mixed_float16", "mixed_bfloat16"]
)
def test_fit_finds_the_logits_under_every_policy(policy, jit):
    """A saturated softmax head learns from its first step, and as a function.

    The logit of the right class is 60 below the other: through probabilities
    the loss would be at most 32, and its gradient 0.
    """
    expected = 60.0
    for loss in (
        losses.SparseCategoricalCrossentropy(),
        losses.sparse_categorical_crossentropy,
    ):
        head = keras.layers.Dense(2, activation="softmax", use_bias=False)
        model = keras.Sequential([keras.Input((1,)), head])
        model.dtype_policy = policy
        head.dtype_policy = policy
        head.set_weights([np.array([[0.0, 60.0]])])
        model.compile(keras.optimizers.SGD(1.0), loss, jit_compile=jit)
        x, y = np.ones((4, 1), "float32"), np.zeros(4, "int32")
        history = model.fit(x, y, verbose=0, batch_size=4)
        assert history.history["loss"][0] == pytest.approx(expected, rel=1e-3)
        moved = head.get_weights()[0] - [[0.0, 60.0]]
        np.testing.assert_allclose(moved, [[1.0, -1.0]], rtol=1e-2)


def test_one_trace_serves_all_batches():
    """A loss does not retrace for batches of one shape."""
    loss = losses.CategoricalCrossentropy(from_logits=True)
    traces = []

    @tf.function
    def step(y, x):
        traces.append(1)
        return loss(y, x)

    for k in range(3):
        step(tf.constant(ONE_HOT), tf.constant(VALUES * k))
    assert len(traces) == 1
