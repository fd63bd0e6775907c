"""Gradients where the formula's terms cancel, and sums that overflow."""

import functools

import numpy as np
import pytest
from mpmath import mp, mpf

from stablekeras import losses
from tests.accuracy.backends import DTYPES, MODES, derivatives

pytestmark = pytest.mark.backends

MAX = float(np.finfo("float32").max)
# A power under XLA takes a few ULP.
CLOSE = 1e-6


def value_and_slope(loss, labels, predictions, mode, dtype="float32"):
    """Value and gradient of one loss function at rows of predictions."""
    function = functools.partial(loss, np.asarray(labels))
    p = np.asarray(predictions, dtype)
    ((value, slope, curve),) = derivatives(function, [p], 1.0, mode)
    assert np.isfinite(curve).all()
    return value, slope


def across(y, p):
    """The gradient of minus the cosine, with more digits than can cancel."""
    with mp.workdps(60):
        y, p = ([mpf(float(v)) for v in x] for x in (y, p))
        dot, pp, yy = (
            mp.fsum(a * b for a, b in zip(u, v, strict=True))
            for u, v in ((y, p), (p, p), (y, y))
        )
        size = mp.sqrt(pp * yy)
        return [
            float((dot / pp * b - a) / size) for a, b in zip(y, p, strict=True)
        ]


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d[-2:] in "3264"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("y", "p"),
    [
        ([334.0, 4e-4, 0.035], [350.0, 1e-6, 0.11]),
        ([1.0725, 3.2437, -2.0], [1.0724, 3.2436, -2.0]),
        ([8000.0, 115.0, -9900.0], [-0.03, 7.6, 16747.0]),
        ([1.0, 1.0, 0.0], [1.0, 1.0, 1e-9]),
    ],
)
def test_cosine_gradient_does_not_cancel_near_parallel_vectors(
    y, p, mode, dtype
):
    """Each entry is right for itself, not only beside the largest."""
    y, p = (np.asarray([x], dtype) for x in (y, p))
    _, slope = value_and_slope(losses.cosine_similarity, y, p, mode, dtype)
    eps = np.finfo(dtype).eps
    expected = across(y[0], p[0])
    # What an ULP of the inputs changes is an ULP of the larger of the two.
    shares = np.abs(y[0]) / np.linalg.norm(y) + np.abs(p[0]) / np.linalg.norm(p)
    noise = 8 * eps * shares * (1 - p[0] ** 2 / np.sum(p**2) + eps)
    error = np.abs(slope[0] - expected)
    assert (
        error <= 16 * eps * np.abs(expected) + noise / np.linalg.norm(p)
    ).all()


@pytest.mark.parametrize("mode", MODES)
def test_cosine_gradient_of_one_entry_is_zero(mode):
    """A single number can only change its sign."""
    _, slope = value_and_slope(
        losses.cosine_similarity, [[0.3], [-7.0]], [[0.7], [1e-3]], mode
    )
    assert slope.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("q", [0.1, 0.5, 0.9, 0.999])
def test_generalized_crossentropy_gradient_of_a_small_probability(q, mode):
    """It is a power, not an exponential of a large logarithm."""
    p = np.float32(1e-12)
    loss = functools.partial(losses.categorical_generalized_cross_entropy, q=q)
    _, slope = value_and_slope(loss, [0], [[p, 1.0]], mode)
    expected = -(mpf(float(p)) ** (mpf(q) - 1))
    assert slope[0, 0] == pytest.approx(float(expected), rel=5e-7)
    assert slope[0, 1] == 0


@pytest.mark.parametrize("mode", MODES)
def test_generalized_crossentropy_below_the_floor_does_not_cancel(mode):
    """The value there is the true one, small q included."""
    p = np.float32(1e-15)
    loss = functools.partial(
        losses.categorical_generalized_cross_entropy, q=1e-3
    )
    value, _ = value_and_slope(loss, [0, 0], [[p, 1.0], [0.0, 1.0]], mode)
    q = mpf(0.001)
    expected = (1 - mpf(float(p)) ** q) / q
    assert value[0] == pytest.approx(float(expected), rel=CLOSE)
    assert value[1] == pytest.approx(1000.0, rel=CLOSE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 1.0), (0.01, 2.0)])
def test_tversky_gradient_of_a_found_pixel_does_not_cancel(alpha, beta, mode):
    """With a small alpha only little is left for it."""
    y = np.array([[1.0, 1.0, 0.0]], "float32")
    p = np.array([[0.5, 0.75, 1e-4]], "float32")
    loss = functools.partial(losses.tversky, alpha=alpha, beta=beta, axis=-1)
    _, slope = value_and_slope(loss, y, p, mode)
    t, small = mpf("1.25"), mpf(float(p[0, 2]))
    apart = mpf(alpha) * mpf("0.75") + mpf(beta) * small + mpf("1e-7")
    expected = -(alpha * t + apart) / (t + apart) ** 2
    assert slope[0, 0] == pytest.approx(float(expected), rel=CLOSE)
    assert slope[0, 1] == pytest.approx(float(expected), rel=CLOSE)


@pytest.mark.parametrize("mode", MODES)
def test_hinge_overflows_only_where_the_mean_does(mode):
    """One product above the largest number, in a mean below it."""
    y = np.array([[-(2.0**64), 1.0, 1.0, 1.0]], "float32")
    p = np.array([[2.0**64, -1.0, 0.0, 2.0]], "float32")
    value, slope = value_and_slope(losses.hinge, y, p, mode)
    assert value.tolist() == [2.0**126]
    assert slope[0].tolist() == [2.0**62, -0.25, -0.25, 0.0]


@pytest.mark.parametrize("mode", MODES)
def test_binary_crossentropy_of_labels_smoothed_to_one_half(mode):
    """The gradient at a small logit is a quarter of it."""
    loss = functools.partial(
        losses.binary_crossentropy, from_logits=True, label_smoothing=1.0
    )
    x = np.array([[1e-5], [-1e-20], [0.0], [200.0]], "float32")
    _, slope = value_and_slope(loss, np.ones((4, 1), "float32"), x, mode)
    expected = [[x[0, 0] / 4], [x[1, 0] / 4], [0.0], [0.5]]
    assert slope == pytest.approx(np.array(expected), rel=CLOSE, abs=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("from_logits", [True, False])
def test_smoothing_does_not_cancel_on_the_other_side(from_logits, mode):
    """Of a label of 1 the other class is left half the smoothing."""
    loss = functools.partial(
        losses.binary_crossentropy,
        from_logits=from_logits,
        label_smoothing=2.0**-12 * 1.1,
    )
    half = 2.0**-13 * 1.1
    x = np.array([[2.0**20 if from_logits else 1.0]], "float32")
    y = np.ones((1, 1), "float32")
    value, slope = value_and_slope(loss, y, x, mode)
    eps = 2.0**-23
    if from_logits:
        expected = half * 2.0**20, half
    else:
        expected = -2 * half * np.log(eps), half / eps**2 - (1 - half)
    assert value[0] == pytest.approx(expected[0], rel=2 * eps)
    assert slope[0, 0] == pytest.approx(expected[1], rel=2 * eps)


@pytest.mark.parametrize("mode", MODES)
def test_cosine_gradient_of_a_long_vector_does_not_underflow(mode):
    """However a compiler orders the products."""
    p = np.array([[-(2.0**118), 2.0**-23]], "float32")
    _, slope = value_and_slope(
        losses.cosine_similarity, np.array([[3.0, 4.0]]), p, mode
    )
    assert slope[0, 1] == pytest.approx(-0.8 * 2.0**-118, rel=CLOSE)


def test_cosine_of_one_entry_against_many_is_that_of_keras():
    """The length of one entry is its size."""
    p = np.array([[3.0, 4.0]], "float32")
    value = losses.cosine_similarity(np.array([[2.0]]), p)
    assert np.asarray(value)[0] == pytest.approx(-1.4, rel=CLOSE)


@pytest.mark.parametrize("mode", MODES)
def test_cosine_of_the_shortest_vectors_is_finite(mode):
    """The two scales of such a vector are finite together."""
    # Of rows of many lengths: constants would be folded.
    p = np.array([[-3.0, 4.0]] * 3, "float32")
    p *= np.array([[2.0**-125], [1.0], [2.0**-60]], "float32")
    y = np.array([[3.0, 4.0]] * 3, "float32")
    function = functools.partial(losses.cosine_similarity, y)
    # Its second derivative is above the largest number.
    ((value, slope, _),) = derivatives(function, [p], 1.0, mode, second=False)
    assert value == pytest.approx(np.full(3, -0.28), rel=CLOSE)
    assert np.isfinite(slope).all()
