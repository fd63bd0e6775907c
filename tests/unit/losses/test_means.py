"""Means of terms: overflow, 16 bits, and both directions of derivatives."""

import keras
import numpy as np
import pytest
from keras import ops as kops

from stablekeras import losses
from stablekeras.losses.means import mean_of_terms
from tests.accuracy.backends import DTYPES, MODES, derivatives
from tests.accuracy.formats import format_of

pytestmark = pytest.mark.backends

NAN, INF = float("nan"), float("inf")
MAX = float(np.finfo("float32").max)
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="asks for TensorFlow"
)


def squares(y_true, y_pred, factor=None):
    """The mean of `(p - y)**2`, which may be finite where a term is not."""
    return mean_of_terms(
        lambda y, p: kops.square(p - y),
        lambda scale, y, p: kops.sum(
            kops.square((p - y) * kops.sqrt(scale)), axis=-1
        ),
        y_true,
        y_pred,
        factor,
    )


def mean_and_slope(labels, predictions, mode, dtype="float32"):
    """Value, gradient and second derivative of the mean of squares."""
    p = np.asarray(predictions).astype(format_of(dtype).numpy)
    (result,) = derivatives(lambda x: squares(labels, x), [p], 1.0, mode)
    return result


@pytest.mark.parametrize("mode", MODES)
def test_one_term_beyond_the_largest_number_is_no_obstacle(mode):
    """The mean of four is below it; so is the gradient."""
    huge = 1.5 * 2.0**64
    value, slope, curve = mean_and_slope(
        np.zeros((1, 4)), [[huge, 0.0, 0.0, 0.0]], mode
    )
    assert value.tolist() == [2.25 * 2.0**126]
    assert slope.tolist() == [[huge / 2, 0.0, 0.0, 0.0]]
    assert curve.tolist() == [[0.5, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("mode", MODES)
def test_a_sum_beyond_the_largest_number_is_no_obstacle(mode):
    """Each term is below it, and the row beside is not touched."""
    size = 2.0**63.5
    p = np.array([[size] * 8, [3.0] * 8], "float32")
    value, slope, _ = mean_and_slope(np.zeros((2, 8)), p, mode)
    assert value[0] == pytest.approx(float(p[0, 0]) ** 2, rel=2e-7)
    assert value[1] == 9.0
    assert slope.tolist() == (p.astype("float64") / 4).tolist()


@pytest.mark.parametrize("mode", MODES)
def test_a_mean_beyond_the_largest_number_is_infinite(mode):
    """Nothing is capped."""
    value, _, _ = mean_and_slope(np.zeros((1, 2)), [[MAX, MAX]], mode)
    assert value.tolist() == [INF]


@pytest.mark.parametrize("mode", MODES)
def test_tiny_terms_keep_their_digits(mode):
    """Also where another row is computed anew."""
    p = np.array([[2.0**-60] * 4, [2.0**64, 0.0, 0.0, 0.0]], "float32")
    value, slope, _ = mean_and_slope(np.zeros((2, 4)), p, mode)
    assert value.tolist() == [2.0**-120, 2.0**126]
    assert slope.tolist() == (p / 2).tolist()


@pytest.mark.parametrize("mode", MODES)
def test_nan_stays_nan_in_its_row(mode):
    """It is neither hidden nor spread."""
    value, slope, _ = mean_and_slope(
        np.zeros((3, 2)), [[NAN, 1.0], [1.0, 3.0], [2.0**64, NAN]], mode
    )
    assert np.isnan(value[[0, 2]]).all()
    assert value[1] == 5.0
    assert np.isnan(slope[0, 0])
    assert slope[1].tolist() == [1.0, 3.0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_rounded_once(dtype, mode):
    """Squares above the largest float16, differences no 16 bits can hold."""
    p = [[256.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]
    y = np.array([[-256.0, 0.0, 0.0, 0.0], [1.0 + 2.0**-12] * 4], "float32")
    value, slope, _ = mean_and_slope(y, p, mode, dtype)
    # 512**2 / 4 is 2**16: in float16 beyond the largest number.
    assert value[0] == (INF if dtype == "float16" else 2.0**16)
    assert slope[0].tolist() == [256.0, 0.0, 0.0, 0.0]
    assert slope[1].tolist() == [-(2.0**-13)] * 4
    value, _, _ = mean_and_slope(y / 2, np.divide(p, 2), mode, dtype)
    assert value[0] == 2.0**14


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_answer_has_the_dtype_of_the_predictions(dtype):
    """Whatever that of the labels is."""
    p = kops.ones((2, 3), dtype=dtype)
    for labels in (np.zeros((2, 3), "int32"), np.zeros((2, 3), "float16")):
        value = squares(labels, p, factor=3.0)
        assert keras.backend.standardize_dtype(value.dtype) == dtype
        assert kops.convert_to_numpy(kops.cast(value, "float32")).tolist() == [
            3.0,
            3.0,
        ]


def test_labels_without_the_last_axis_get_it():
    """A label per row meets predictions of shape (n, 1)."""
    value = squares(np.array([1.0, 2.0]), np.zeros((2, 1), "float32"))
    assert np.asarray(kops.convert_to_numpy(value)).tolist() == [1.0, 4.0]


@pytest.mark.parametrize("mode", MODES)
def test_a_masked_entry_reaches_no_mean(mode):
    """NaN and infinity under a zero weight, beside a term that overflows."""
    loss = losses.MeanSquaredError(reduction="sum")
    weight = np.array([1.0, 0.0, 0.0], "float32")
    p = np.zeros((3, 4), "float32")
    p[:, 0] = 2.0**64, NAN, INF

    def weighted(x):
        return loss(np.zeros((3, 4)), x, sample_weight=weight)

    ((value, slope, curve),) = derivatives(weighted, [p], 1.0, mode)
    assert value == 2.0**126
    assert slope[0].tolist() == [2.0**63, 0.0, 0.0, 0.0]
    assert curve[0].tolist() == [0.5, 0.0, 0.0, 0.0]
    assert not slope[1:].any()
    assert not curve[1:].any()


@on_tensorflow
@pytest.mark.parametrize("compiled", [False, True])
def test_forward_mode_finds_the_tangent(compiled):
    """It is the gradient along the direction."""
    import tensorflow as tf

    def tangent(p):
        with tf.autodiff.ForwardAccumulator(p, tf.ones_like(p)) as forward:
            value = squares(np.zeros((1, 2)), p)
        return forward.jvp(value)

    if compiled:
        tangent = tf.function(tangent, autograph=False)
    assert tangent(tf.constant([[1.0, 5.0]])).numpy().tolist() == [6.0]
