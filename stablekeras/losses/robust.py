"""Losses that grow linearly: Huber and log-cosh."""

import keras
from keras import ops as kops

from stablekeras.losses.checks import check_positive
from stablekeras.losses.kernels import huber_terms
from stablekeras.losses.means import mean_of_terms
from stablekeras.losses.wrapper import LossFunctionWrapper
from stablekeras.ops.elementary import tanh_kernel
from stablekeras.ops.gradient import with_derivative
from stablekeras.ops.sigmoids import log_cosh_kernel, sigmoid_slope
from stablekeras.ops.symbolic import stable

__all__ = ["Huber", "LogCosh", "huber", "log_cosh"]


# The backends' float32 tanh is within 5.6 ULP, and a third of the cost of the
# kernel of `stablekeras.ops`; 1 - tanh(x)**2 would cancel.
_quick_tanh = with_derivative(kops.tanh, lambda x: 4 * sigmoid_slope(2 * x))


def _log_cosh_slope(x):
    wide = keras.backend.standardize_dtype(x.dtype) == "float64"
    return tanh_kernel(x) if wide else _quick_tanh(x)


_log_cosh = with_derivative(log_cosh_kernel, _log_cosh_slope)


@keras.saving.register_keras_serializable(package="stablekeras")
@stable
def huber(y_true, y_pred, delta=1.0):
    """Computes the Huber loss up to the largest numbers.

    Formula, with `e = p - y`: the mean of `e**2 / 2` where `abs(e) <= delta`,
    and of `delta * abs(e) - delta**2 / 2` elsewhere.

    Args:
        y_true: Targets, of the shape of `y_pred`.
        y_pred: Predictions, any floating dtype.
        delta: Float > 0, where the loss turns linear.

    Returns:
        Tensor of the shape of `y_pred` without the last axis, in its dtype.

    Raises:
        ValueError: If the shapes do not broadcast.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: `clip(p - y, -delta, delta) / n`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> p = np.array([[3e38]], "float32")
    >>> losses.huber([[0]], p).numpy()
    array([3.e+38], dtype=float32)
    """
    check_positive("delta", delta)

    def terms(y, p):
        return huber_terms(p - y, delta)

    def rescaled(scale, y, p):
        half = kops.abs(0.5 * p - 0.5 * y)
        far = (2 * delta * scale) * (half - 0.25 * delta)
        scaled = kops.where(2 * half > delta, far, terms(y, p) * scale)
        return kops.sum(scaled, axis=-1)

    return mean_of_terms(terms, rescaled, y_true, y_pred)


@keras.saving.register_keras_serializable(package="stablekeras")
@stable
def log_cosh(y_true, y_pred):
    """Computes the mean of `log(cosh(p - y))`, for small and large errors.

    Args:
        y_true: Targets, of the shape of `y_pred`.
        y_pred: Predictions, any floating dtype.

    Returns:
        Tensor of the shape of `y_pred` without the last axis, in its dtype.

    Raises:
        ValueError: If the shapes do not broadcast.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.2 in
        float64; gradient 0.5, 0.4, 2.4, 0.5.
    Gradient: `tanh(p - y) / n`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> p = np.array([[1e-3], [-3e38]], "float32")
    >>> losses.log_cosh([[0], [0]], p).numpy()[1]
    np.float32(3e+38)
    """

    def terms(y, p):
        return _log_cosh(p - y)

    def rescaled(scale, y, p):
        values = terms(y, p)
        half = kops.abs(0.5 * p - 0.5 * y)
        # Where only this is finite, log(2) is far below the last digit.
        finite = kops.isfinite(values)
        return kops.sum(
            kops.where(finite, values * scale, (2 * scale) * half), axis=-1
        )

    return mean_of_terms(terms, rescaled, y_true, y_pred)


@keras.saving.register_keras_serializable(package="stablekeras")
class Huber(LossFunctionWrapper):
    """Huber loss; see `losses.huber`.

    Args:
        delta: Float > 0, where the loss turns linear.
        reduction: As in `losses.Loss`.
        name: Name of the loss.
        dtype: As in `losses.Loss`.

    Raises:
        ValueError: If `delta` is not positive and finite.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: as in `losses.huber`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> float(losses.Huber()([[0.0]], np.array([[3.0]])))
    2.5
    """

    def __init__(
        self,
        delta=1.0,
        reduction="sum_over_batch_size",
        name="huber_loss",
        dtype=None,
    ):
        check_positive("delta", delta)
        super().__init__(
            huber, name=name, reduction=reduction, dtype=dtype, delta=delta
        )
        self.delta = delta


@keras.saving.register_keras_serializable(package="stablekeras")
class LogCosh(LossFunctionWrapper):
    """Log-cosh loss; see `losses.log_cosh`.

    Args:
        reduction: As in `losses.Loss`.
        name: Name of the loss.
        dtype: As in `losses.Loss`.

    Raises:
        ValueError: If `reduction` is unknown.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: as in `losses.log_cosh`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> loss = losses.LogCosh()
    >>> round(float(loss([[0.0]], np.array([[1e-3]], "float32"))), 9)
    5e-07
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="log_cosh",
        dtype=None,
    ):
        super().__init__(log_cosh, name=name, reduction=reduction, dtype=dtype)
