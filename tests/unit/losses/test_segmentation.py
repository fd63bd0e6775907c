"""Dice and Tversky: the shapes that classes take, slopes of few pixels."""

from fractions import Fraction

import keras
import numpy as np
import pytest

from stablekeras import losses
from tests.accuracy.backends import MODES, derivatives

pytestmark = pytest.mark.backends


@pytest.mark.parametrize("kind", [losses.Dice, losses.Tversky])
@pytest.mark.parametrize("axis", [None, -1])
@pytest.mark.parametrize("weight", [None, [1.0] * 4, [1.0, 0.0, 1.0, 1.0]])
@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (3,), (4, 3, 2)])
def test_labels_of_another_shape_are_refused_with_weights_or_without(
    shape, weight, axis, kind
):
    """A selection does not broadcast them first."""
    weight = None if weight is None else np.array(weight, "float32")
    predictions = np.full((4, 3), 0.5, "float32")
    with pytest.raises(ValueError, match="same shape"):
        kind(axis=axis)(np.ones(shape), predictions, sample_weight=weight)


@pytest.mark.parametrize("kind", [losses.Dice, losses.Tversky])
@pytest.mark.parametrize("weight", [None, [1.0, 0.0]])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1)])
def test_a_last_dimension_of_one_is_squeezed(shape, weight, kind):
    """As in Keras; a row of weight 0 counts in no sum, NaN included."""
    predictions = np.full((2, 3), 0.5, "float32")
    if weight is not None:
        weight = np.array(weight, "float32")
        predictions[1] = np.nan
    loss = kind(axis=-1, reduction="sum")
    value = loss(np.ones(shape), predictions, sample_weight=weight)
    expected = (1 if weight is not None else 2) / 3
    assert float(value) == pytest.approx(expected, rel=1e-6)


FEW = {
    "one pixel": ([0.1205], [0.9413]),
    "one small label": ([1.7e-8], [0.989]),
    "one shared label": ([0.3, 0.3, 0.3], [0.2, 0.9, 1e-5]),
    "almost sure": ([0.99999, 1.0, 1e-6], [0.9999, 0.99998, 3e-7]),
}


@pytest.mark.parametrize(
    ("alpha", "beta"), [(0.0, 1.0), (0.5, 0.5), (0.25, 0.75)]
)
@pytest.mark.parametrize(("labels", "predictions"), FEW.values(), ids=FEW)
def test_the_slope_by_few_soft_pixels(labels, predictions, alpha, beta):
    """An entry's part in its own sums cancels exactly, as in fractions."""
    y, p = (np.array(x, "float32") for x in (labels, predictions))

    def loss(p):
        return losses.tversky(y[None], p, alpha=alpha, beta=beta, axis=1)

    _, slope, _ = derivatives(loss, [p[None]], 1.0, MODES[-1])[0]
    a, b = Fraction(alpha), Fraction(beta)
    ys, ps = ([Fraction(float(v)) for v in x] for x in (y, p))
    pairs = list(zip(ys, ps, strict=True))
    both = sum(v * q for v, q in pairs)
    apart = sum(a * v * (1 - q) + b * q * (1 - v) for v, q in pairs)
    apart += Fraction(keras.config.epsilon())
    for got, v in zip(slope[0], ys, strict=True):
        exact = (b * (1 - v) - a * v) * both - v * apart
        exact /= (both + apart) ** 2
        assert float(got) == pytest.approx(float(exact), rel=4e-7, abs=0.0)
