"""Dice and Tversky as loss classes: the shapes they take."""

import numpy as np
import pytest

from stablekeras import losses

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
