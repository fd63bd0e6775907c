"""The base class: dtypes, selection, reduction."""

import keras
import numpy as np
import pytest

from stablekeras import losses
from tests.accuracy.backends import DTYPES, derivatives

pytestmark = pytest.mark.backends

NAN, INF = float("nan"), float("inf")
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="asks for TensorFlow"
)
with_float64 = pytest.mark.skipif(
    "float64" not in DTYPES, reason="this backend has no float64"
)


class Squared(losses.Loss):
    """A loss of one's own, one value per entry."""

    def call(self, y_true, y_pred):
        return (y_true - y_pred) ** 2


class Summed(losses.Loss):
    """A loss of one's own, one value per row."""

    def call(self, y_true, y_pred):
        return keras.ops.sum((y_true - y_pred) ** 2, axis=-1)


def step(loss, y_true, y_pred, weight=None):
    """Value and gradient by the predictions."""
    weight = None if weight is None else np.asarray(weight, "float32")

    def of_predictions(x):
        return loss(y_true, x, sample_weight=weight)

    ((value, slope, _),) = derivatives(
        of_predictions, [np.asarray(y_pred)], 1.0, "eager", second=False
    )
    return value, slope


@pytest.mark.parametrize("kind", [Squared, Summed])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_zero_weight_rows_are_selected_away(kind, columns):
    """NaN in a row of weight 0 reaches neither value nor gradient."""
    y_pred = np.ones((2, columns), "float32")
    y_pred[0] = NAN
    weight = np.array([0.0, 1.0], "float32")
    if kind is Squared:
        weight = weight[:, None]
    value, slope = step(kind(), np.zeros((2, columns)), y_pred, weight)
    assert value == (0.5 if kind is Squared else columns / 2)
    assert (slope[0] == 0).all()
    assert np.isfinite(slope).all()


def test_weights_of_columns_are_read_as_keras_reads_them():
    """A vector of weights meets the last axis of entrywise losses."""
    y_pred = np.array([[NAN, 1.0], [NAN, 3.0]], "float32")
    value, slope = step(Squared(), np.zeros((2, 2)), y_pred, [0.0, 1.0])
    assert value == 2.5
    assert slope.tolist() == [[0.0, 0.5], [0.0, 1.5]]


def test_labels_that_are_nan_are_selected_away():
    """A NaN label under weight 0 reaches neither value nor gradient."""
    labels = np.array([[NAN], [1.0]])
    value, slope = step(
        losses.MeanSquaredError(), labels, np.zeros((2, 1), "float32"), [0, 1]
    )
    assert value == 0.5
    assert slope.tolist() == [[0.0], [-1.0]]


@on_tensorflow
@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("sum_over_batch_size", 1.0),
        ("sum", 2.0),
        ("mean_with_sample_weight", 1.0),
    ],
)
def test_masked_steps_are_selected_away(reduction, expected):
    """NaN at a masked step changes nothing; the mean is over the others."""
    import tensorflow as tf

    y_pred = tf.constant([[[1.0], [NAN]], [[INF], [1.0]]])
    y_pred._keras_mask = tf.constant([[True, False], [False, True]])
    loss = losses.MeanSquaredError(reduction=reduction)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(np.zeros((2, 2, 1)), y_pred)
    slope = tape.gradient(value, y_pred).numpy()
    assert value.numpy() == expected
    assert np.isfinite(slope).all()
    assert slope[0, 1] == slope[1, 0] == 0


def test_nan_that_counts_stays_nan():
    """A NaN prediction with a weight is not hidden."""
    value, _ = step(losses.MeanSquaredError(), [[0.0]], np.array([[NAN]]))
    assert np.isnan(value)


@with_float64
@pytest.mark.parametrize(
    ("given", "asked", "expected"),
    [
        ("float64", None, "float64"),
        ("float32", None, "float32"),
        ("float16", None, "float32"),
        ("bfloat16", None, "float32"),
        ("float32", "float16", "float16"),
        ("float64", "float32", "float32"),
        ("float16", "float64", "float64"),
    ],
)
def test_dtype_of_the_result(given, asked, expected):
    """Float64 stays; 16 bits are computed wider; `dtype` decides."""
    loss = losses.MeanSquaredError(dtype=asked)
    y_pred = keras.ops.cast([[0.5]], given)
    value = loss([[0.0]], y_pred)
    assert keras.backend.standardize_dtype(value.dtype) == expected


@with_float64
def test_float64_is_not_narrowed():
    """1e30 squared is finite in float64."""
    value = losses.MeanSquaredError()([[0.0]], np.array([[2.0**500]]))
    assert value == 2.0**1000


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", None])
@pytest.mark.parametrize("label", [257, 2049, 2**24 + 1])
def test_class_numbers_are_never_rounded(dtype, label):
    """A label is the class it names, whatever the dtype of the loss."""
    loss = losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=label, dtype=dtype
    )
    logits = np.zeros((2, 4), "float32")
    ignored = float(loss(np.array([label, 1]), logits))
    assert ignored == pytest.approx(np.log(4), rel=1e-2)
    narrow = losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=None, dtype=dtype
    )
    wide = np.zeros((1, 2050), "float32")
    wide[0, min(label, 2049)] = 50.0
    assert float(narrow(np.array([min(label, 2049)]), wide)[0]) < 1e-3


def test_means_overflow_only_where_the_truth_does():
    """A sum beyond the largest number is no obstacle to its mean."""
    y_pred = np.full((4, 1), 3e38, "float32")
    value, slope = step(losses.MeanAbsoluteError(), np.zeros((4, 1)), y_pred)
    assert value == np.float32(3e38)
    assert slope.ravel().tolist() == [0.25] * 4


def test_config_keeps_every_argument():
    """What Keras drops (axis, delta, dtype) survives a round trip."""
    loss = losses.CosineSimilarity(axis=1, dtype="float16")
    again = losses.CosineSimilarity.from_config(loss.get_config())
    assert (again.axis, again.dtype) == (1, "float16")
    assert losses.Huber.from_config(losses.Huber(2.0).get_config()).delta == 2.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.MeanSquaredError(reduction="abc"), "Invalid value"),
        (lambda: losses.Huber(delta=0.0), "delta must be finite and > 0"),
        (lambda: losses.BinaryCrossentropy(label_smoothing=2), r"in \[0, 1\]"),
        (lambda: losses.CategoricalFocalCrossentropy(gamma=-1), "gamma must"),
        (lambda: losses.CategoricalCrossentropy(axis=True), "of type `int`"),
        (lambda: losses.CategoricalCrossentropy(z_loss=-1.0), "z_loss must"),
        (
            lambda: losses.CategoricalGeneralizedCrossEntropy(q=1.0),
            "q must be in the interval",
        ),
        (lambda: losses.Circle(gamma=NAN), "gamma must be finite"),
        (lambda: losses.Tversky(alpha=-1), "alpha must be finite"),
        (lambda: losses.get("typo"), "must name a loss"),
        (
            lambda: losses.categorical_crossentropy(
                [[1, 0]], np.array([[0.5, 0.5]]), z_loss=1.0
            ),
            "z_loss needs logits",
        ),
        (
            lambda: losses.binary_crossentropy([[1]], np.ones((1, 2))),
            "must have the same shape",
        ),
    ],
)
def test_bad_arguments_get_rule_received_remedy(make, message):
    """Each bad argument is named, with what was received and the way out."""
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "Received:" in str(caught.value)


FUNCTIONS = [
    name
    for name in losses.__all__
    if name[0].islower() and name not in ("get", "serialize", "deserialize")
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_names_find_what_keras_would_find(name):
    """`deserialize` and `get` take bare and registered names of functions."""
    function = getattr(losses, name)
    for find in (losses.get, losses.deserialize):
        assert find(name) is function
        assert find(f"stablekeras>{name}") is function


def test_names_of_classes_give_losses():
    """A class is found under both of its names, and made."""
    for name in ("Huber", "stablekeras>Huber"):
        assert type(losses.get(name)) is losses.Huber
        assert type(losses.deserialize(name)) is losses.Huber
    with pytest.raises(ValueError, match="Received: identifier='stablekeras>H"):
        losses.get("stablekeras>Hubert")


def test_arrays_and_tuples_survive_a_round_trip():
    """One alpha per class and several axes are loaded as they were given."""
    alpha = np.array([0.1, 0.2])
    loss = losses.CategoricalFocalCrossentropy(alpha=alpha)
    for again in (
        losses.CategoricalFocalCrossentropy.from_config(loss.get_config()),
        losses.deserialize(losses.serialize(loss)),
    ):
        assert again.alpha.tolist() == alpha.tolist()
    dice = losses.Dice(axis=(1, 2))
    assert losses.Dice.from_config(dice.get_config()).axis == (1, 2)


@pytest.mark.parametrize("name", ["CosineSimilarity", "CTC", "Circle"])
def test_an_empty_batch_has_no_losses(name):
    """The last share of a batch may hold no rows."""
    loss = getattr(losses, name)(reduction=None)
    shape = {"CTC": (0, 4, 3)}.get(name, (0, 3))
    y_true = {"CTC": np.zeros((0, 2)), "Circle": np.zeros((0,))}
    y_true = y_true.get(name, np.zeros(shape))
    assert tuple(loss(y_true, np.zeros(shape, "float32")).shape) == (0,)


def test_a_circle_loss_of_nan_is_not_masked():
    """An embedding of NaN shows in every row that has it as a partner."""
    y_pred = np.eye(4, dtype="float32")
    y_pred[1] = NAN
    value = losses.Circle(reduction=None)([0, 1, 0, 1], y_pred)
    assert np.isnan(np.asarray(value)).all()


@on_tensorflow
@pytest.mark.parametrize(
    "name", ["BinaryCrossentropy", "BinaryFocalCrossentropy"]
)
def test_a_float16_chance_of_one_has_a_finite_gradient(name):
    """Where `1 / (1 - p)` does not fit, the largest float16 stands for it."""
    y_pred = np.array([[1.0], [0.0]], "float16")
    _, slope = step(getattr(losses, name)(), [[0.0], [1.0]], y_pred)
    assert slope.ravel().tolist() == [65504.0, -65504.0]


@on_tensorflow
@pytest.mark.parametrize(
    "name", ["BinaryCrossentropy", "CategoricalCrossentropy"]
)
def test_an_overflow_of_float16_logits_shows(name):
    """A search for a loss scale sees that the scale is too large."""
    import tensorflow as tf

    x = tf.constant([[-1.0, 2.0]], "float16")
    loss = getattr(losses, name)(from_logits=True)
    with tf.GradientTape() as tape:
        tape.watch(x)
        scaled = loss([[1.0, 0.0]], x) * 2.0**20
    assert np.isinf(tape.gradient(scaled, x).numpy()).all()


@pytest.mark.parametrize("axis", [None, (0, 2), [-1], (0, 1, 2)])
def test_cosines_of_several_axes_are_those_of_keras(axis):
    """Several axes make one vector, and survive a round trip."""
    rng = np.random.default_rng(3)
    y_true, y_pred = rng.normal(size=(2, 2, 3, 4)).astype("float32")
    loss = losses.CosineSimilarity(axis=axis, reduction=None)
    again = losses.deserialize(losses.serialize(loss))
    twin = keras.losses.CosineSimilarity(axis=axis, reduction=None)
    expected = np.asarray(twin(y_true, y_pred))
    np.testing.assert_allclose(loss(y_true, y_pred), expected, rtol=1e-5)
    np.testing.assert_allclose(again(y_true, y_pred), expected, rtol=1e-5)


def test_an_axis_that_is_no_number_is_refused():
    """A cosine has axes that are integers."""
    with pytest.raises(ValueError, match=r"Received: axis=\(0, 0.5\)"):
        losses.CosineSimilarity(axis=(0, 0.5))


def test_weights_of_predictions_with_one_dimension_more_than_labels():
    """Predictions are squeezed before weights are laid over them."""
    y_pred = np.array([[[NAN], [1.0]], [[2.0], [3.0]]], "float32")
    value, slope = step(
        losses.MeanSquaredError(), np.zeros((2, 2)), y_pred, [0.0, 1.0]
    )
    assert value == 3.25
    assert slope.tolist() == [[[0.0], [0.0]], [[1.0], [1.5]]]


@pytest.mark.parametrize("rows", [2, 3])
def test_labels_that_all_rows_share_are_selected_along_columns(rows):
    """A vector of labels meets the columns, with weights as without."""
    labels = np.array([10.0, 20.0], "float32")
    y_pred = np.arange(2.0 * rows, dtype="float32").reshape(rows, 2)
    y_pred[0] = NAN
    weight = np.arange(rows)
    value, slope = step(
        losses.MeanAbsoluteError(reduction="sum"), labels, y_pred, weight
    )
    row_losses = np.abs(y_pred - labels).mean(-1)
    assert value == np.sum(row_losses[1:] * weight[1:])
    assert (slope[0] == 0).all()


@pytest.mark.parametrize(
    "name",
    [
        "BinaryCrossentropy",
        "BinaryFocalCrossentropy",
        "CategoricalCrossentropy",
        "CategoricalFocalCrossentropy",
    ],
)
def test_weights_do_not_let_labels_broadcast(name):
    """What is refused without weights is refused with them."""
    y_true, y_pred = np.ones((1, 2)), np.full((3, 2), 0.5, "float32")
    for weight in (None, np.ones(3)):
        with pytest.raises(ValueError, match="must have the same shape"):
            getattr(losses, name)()(y_true, y_pred, sample_weight=weight)


@on_tensorflow
@pytest.mark.parametrize("dtype", ["uint8", "uint32", "uint64"])
def test_the_largest_number_of_a_label_dtype_can_be_ignored(dtype):
    """The usual mark of a void pixel is the largest unsigned number."""
    void = int(np.iinfo(dtype).max)
    loss = losses.SparseCategoricalCrossentropy(
        ignore_class=void, reduction="sum"
    )
    y_pred = np.array([[0.5, 0.5], [NAN, NAN]], "float32")
    value, slope = step(loss, np.array([1, void], dtype), y_pred)
    assert value == pytest.approx(np.log(2))
    np.testing.assert_allclose(slope, [[1, -1], [0, 0]], rtol=1e-6)
