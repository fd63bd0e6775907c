"""Digits that a detour must not cost: arguments, labels, small slopes."""

import numpy as np
import pytest
from mpmath import mp, mpf

from stablekeras import losses
from tests.accuracy.backends import DTYPES

pytestmark = pytest.mark.backends

with_float64 = pytest.mark.skipif(
    "float64" not in DTYPES, reason="this backend has no float64"
)


@with_float64
def test_gamma_of_a_binary_focal_loss_keeps_its_digits_in_float64():
    """A gamma of 1.7 is not that of float32."""
    p = np.array([[0.25]])
    (value,) = np.asarray(losses.binary_focal_crossentropy([[1]], p, gamma=1.7))
    expected = -(mpf(0.75) ** mpf(1.7)) * mp.log(0.25)
    assert value == pytest.approx(float(expected), rel=1e-15)


@with_float64
def test_arguments_of_a_focal_loss_over_classes_keep_their_digits_in_float64():
    """Neither gamma nor the weights of the classes are those of float32."""
    p = np.array([[0.25, 0.75]])
    (value,) = np.asarray(
        losses.categorical_focal_crossentropy(
            [[1, 0]], p, gamma=1.7, alpha=[0.3, 0.6]
        )
    )
    expected = -mpf(0.3) * mpf(0.75) ** mpf(1.7) * mp.log(0.25)
    assert value == pytest.approx(float(expected), rel=1e-15)


@with_float64
@pytest.mark.parametrize(
    "loss", [losses.mean_absolute_error, losses.MeanAbsoluteError()]
)
def test_labels_in_a_list_keep_their_digits_in_float64(loss):
    """A label of 0.1 equals a prediction of 0.1."""
    assert np.asarray(loss([[0.1]], np.array([[0.1]]))) == 0


@with_float64
def test_weights_in_a_list_keep_their_digits_in_float64():
    """A weight of 0.1 is not that of float32."""
    loss = losses.MeanAbsoluteError(reduction="sum")
    value = loss([[0.0]], np.array([[1.0]]), sample_weight=[0.1])
    assert float(value) == 0.1
