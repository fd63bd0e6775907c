"""Errors squared, absolute, relative and of logarithms."""

import keras
from keras import ops as kops

from stablekeras.losses.inputs import prepare, same_rank
from stablekeras.losses.kernels import log1p_accurate, squared
from stablekeras.losses.means import mean_of_terms
from stablekeras.losses.reduction import mean
from stablekeras.losses.wrapper import LossFunctionWrapper
from stablekeras.ops.gradient import (
    broadcast,
    with_derivatives,
    with_pullback,
)
from stablekeras.ops.precision import at_least, lesser
from stablekeras.ops.symbolic import stable

__all__ = [
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
]


@keras.saving.register_keras_serializable(package="stablekeras")
@stable
def mean_squared_error(y_true, y_pred):
    """Computes the mean squared error, finite wherever the mean is.

    Formula: `mean((y - p)**2)`.

    Args:
        y_true: Targets, of the shape of `y_pred`.
        y_pred: Predictions, any floating dtype.

    Returns:
        Tensor of the shape of `y_pred` without the last axis, in its dtype.

    Raises:
        ValueError: If the shapes do not broadcast.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: `2 (p - y) / n`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> p = np.array([[1.5e19, 1.5e19]], "float32")
    >>> losses.mean_squared_error([[0, 0]], p).numpy()
    array([2.25e+38], dtype=float32)
    """
    return mean_of_terms(
        lambda y, p: squared(y - p),
        lambda scale, y, p: kops.sum(
            kops.square((y - p) * kops.sqrt(scale)), axis=-1
        ),
        y_true,
        y_pred,
    )


def _distance(y, p):
    return kops.abs(y - p)


def _direction(y, p):
    """Computes the sign of `p - y`, even where the difference underflows."""
    ahead = kops.cast(p > y, p.dtype) - kops.cast(p < y, p.dtype)
    return kops.where(kops.isnan(p - y), p - y, ahead)


if keras.config.backend() == "jax":
    # Its slope of `abs` is 1 at 0, where a small difference was flushed.
    _distance = with_derivatives(
        _distance, lambda y, p: -_direction(y, p), _direction
    )


@keras.saving.register_keras_serializable(package="stablekeras")
@stable
def mean_absolute_error(y_true, y_pred):
    """Computes the mean absolute error, finite wherever the mean is.

    Formula: `mean(abs(y - p))`.

    Args:
        y_true: Targets, of the shape of `y_pred`.
        y_pred: Predictions, any floating dtype.

    Returns:
        Tensor of the shape of `y_pred` without the last axis, in its dtype.

    Raises:
        ValueError: If the shapes do not broadcast.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: `sign(p - y) / n`, 0 where they are equal; so they are if they
        differ by less than the smallest normal number, which is flushed.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> p = np.array([[3e38, 3e38]], "float32")
    >>> losses.mean_absolute_error([[0, 0]], p).numpy()
    array([3.e+38], dtype=float32)
    """
    return mean_of_terms(
        _distance,
        lambda scale, y, p: kops.sum(kops.abs(y * scale - p * scale), axis=-1),
        y_true,
        y_pred,
    )


def _share_pullback(u, e, whole):
    # Not the sign of the quotient, which would be another division; and
    # multiplied first: a tiny target would make 0 times infinity of it.
    of_e = u * kops.sign(e) / whole
    return of_e, -of_e * (e / whole)


# abs(e) / whole for whole > 0
_share = with_pullback(lambda e, whole: kops.abs(e) / whole, _share_pullback)


@keras.saving.register_keras_serializable(package="stablekeras")
@stable
def mean_absolute_percentage_error(y_true, y_pred):
    """Computes the mean absolute percentage error of targets of any size.

    Formula: `100 * mean(abs(1 - p / y))`; for a target of exactly 0 the
    denominator is `keras.config.epsilon()`, as in Keras.

    Args:
        y_true: Targets, of the shape of `y_pred`.
        y_pred: Predictions, any floating dtype.

    Returns:
        Tensor of the shape of `y_pred` without the last axis, in its dtype.

    Raises:
        ValueError: If the shapes do not broadcast.

    Accuracy: worst ULP 0.3 in float16, 0.2 in bfloat16, 2.3 in float32, 0.5 in
        float64; gradient 0.3, 0.3, 1.0, 0.7.
    Gradient: `100 sign(p - y) / abs(y) / n`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> p = np.array([[2e-30]], "float32")
    >>> losses.mean_absolute_percentage_error([[1e-30]], p).numpy()
    array([100.], dtype=float32)
    """

    # Both compute the divisor anew: see `mean`.
    def divisor(y):
        zero = kops.equal(y, 0)
        return zero, kops.where(zero, keras.config.epsilon(), y)

    def values(y, p):
        error, whole = p - y, kops.abs(divisor(y)[1])
        if None in error.shape or error.shape != whole.shape:
            whole = kops.broadcast_to(whole, kops.shape(error))
        return _share(error, whole)

    def rescaled(scale, y, p):
        # A quotient overflows only if the truth does; the difference may not.
        zero, below = divisor(y)
        whole = kops.where(zero, 0.0, scale)
        return kops.sum(kops.abs(whole - p / below * scale), axis=-1)

    return mean_of_terms(values, rescaled, y_true, y_pred, factor=100.0)


# At a tie with 0, backends share the gradient of a maximum out.
_above_zero = with_pullback(
    lambda x: at_least(x, 0.0), lambda u, x: (kops.where(x < 0, 0.0, u),)
)


def _log_ratio_value(y, p):
    # One logarithm of 1 plus the relative distance: two would cancel.
    ratio = (p - y) / (1 + lesser(y, p))
    return log1p_accurate(kops.abs(ratio)) * kops.sign(ratio)


# log((1 + p) / (1 + y)) for y, p >= 0
_log_ratio = with_pullback(
    _log_ratio_value, lambda u, y, p: (-u / (1 + y), u / (1 + p))
)


def _squared_log_ratio_pullback(u, y, p):
    y, p = _above_zero(y), _above_zero(p)
    # Multiplied first: the reciprocal alone may underflow.
    slope = (2 * u) * _log_ratio(y, p)
    return -slope / (1 + y), slope / (1 + p)


_squared_log_ratio = with_pullback(
    lambda y, p: kops.square(_log_ratio(_above_zero(y), _above_zero(p))),
    _squared_log_ratio_pullback,
)


@keras.saving.register_keras_serializable(package="stablekeras")
@stable
def mean_squared_logarithmic_error(y_true, y_pred):
    """Computes the mean squared logarithmic error, alive at zero.

    Formula: `mean((log(1 + y) - log(1 + p))**2)`. Negative targets and
    predictions count as 0, as in Keras.

    Args:
        y_true: Targets, of the shape of `y_pred`.
        y_pred: Predictions, any floating dtype.

    Returns:
        Tensor of the shape of `y_pred` without the last axis, in its dtype.

    Raises:
        ValueError: If the shapes do not broadcast.

    Accuracy: worst ULP 0.2 in float16, 0.4 in bfloat16, 1.6 in float32, 4.1 in
        float64; gradient 0.4, 0.4, 0.8, 1.6.
    Gradient: `2 (log(1 + p) - log(1 + y)) / (1 + p) / n`; below 0 that of
        `p = 0`, so that a negative prediction still learns.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> p = np.array([[1e-10]])
    >>> losses.mean_squared_logarithmic_error([[0]], p).numpy()
    array([1.e-20])
    """
    y_true, y_pred, dtype = prepare(y_true, y_pred)
    y_true, y_pred = broadcast(*same_rank(y_true, y_pred))
    return kops.cast(mean(_squared_log_ratio(y_true, y_pred)), dtype)


@keras.saving.register_keras_serializable(package="stablekeras")
class MeanSquaredError(LossFunctionWrapper):
    """Mean squared error; see `losses.mean_squared_error`.

    Args:
        reduction: As in `losses.Loss`.
        name: Name of the loss.
        dtype: As in `losses.Loss`.

    Raises:
        ValueError: If `reduction` is unknown.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: as in `losses.mean_squared_error`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> loss = losses.MeanSquaredError()
    >>> float(loss([[0.0, 0.0]], np.array([[2.0**500, 0.0]]))) == 2.0**999
    True
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="mean_squared_error",
        dtype=None,
    ):
        super().__init__(
            mean_squared_error, name=name, reduction=reduction, dtype=dtype
        )


@keras.saving.register_keras_serializable(package="stablekeras")
class MeanAbsoluteError(LossFunctionWrapper):
    """Mean absolute error; see `losses.mean_absolute_error`.

    Args:
        reduction: As in `losses.Loss`.
        name: Name of the loss.
        dtype: As in `losses.Loss`.

    Raises:
        ValueError: If `reduction` is unknown.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: as in `losses.mean_absolute_error`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> loss = losses.MeanAbsoluteError()
    >>> float(loss([[0.0, 0.0]], np.array([[1.0, -2.0]])))
    1.5
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="mean_absolute_error",
        dtype=None,
    ):
        super().__init__(
            mean_absolute_error, name=name, reduction=reduction, dtype=dtype
        )


@keras.saving.register_keras_serializable(package="stablekeras")
class MeanAbsolutePercentageError(LossFunctionWrapper):
    """Mean absolute percentage error.

    See `losses.mean_absolute_percentage_error`.

    Args:
        reduction: As in `losses.Loss`.
        name: Name of the loss.
        dtype: As in `losses.Loss`.

    Raises:
        ValueError: If `reduction` is unknown.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: as in `losses.mean_absolute_percentage_error`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> loss = losses.MeanAbsolutePercentageError()
    >>> float(loss([[2.0, 4.0]], np.array([[1.0, 4.0]])))
    25.0
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="mean_absolute_percentage_error",
        dtype=None,
    ):
        super().__init__(
            mean_absolute_percentage_error,
            name=name,
            reduction=reduction,
            dtype=dtype,
        )


@keras.saving.register_keras_serializable(package="stablekeras")
class MeanSquaredLogarithmicError(LossFunctionWrapper):
    """Mean squared logarithmic error.

    See `losses.mean_squared_logarithmic_error`.

    Args:
        reduction: As in `losses.Loss`.
        name: Name of the loss.
        dtype: As in `losses.Loss`.

    Raises:
        ValueError: If `reduction` is unknown.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: as in `losses.mean_squared_logarithmic_error`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> loss = losses.MeanSquaredLogarithmicError()
    >>> float(loss([[0.0]], np.array([[np.e - 1]])))
    1.0
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="mean_squared_logarithmic_error",
        dtype=None,
    ):
        super().__init__(
            mean_squared_logarithmic_error,
            name=name,
            reduction=reduction,
            dtype=dtype,
        )
