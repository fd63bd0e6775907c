"""Logarithms whose argument may be zero, tiny or near one."""

import math

import keras
from keras import ops as kops

from stablekeras.ops.axes import check_axis
from stablekeras.ops.division import divide_no_nan_kernel
from stablekeras.ops.elementary import (
    expm1_kernel,
    log1p_kernel,
    log1p_near,
    odds_kernel,
    reciprocal,
    split,
)
from stablekeras.ops.gradient import with_derivative, with_derivatives
from stablekeras.ops.precision import (
    answered,
    compute_dtype,
    finfo,
    to_compute,
)
from stablekeras.ops.sigmoids import sigmoid_kernel
from stablekeras.ops.symbolic import stable

__all__ = [
    "clamped_log",
    "entropy",
    "log1mexp",
    "log_sub_exp",
    "logaddexp",
    "xlog1py",
    "xlogy",
]

_LN2 = math.log(2.0)


@stable
def clamped_log(x, floor=None):
    """Compute `log(max(x, floor))`, which still learns below the floor.

    Exact above the floor. Below it, and for negative `x`, the value is that of
    the floor, but the gradient does not vanish: a saturated prediction still
    learns. A gradient of `1 / floor` can be squared and summed by an optimizer
    without overflow.

    Args:
        x: Tensor of any shape.
        floor: Float > 0. Defaults to the square of the epsilon of the compute
            dtype: 1.4e-14 in float32 (and for 16-bit inputs), 4.9e-32 in
            float64.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Raises:
        ValueError: If `floor` is not finite and > 0.

    Accuracy: worst ULP 0.4 in bfloat16, 0.9 in float32, 0.9 in float64;
        gradient 0.0, 0.0, 0.0.
    Gradient: `1 / max(x, floor)`, at most the largest number of the dtype of
        `x`.

    Example:
    >>> from stablekeras import ops
    >>> [round(float(v), 2) for v in ops.clamped_log([0.0, 1e-8, 1.0])]
    [-31.88, -18.42, 0.0]
    """
    dtype, (x,) = to_compute(x)
    if floor is None:
        floor = finfo(compute_dtype(dtype)).eps ** 2
    if not 0 < floor < math.inf:
        raise ValueError(
            f"floor must be finite and > 0. Received: floor={floor}. "
            "Pass None for the square of the epsilon."
        )
    # A 16-bit gradient cannot hold 1 / floor; its largest number serves.
    steepest = min(1 / floor, finfo(dtype).max)

    def above(p):
        return kops.where(p <= floor, kops.full_like(p, floor), p)

    def value(p):
        return kops.log(above(p))

    def slope(p):
        out = reciprocal(above(p))
        return kops.where(out > steepest, kops.full_like(out, steepest), out)

    return kops.cast(with_derivative(value, slope)(x), dtype)


def _log1mexp_value(x):
    near = x < _LN2
    e = -kops.exp(-kops.where(near, _LN2, x))
    far = log1p_near(e, e / (2 + e))
    y = kops.where(near, x, _LN2)
    return kops.where(near, kops.log(-expm1_kernel(-y)), far)


log1mexp_kernel = with_derivative(_log1mexp_value, odds_kernel, singular=True)


@stable
def log1mexp(x):
    """Compute `log(1 - exp(-x))` for `x >= 0`.

    The direct form loses all digits for small `x` and is `-inf` below 6e-8 in
    float32.

    Args:
        x: Tensor of any shape, `x >= 0`.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.
        `-inf` at 0; NaN below.

    Accuracy: worst ULP 0.3 in float16, 0.5 in bfloat16, 0.9 in float32, 1.2 in
        float64; gradient 0.0, 0.0, 0.3, 0.0.
    Gradient: `1 / (exp(x) - 1)`, finite for `x > 0`.

    Example:
    >>> from stablekeras import ops
    >>> round(float(ops.log1mexp(1.0)), 4)
    -0.4587

    Reference: Maechler (2012), "Accurately computing log(1 - exp(-|a|))".
    """
    return answered(log1mexp_kernel, x)


def _log_sub_exp_value(x, y):
    d = x - y
    # Two equal infinities differ by nothing.
    d = kops.where(kops.equal(x, y), kops.zeros_like(d), d)
    d = kops.where(kops.equal(y, -math.inf), math.inf, d)
    return x + log1mexp_kernel(d)


log_sub_exp_kernel = with_derivatives(
    _log_sub_exp_value,
    lambda x, y: -odds_kernel(y - x),
    lambda x, y: -odds_kernel(x - y),
)


@stable
def log_sub_exp(x1, x2):
    """Compute `log(exp(x1) - exp(x2))` for `x1 >= x2`.

    Args:
        x1: Tensor.
        x2: Tensor that broadcasts with `x1`, `x2 <= x1`.

    Returns:
        Tensor of the broadcast shape; `-inf` where they are equal, NaN
        where `x2 > x1`.

    Accuracy: worst ULP 0.3 in float16, 0.0 in bfloat16, 0.6 in float32, 0.6 in
        float64; gradient 0.4, 0.4, 0.6, 1.3.
    Gradient: `1 / (1 - exp(x2 - x1))` and `1 / (1 - exp(x1 - x2))`, finite for
        `x1 > x2`.

    Example:
    >>> from stablekeras import ops
    >>> round(float(ops.log_sub_exp(1000.0, 999.0)), 4)
    999.5413
    """
    return answered(log_sub_exp_kernel, x1, x2)


def _difference(x, y):
    """Compute `x - y`, 0 for equal infinities."""
    same = kops.logical_and(kops.equal(x, y), kops.equal(kops.abs(x), math.inf))
    return kops.where(same, 0.0, x - kops.where(same, 0.0, y))


def _logaddexp_value(x, y):
    high = kops.where(x > y, x, y)
    e = kops.exp(-kops.abs(_difference(x, y)))
    # The sum with `high` may cancel, so what is added is kept small:
    # log(1 + e) = log(2) + log(1 + (e - 1) / 2).
    large = e > 0.4
    f = kops.where(large, 0.5 * (e - 1), e)
    return kops.where(large, high + _LN2, high) + log1p_near(f, f / (2 + f))


def _first_share(x, y):
    # exp(x) / (exp(x) + exp(y))
    return sigmoid_kernel(_difference(x, y))


logaddexp_kernel = with_derivatives(
    _logaddexp_value, _first_share, lambda x, y: _first_share(y, x)
)


@stable
def logaddexp(x1, x2):
    """Compute `log(exp(x1) + exp(x2))`.

    A tie shares the gradient equally; Keras gives all of it to `x1`.

    Args:
        x1: Tensor.
        x2: Tensor that broadcasts with `x1`.

    Returns:
        Tensor of the broadcast shape. NaN stays NaN.

    Accuracy: worst ULP 0.5 in float16, 0.4 in bfloat16, 0.9 in float32, 0.5 in
        float64; gradient 0.5, 0.5, 0.8, 1.3.
    Gradient: The shares `sigmoid(x1 - x2)` and `sigmoid(x2 - x1)`.

    Example:
    >>> from stablekeras import ops
    >>> round(float(ops.logaddexp(1000.0, 1000.0)), 4)
    1000.6932
    """
    return answered(logaddexp_kernel, x1, x2)


def _without_zero(x, y, safe):
    """Return `y`, or `safe` where `x` is 0, and whether it was."""
    zero = kops.logical_and(kops.equal(x, 0), kops.logical_not(kops.isnan(y)))
    return kops.where(zero, safe, y), zero


# TensorFlow's own slope of the logarithm is its `reciprocal`.
_log = with_derivative(kops.log, reciprocal)


def _lowest_log(y):
    """Compute `log(y)`, and at 0 that of the smallest normal number."""
    tiny = finfo(keras.backend.standardize_dtype(y.dtype)).tiny
    return _log(kops.where(kops.equal(y, 0), kops.full_like(y, tiny), y))


def _xlogy_value(x, y):
    y, zero = _without_zero(x, y, 1.0)
    return kops.where(zero, 0.0, x * kops.log(y))


def _ratio_value(x, y):
    y, zero = _without_zero(x, y, 1.0)
    return kops.where(zero, 0.0, x / y)


def _ratio_by_first(x, y):
    # Not 1 / y, see `reciprocal`.
    return divide_no_nan_kernel(2 * kops.ones_like(x), 2 * y)


def _ratio_by_second(x, y):
    return -_ratio(_ratio(x, y), y)


# By `y` it may overflow where by `x` it does not.
_ratio = with_derivatives(_ratio_value, _ratio_by_first, _ratio_by_second)


xlogy_kernel = with_derivatives(
    _xlogy_value, lambda x, y: _lowest_log(y), _ratio
)


@stable
def xlogy(x1, x2):
    """Compute `x1 * log(x2)`, 0 where `x1 == 0`.

    Args:
        x1: Tensor.
        x2: Tensor that broadcasts with `x1`, `x2 >= 0`.

    Returns:
        Tensor of the broadcast shape: 0 where `x1` is 0, whatever
        finite or infinite `x2` is. NaN stays NaN.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.4, 0.4, 0.7, 1.1.
    Gradient: `log(x2)`, finite at `x2 == 0`: that of the smallest normal
        number; and `x1 / x2`, 0 where `x1 == 0`.

    Example:
    >>> from stablekeras import ops
    >>> [round(float(v), 4) for v in ops.xlogy([0.0, 2.0], [0.0, 3.0])]
    [0.0, 2.1972]
    """
    return answered(xlogy_kernel, x1, x2)


def _xlog1py_value(x, y):
    y, zero = _without_zero(x, y, 0.0)
    return kops.where(zero, 0.0, x * log1p_kernel(y))


def _lowest_log1p(x, y):
    eps = finfo(keras.backend.standardize_dtype(y.dtype)).eps
    lowest = kops.full_like(y, eps / 2 - 1)
    return log1p_kernel(kops.where(kops.equal(y, -1), lowest, y))


xlog1py_kernel = with_derivatives(
    _xlog1py_value, _lowest_log1p, lambda x, y: _ratio(x, 1 + y)
)


@stable
def xlog1py(x1, x2):
    """Compute `x1 * log1p(x2)`, 0 where `x1 == 0`.

    Args:
        x1: Tensor.
        x2: Tensor that broadcasts with `x1`, `x2 >= -1`.

    Returns:
        Tensor of the broadcast shape: 0 where `x1` is 0, whatever
        finite or infinite `x2` is. NaN stays NaN.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.4, 0.4, 0.6, 1.4.
    Gradient: `log1p(x2)`, finite at `x2 == -1`: that of the number next to it;
        and `x1 / (1 + x2)`, 0 where `x1 == 0`.

    Example:
    >>> from stablekeras import ops
    >>> [round(float(v), 4) for v in ops.xlog1py([0.0, 2.0], [-1.0, 3.0])]
    [0.0, 2.7726]
    """
    return answered(xlog1py_kernel, x1, x2)


def _surprise_value(p):
    q, zero = _without_zero(p, p, 1.0)
    return kops.where(zero, 0.0, -p * kops.log(q))


def _surprise_slope(p):
    # -1 - log(p), which cancels at 1/e; so log(e p), e being high + low.
    high, low = split((math.e, 1.4456468917292502e-16), p)
    return -(_lowest_log(p * high) + low / math.e)


surprise_kernel = with_derivative(_surprise_value, _surprise_slope)


@stable
def entropy(p, axis=-1):
    """Compute `-sum(p * log(p))` along `axis`.

    The terms where `p` is 0 are 0.

    Args:
        p: Tensor of probabilities, `0 <= p <= 1`.
        axis: Integer or tuple, along which to sum; `None` for all.

    Returns:
        Tensor without `axis`, in nats.

    Accuracy: worst ULP 0.1 in float16, 0.0 in bfloat16, 1.9 in float32, 0.5 in
        float64; gradient 0.3, 0.3, 1.0, 0.6.
    Gradient: `-1 - log(p)`, finite at 0: the log is that of the smallest normal
        number.

    Example:
    >>> from stablekeras import ops
    >>> round(float(ops.entropy([0.5, 0.5, 0.0])), 4)
    0.6931
    """
    dtype, (p,) = to_compute(p)
    check_axis(p, axis)
    return kops.cast(kops.sum(surprise_kernel(p), axis=axis), dtype)
