"""The logistic family: sigmoid, its logarithm, softplus, log-cosh, logit.

With `e = exp(-|x|)`, never larger than 1, no branch overflows.
"""

import math

from keras import ops as kops

from stablekeras.ops.gradient import with_derivative
from stablekeras.ops.precision import stable, to_compute

__all__ = [
    "log_cosh",
    "log_sigmoid",
    "logit",
    "sigmoid",
    "softplus",
    "softplus_inverse",
    "tanh",
]


def _sigmoid_value(x):
    e = kops.exp(-kops.abs(x))
    return kops.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _sigmoid_second(x):
    # s'(1 - 2s), with 1 - 2s = -tanh(x / 2)
    return -_sigmoid_slope_value(x) * tanh_kernel(0.5 * x)


def _sigmoid_slope_value(x):
    e = kops.exp(-kops.abs(x))
    return e / kops.square(1 + e)


def _tanh_value(x):
    a = kops.abs(x)
    small = a < 0.55
    e = kops.exp(-2 * a)
    large = kops.sign(x) * (1 - 2 * (e / (1 + e)))
    large = kops.where(kops.isnan(x), x, large)
    return kops.where(small, kops.tanh(kops.where(small, x, 0.0)), large)


def _sech2_value(x):
    e = kops.exp(-2 * kops.abs(x))
    return 4 * (e / kops.square(1 + e))


def _sech2_slope(x):
    return -2 * tanh_kernel(x) * sech2_kernel(x)


tanh_kernel = with_derivative(_tanh_value, lambda x: sech2_kernel(x))
sech2_kernel = with_derivative(_sech2_value, _sech2_slope)
sigmoid_slope = with_derivative(_sigmoid_slope_value, _sigmoid_second)
sigmoid_kernel = with_derivative(_sigmoid_value, sigmoid_slope)


def _softplus_value(x):
    return kops.maximum(x, 0) + kops.log1p(kops.exp(-kops.abs(x)))


softplus_kernel = with_derivative(_softplus_value, sigmoid_kernel)


def log_sigmoid_kernel(x):
    return -softplus_kernel(-x)


def _log_cosh_value(x):
    a = kops.abs(x)
    small = a < 1
    t = kops.expm1(kops.where(small, a, 0.0))
    near = kops.log1p(0.5 * t * (t / (1 + t)))
    far = kops.log1p(kops.exp(-2 * a)) - math.log(2.0) + a
    return kops.where(small, near, far)


log_cosh_kernel = with_derivative(_log_cosh_value, tanh_kernel)


def _logit_value(p):
    # Near 1/2 the quotient is 1 and its logarithm would cancel.
    near = kops.logical_and(p > 0.25, p < 0.75)
    q = kops.where(near, p, 0.5)
    r = (2 * q - 1) / kops.where(near, 1 - q, 0.5)
    return kops.where(near, kops.log1p(r), kops.log(p / (1 - p)))


logit_kernel = with_derivative(_logit_value, lambda p: 1 / p / (1 - p))


def _softplus_inverse_value(x):
    return x + kops.log(-kops.expm1(-x))


softplus_inverse_kernel = with_derivative(
    _softplus_inverse_value, lambda x: -1 / kops.expm1(-x)
)


def _elementwise(kernel, x):
    dtype, (x,) = to_compute(x)
    return kops.cast(kernel(x), dtype)


@stable
def sigmoid(x):
    """Computes `1 / (1 + exp(-x))`."""
    return _elementwise(sigmoid_kernel, x)


@stable
def log_sigmoid(x):
    """Computes `log(1 / (1 + exp(-x)))`."""
    return _elementwise(log_sigmoid_kernel, x)


@stable
def softplus(x):
    """Computes `log(1 + exp(x))`."""
    return _elementwise(softplus_kernel, x)


@stable
def softplus_inverse(x):
    """Computes `log(exp(x) - 1)`."""
    return _elementwise(softplus_inverse_kernel, x)


@stable
def log_cosh(x):
    """Computes `log(cosh(x))`."""
    return _elementwise(log_cosh_kernel, x)


@stable
def logit(x):
    """Computes `log(x / (1 - x))`."""
    return _elementwise(logit_kernel, x)


@stable
def tanh(x):
    """Computes the hyperbolic tangent."""
    return _elementwise(tanh_kernel, x)
