"""The slopes of the focal cross-entropies where a formula loses them."""

import keras
import mpmath
import numpy as np
import pytest

from stablekeras import losses
from tests.accuracy.backends import MODES, derivatives

pytestmark = pytest.mark.backends

# Below the floor and above, on either side.
HARD = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
P = np.array([0.0, 1e-20, 1e-10, 0.75, 0.0, 1e-20, 1e-10, 0.25, 1.0])


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("mode", MODES)
def test_a_soft_label_leaves_the_slopes_of_hard_ones(mode, gamma):
    """Hard labels have the same slope alone and beside a soft label."""

    def slopes(labels, p):
        y = np.asarray(labels, "float32")[:, None]
        x = np.asarray(p, "float32")[:, None]
        ((_, slope, _),) = derivatives(
            lambda x: losses.binary_focal_crossentropy(y, x, gamma=gamma),
            [x],
            1.0,
            mode,
        )
        return slope[:, 0]

    beside = slopes([*HARD, 0.25], [*P, 0.0771])
    np.testing.assert_allclose(beside[:-1], slopes(HARD, P), rtol=1e-6)
    assert beside[-1] != 0


@pytest.mark.parametrize("mode", MODES)
def test_the_slope_of_a_small_probability_is_not_that_of_the_floor(mode):
    """Under a label of 0 the loss is exact at any probability."""
    y, p = np.array([[0.0], [0.5]]), np.array([[1e-20], [0.25]], "float32")
    ((_, slope, _),) = derivatives(
        lambda x: losses.binary_focal_crossentropy(y, x, gamma=0.5),
        [p],
        1.0,
        mode,
    )
    assert slope[0, 0] == pytest.approx(1.5e-10, rel=1e-6)


def value_and_slope(labels, predictions, mode, **arguments):
    """The loss of single predictions and its slope; nothing is NaN."""
    y = np.asarray(labels, "float32")[:, None]
    x = np.asarray(predictions, "float32")[:, None]
    loss = losses.binary_focal_crossentropy
    value, slope = _checked(loss, y, x, mode, **arguments)
    return value, slope[:, 0]


def _checked(loss, y, x, mode, **arguments):
    ((value, slope, curve),) = derivatives(
        lambda x: loss(y, x, **arguments), [x], 1.0, mode
    )
    assert np.isfinite(curve).all()
    return value, slope


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_the_slope_at_the_largest_logits_is_finite(gamma, mode):
    """There `gamma` times the loss is beyond the largest number."""
    largest = float(np.finfo("float32").max)
    value, slope = value_and_slope(
        [1, 0, 0.5, 1, 0],
        [-largest, largest, largest, largest, -largest],
        mode,
        gamma=gamma,
        from_logits=True,
    )
    half = 0.5 ** (gamma + 1)
    expected = np.array([1, 1, half, 0, 0])
    np.testing.assert_allclose(value, largest * expected, rtol=1e-6)
    np.testing.assert_allclose(slope, [-1, 1, half, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.7, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_the_slope_of_a_small_logit_under_a_label_of_one_half(
    smoothing, gamma, mode
):
    """It is a quarter of the logit, times the power of the share."""
    x = np.array([1e-5, -3e-4, 1e-20, -1e-30, 0.0], "float32")
    _, slope = value_and_slope(
        np.full(5, 0.5) if not smoothing else np.array([1, 0, 1, 0.3, 1]),
        x,
        mode,
        gamma=gamma,
        from_logits=True,
        label_smoothing=smoothing,
    )
    expected = 0.5**gamma * np.float64(x) / 4
    np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("from_logits", [True, False])
def test_smoothing_leaves_its_digits_on_the_other_side(from_logits, mode):
    """Of a label of 1 the other class is left half the smoothing."""
    half = 2.0**-13 * 1.1
    x = np.array([2.0**20 if from_logits else 1.0])
    value, slope = value_and_slope(
        [1],
        x,
        mode,
        gamma=1.0,
        from_logits=from_logits,
        label_smoothing=2 * half,
        apply_class_balancing=True,
        alpha=0.0,
    )
    # The weight is half as well: no class counts but the other.
    if from_logits:
        expected = half**3 * x[0], half**3
    else:
        floor = 2.0**-46
        loss = -half * np.log(floor)
        step = half / floor - (1 - half)
        expected = half**2 * loss, half * (half * step - (1 - 2 * half) * loss)
    np.testing.assert_allclose(value[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(slope[0], expected[1], rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 5.0])
def test_the_loss_over_classes_at_the_largest_logits(gamma, mode):
    """The distance of two logits overflows, a quarter of it does not."""
    largest = np.finfo("float32").max
    x = np.array([[largest, -largest, 1.0], [largest, 0.0, -largest]])
    y = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], "float32")
    value, slope = _checked(
        losses.categorical_focal_crossentropy,
        y,
        x.astype("float32"),
        mode,
        gamma=gamma,
        from_logits=True,
    )
    assert value.tolist() == [largest / 2, 0]
    assert slope.tolist() == [[0.25, -0.25, 0], [0, 0, 0]]


@pytest.mark.parametrize("mode", MODES)
def test_the_slope_at_an_overflown_loss_over_classes(mode):
    """The loss is beyond the largest number, its slope is 1."""
    largest = np.finfo("float32").max
    x = np.array([[largest / 2, -largest, 1.0]], "float32")
    _, slope = _checked(
        losses.categorical_focal_crossentropy,
        np.array([[0.0, 1.0, 0.0]], "float32"),
        x,
        mode,
        alpha=1.0,
        gamma=0.5,
        from_logits=True,
    )
    assert slope.tolist() == [[1, -1, 0]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("top", [1.0, 0.25])
def test_the_slope_over_classes_of_a_probability_near_one(top, mode):
    """At gamma 1/2 it is 1.5 times the root of what the others have."""
    p = np.array([[1e-9, 1.0, 5e-14]]) * top
    _, slope = _checked(
        losses.categorical_focal_crossentropy,
        np.array([[0.0, 1.0, 0.0]], "float32"),
        p.astype("float32"),
        mode,
        alpha=1.0,
        gamma=0.5,
    )
    rest = 1e-9 + 5e-14
    step = 1.5 * rest**0.5 / top
    expected = [[step, -step * rest, step]]
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_the_curve_over_classes_of_a_probability_near_one_is_finite(mode):
    """A power of what the others have, less 2, would overflow."""
    _checked(
        losses.categorical_focal_crossentropy,
        np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]], "float32"),
        np.array([[1.0, 1e-27, 5e-32], [1.0, 0.0, 0.0]], "float32"),
        mode,
        gamma=0.5,
    )


# Labels and predictions whose share of the wrong side is small.
SMALL = {
    "probabilities": ([2.6e-5, 1.31e-5, 1e-4], [9.7e-6, 2.29e-4, 1e-4]),
    "logits": ([2.56e-5, 2.6e-5, 8.4e-5], [-15.0, -19.95, -0.0432]),
}


@pytest.mark.parametrize("gamma", [0.7, 1.7, 7.3])
@pytest.mark.parametrize("kind", SMALL)
def test_an_exponent_keeps_the_digits_its_dtype_cannot_hold(kind, gamma):
    """7.3 rounded to float32 costs as small a share 18 units of its power."""
    y, x = (np.array(v, "float32")[:, None] for v in SMALL[kind])
    ((value, _, _),) = derivatives(
        lambda x: losses.binary_focal_crossentropy(
            y, x, gamma=gamma, from_logits=kind == "logits"
        ),
        [x],
        1.0,
        MODES[-1],
    )
    for got, label, at in zip(value, y[:, 0], x[:, 0], strict=True):
        label, at = mpmath.mpf(float(label)), mpmath.mpf(float(at))
        p = 1 / (1 + mpmath.exp(-at)) if kind == "logits" else at
        share = label * (1 - p) + (1 - label) * p
        loss = -label * mpmath.log(p) - (1 - label) * mpmath.log1p(-p)
        exact = float(share ** mpmath.mpf(gamma) * loss)
        assert got == pytest.approx(exact, rel=1.2e-6, abs=0.0)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="not every device of the others has float64",
)
@pytest.mark.parametrize("gamma", [5.0, 6.0, 9.5, 10.0])
@pytest.mark.parametrize("mode", MODES)
def test_a_steep_power_does_not_multiply_what_is_rounded(mode, gamma):
    """Ten times the rounding of a share is not in its tenth power."""
    rng = np.random.default_rng(0)
    y = rng.uniform(0, 1, 2000).astype("float32")
    x = rng.normal(0, 3, 2000).astype("float32")
    value, _ = value_and_slope(y, x, mode, gamma=gamma, from_logits=True)
    y, x = y.astype("float64"), x.astype("float64")
    p, q = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
    share = y * q + (1 - y) * p
    loss = y * np.logaddexp(0, -x) + (1 - y) * np.logaddexp(0, x)
    np.testing.assert_allclose(value, share**gamma * loss, rtol=4e-7)
