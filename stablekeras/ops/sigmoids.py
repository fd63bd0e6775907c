"""The logistic family: sigmoid, its logarithm, softplus, log-cosh, logit.

Most are written in `e = exp(-|x|)`, which is never larger than 1, so that no
branch overflows. The sigmoid itself takes `exp(-x)`: where that overflows,
the sigmoid is below the smallest normal number.
"""

import math

from keras import ops as kops

from stablekeras.ops.elementary import (
    LN2,
    expm1_kernel,
    horner,
    log1p_near,
    odds_kernel,
    split,
    tanh_kernel,
    terms,
    twice_atanh,
)
from stablekeras.ops.gradient import with_derivative, with_memory
from stablekeras.ops.precision import answered, at_least, lesser
from stablekeras.ops.provenance import made_by
from stablekeras.ops.symbolic import stable

__all__ = [
    "log_cosh",
    "log_sigmoid",
    "log_sigmoid_kernel",
    "logit",
    "sigmoid",
    "sigmoid_value",
    "softplus",
    "softplus_inverse",
]


def sigmoid_value(x):
    """Compute the sigmoid of a tensor in compute precision, once."""
    return 2 / (2 + 2 * kops.exp(-x))  # not 1 / (1 + e), see `reciprocal`


def _slope_value(x):
    e = kops.exp(-kops.abs(x))
    return e / kops.square(1 + e)


def _second(x):
    # s'(1 - 2s), with 1 - 2s = -tanh(x / 2)
    return -_slope_value(x) * tanh_kernel(0.5 * x)


sigmoid_slope = with_derivative(_slope_value, _second)
sigmoid_kernel = with_memory(
    sigmoid_value,
    lambda x, s: s,
    lambda x, s: s / (1 + kops.exp(x)),
    _second,
)


def _softplus_value(x):
    return kops.where(x > 0, x, 0.0) + kops.log1p(kops.exp(-kops.abs(x)))


softplus_kernel = with_derivative(_softplus_value, sigmoid_kernel)


def log_sigmoid_kernel(x):
    """Compute `log(sigmoid(x))` of a tensor in compute precision."""
    return -softplus_kernel(-x)


# cosh(x) = 1 + x**2 / 2! + x**4 / 4! + ...
_COSH = [1 / math.factorial(2 * k) for k in range(1, 9)]


def _log_cosh_value(x):
    # With a = |x|, it is log(1 + (cosh(a) - 1)) and, far from 0,
    # log(1 + exp(-2 a)) + a - log(2). Both have the argument 1/4 at a = log(2),
    # where the series rises above the exponential.
    a = kops.abs(x)
    z = x * x
    near = z * horner(_COSH[: terms(x, 4, 8)], z)
    rest = lesser(near, kops.exp(-2 * a))
    return kops.log1p(rest) + at_least(a - math.log(2.0), 0.0)


log_cosh_kernel = with_derivative(_log_cosh_value, tanh_kernel)


def _logit_value(p):
    # Near 1/2 the quotient is near 1, and its logarithm would cancel.
    s = 2 * p - 1
    near = kops.abs(s) < 1 / 3
    middle = twice_atanh(kops.where(near, s, 0.0))
    return kops.where(near, middle, kops.log(p / (1 - p)))


def _logit_slope(p):
    return 1 / p / (1 - p)


def _logit_second(p):
    # Not `/ p / p`: XLA would divide by p * p, which may be 0.
    a, b = 1 / p, 1 / (1 - p)
    return (2 * p - 1) * b * b * a * a


logit_kernel = with_derivative(
    _logit_value,
    with_derivative(_logit_slope, _logit_second, singular=True),
    singular=True,
)


def _softplus_inverse_value(x):
    # Near its zero at log(2) the sum would cancel. There, with the distance
    # d, it is log(1 + 2 (exp(d) - 1)).
    high, low = split(LN2, x)
    d = (x - high) - low
    near = kops.abs(d) < 0.25
    e = expm1_kernel(kops.where(near, d, -x))
    f = kops.where(near, e, 0.0)
    far = x + kops.log(-kops.where(near, -0.5, e))
    return kops.where(near, log1p_near(2 * f, f / (1 + f)), far)


def _softplus_inverse_slope(x):
    return -odds_kernel(-x)


softplus_inverse_kernel = with_derivative(
    _softplus_inverse_value, _softplus_inverse_slope, singular=True
)


@stable
def sigmoid(x):
    """Compute `1 / (1 + exp(-x))`.

    Args:
        x: Tensor of any shape; integers are taken as floats.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN. 0
        at `-inf`, 1 at `inf`.

    Accuracy: worst ULP 0.5 in float16, 0.5 in bfloat16, 1.4 in float32, 1.2 in
        float64; gradient 0.4, 0.4, 2.0, 1.8.
    Gradient: `sigmoid(x) * sigmoid(-x)`, without cancellation.

    Example:
    >>> from stablekeras import ops
    >>> [round(float(v), 4) for v in ops.sigmoid([-100.0, 0.0, 2.0])]
    [0.0, 0.5, 0.8808]
    """
    x = kops.convert_to_tensor(x)
    return made_by(answered(sigmoid_kernel, x), "sigmoid", x)


@stable
def log_sigmoid(x):
    """Compute `log(1 / (1 + exp(-x)))`.

    Finite for every finite `x`: about `x` for large negative `x`.

    Args:
        x: Tensor of any shape; integers are taken as floats.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.5 in float16, 0.5 in bfloat16, 0.7 in float32, 0.9 in
        float64; gradient 0.5, 0.5, 1.1, 1.1.
    Gradient: `sigmoid(-x)`.

    Example:
    >>> from stablekeras import ops
    >>> [round(float(v), 4) for v in ops.log_sigmoid([-1000.0, 0.0, 2.0])]
    [-1000.0, -0.6931, -0.1269]
    """
    x = kops.convert_to_tensor(x)
    return made_by(answered(log_sigmoid_kernel, x), "log_sigmoid", x)


@stable
def softplus(x):
    """Compute `log(1 + exp(x))`.

    Args:
        x: Tensor of any shape; integers are taken as floats.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN. 0
        at `-inf`, `inf` at `inf`.

    Accuracy: worst ULP 0.5 in float16, 0.4 in bfloat16, 0.9 in float32, 0.9 in
        float64; gradient 0.5, 0.5, 1.1, 1.0.
    Gradient: `sigmoid(x)`.

    Example:
    >>> from stablekeras import ops
    >>> [round(float(v), 4) for v in ops.softplus([-2.0, 0.0, 1000.0])]
    [0.1269, 0.6931, 1000.0]
    """
    return answered(softplus_kernel, x)


@stable
def softplus_inverse(x):
    """Compute `log(exp(x) - 1)`.

    The number whose softplus is `x`.

    Args:
        x: Tensor of any shape, `x >= 0`.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.
        `-inf` at 0; NaN below.

    Accuracy: worst ULP 0.3 in float16, 0.3 in bfloat16, 1.0 in float32, 0.5 in
        float64; gradient 0.4, 0.4, 0.5, 1.3.
    Gradient: `1 / (1 - exp(-x))`, finite for `x > 0`.

    Example:
    >>> from stablekeras import ops
    >>> round(float(ops.softplus_inverse(2.0)), 4)
    1.8546
    """
    return answered(softplus_inverse_kernel, x)


@stable
def log_cosh(x):
    """Compute `log(cosh(x))`.

    Neither overflows for large `x` nor loses the square of a small one.

    Args:
        x: Tensor of any shape; integers are taken as floats.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.
        `inf` at both infinities.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.9 in float32, 0.8 in
        float64; gradient 0.4, 0.4, 0.4, 0.4.
    Gradient: `tanh(x)`.

    Example:
    >>> from stablekeras import ops
    >>> [round(float(v), 4) for v in ops.log_cosh([-1000.0, 0.0, 1.0])]
    [999.3068, 0.0, 0.4338]
    """
    return answered(log_cosh_kernel, x)


@stable
def logit(x):
    """Compute `log(x / (1 - x))`.

    The inverse of the sigmoid.

    Args:
        x: Tensor of any shape, `0 <= x <= 1`.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.
        `-inf` at 0, `inf` at 1; NaN outside.

    Accuracy: worst ULP 0.0 in float16, 0.4 in bfloat16, 0.9 in float32, 0.6 in
        float64; gradient 0.4, 0.4, 1.1, 0.6.
    Gradient: `1 / (x * (1 - x))`, finite inside the interval.

    Example:
    >>> from stablekeras import ops
    >>> [round(float(v), 4) for v in ops.logit([0.25, 0.5, 0.9])]
    [-1.0986, 0.0, 2.1972]
    """
    return answered(logit_kernel, x)
