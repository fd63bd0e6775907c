"""Margin losses: hinge, squared hinge, categorical hinge."""

import keras
from keras import ops as kops

from stablekeras.losses.inputs import prepare
from stablekeras.losses.kernels import squared
from stablekeras.losses.means import mean_of_terms
from stablekeras.losses.wrapper import LossFunctionWrapper
from stablekeras.ops.precision import at_least, largest
from stablekeras.ops.symbolic import stable

__all__ = [
    "CategoricalHinge",
    "Hinge",
    "SquaredHinge",
    "categorical_hinge",
    "hinge",
    "squared_hinge",
]


def _signs(y_true):
    """Turns labels that are all 0 or 1 into -1 and 1."""
    bits = kops.logical_or(kops.equal(y_true, 0), kops.equal(y_true, 1))
    return kops.where(kops.all(bits), 2.0 * y_true - 1.0, y_true)


@keras.saving.register_keras_serializable(package="stablekeras")
@stable
def hinge(y_true, y_pred):
    """Computes the hinge loss.

    Formula: `mean(max(1 - y * p, 0))`. Labels that are all 0 or 1 are taken as
    -1 and 1.

    Args:
        y_true: Targets, of the shape of `y_pred`.
        y_pred: Predictions, any floating dtype.

    Returns:
        Tensor of the shape of `y_pred` without the last axis, in its dtype.

    Raises:
        ValueError: If the shapes do not broadcast.

    Accuracy: worst ULP 0.5 in float16, 0.3 in bfloat16, 0.6 in float32, 0.5 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: `-y / n` inside the margin, 0 beyond.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> losses.hinge([[1, 0]], np.array([[0.5, 0.5]])).numpy()
    array([1.])
    """

    def terms(y, p):
        return at_least(1.0 - _signs(y) * p, 0.0)

    def rescaled(scale, y, p):
        return kops.sum(at_least(scale - (_signs(y) * scale) * p, 0.0), axis=-1)

    return mean_of_terms(terms, rescaled, y_true, y_pred)


@keras.saving.register_keras_serializable(package="stablekeras")
@stable
def squared_hinge(y_true, y_pred):
    """Computes the squared hinge loss.

    Formula: `mean(max(1 - y * p, 0)**2)`. Labels that are all 0 or 1 are taken
    as -1 and 1.

    Args:
        y_true: Targets, of the shape of `y_pred`.
        y_pred: Predictions, any floating dtype.

    Returns:
        Tensor of the shape of `y_pred` without the last axis, in its dtype.

    Raises:
        ValueError: If the shapes do not broadcast.

    Accuracy: worst ULP 0.5 in float16, 0.4 in bfloat16, 1.2 in float32, 0.9 in
        float64; gradient 0.5, 0.5, 0.5, 0.5.
    Gradient: `-2 y max(1 - y p, 0) / n`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> losses.squared_hinge([[1, 0]], np.array([[0, 1]])).numpy()
    array([2.5], dtype=float32)
    """

    def margin(y, p):
        return at_least(1.0 - _signs(y) * p, 0.0)

    def rescaled(scale, y, p):
        return kops.sum(kops.square(margin(y, p) * kops.sqrt(scale)), axis=-1)

    return mean_of_terms(
        lambda y, p: squared(margin(y, p)), rescaled, y_true, y_pred
    )


@keras.saving.register_keras_serializable(package="stablekeras")
@stable
def categorical_hinge(y_true, y_pred):
    """Computes the categorical hinge loss.

    Formula: `max(max((1 - y) p) - sum(y p) + 1, 0)` along the last axis.

    Args:
        y_true: Targets, of the shape of `y_pred`.
        y_pred: Predictions, any floating dtype.

    Returns:
        Tensor of the shape of `y_pred` without the last axis, in its dtype.

    Raises:
        ValueError: If the shapes do not broadcast.

    Accuracy: worst ULP 0.5 in float16, 0.2 in bfloat16, 0.4 in float32, 0.5 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: 1 at the largest wrong class, `-y` at the right one.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> p = np.array([[0.6, 0.4]])
    >>> losses.categorical_hinge([[0, 1]], p).numpy()
    array([1.2])
    """
    y_true, y_pred, dtype = prepare(y_true, y_pred)
    right = kops.sum(y_true * y_pred, axis=-1)
    wrong = kops.squeeze(largest((1.0 - y_true) * y_pred, -1), -1)
    return kops.cast(at_least(wrong - right + 1.0, 0.0), dtype)


@keras.saving.register_keras_serializable(package="stablekeras")
class Hinge(LossFunctionWrapper):
    """Hinge loss; see `losses.hinge`.

    Args:
        reduction: As in `losses.Loss`.
        name: Name of the loss.
        dtype: As in `losses.Loss`.

    Raises:
        ValueError: If `reduction` is unknown.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: as in `losses.hinge`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> float(losses.Hinge()([[1.0]], np.array([[0.5]])))
    0.5
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="hinge",
        dtype=None,
    ):
        super().__init__(hinge, name=name, reduction=reduction, dtype=dtype)


@keras.saving.register_keras_serializable(package="stablekeras")
class SquaredHinge(LossFunctionWrapper):
    """Squared hinge loss; see `losses.squared_hinge`.

    Args:
        reduction: As in `losses.Loss`.
        name: Name of the loss.
        dtype: As in `losses.Loss`.

    Raises:
        ValueError: If `reduction` is unknown.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: as in `losses.squared_hinge`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> float(losses.SquaredHinge()([[1.0]], np.array([[0.5]])))
    0.25
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="squared_hinge",
        dtype=None,
    ):
        super().__init__(
            squared_hinge, name=name, reduction=reduction, dtype=dtype
        )


@keras.saving.register_keras_serializable(package="stablekeras")
class CategoricalHinge(LossFunctionWrapper):
    """Categorical hinge loss; see `losses.categorical_hinge`.

    Args:
        reduction: As in `losses.Loss`.
        name: Name of the loss.
        dtype: As in `losses.Loss`.

    Raises:
        ValueError: If `reduction` is unknown.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: as in `losses.categorical_hinge`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> loss = losses.CategoricalHinge()
    >>> float(loss([[0.0, 1.0]], np.array([[0.5, 0.5]])))
    1.0
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="categorical_hinge",
        dtype=None,
    ):
        super().__init__(
            categorical_hinge, name=name, reduction=reduction, dtype=dtype
        )
