"""Activations made of exponentials.

Where an exponential multiplies `x`, `x` is bounded first: beyond the bound
the exponential is 0 in every dtype, and `inf * 0` never arises.
"""

import contextlib
import math

from keras import ops as kops

from stablekeras.activations import minima
from stablekeras.activations.minima import through_root
from stablekeras.ops.elementary import (
    expm1_kernel,
    sech2_kernel,
    tanh_kernel,
    terms,
    x_coth_minus_one,
)
from stablekeras.ops.gradient import with_derivative
from stablekeras.ops.normal import normal_cdf, normal_density
from stablekeras.ops.precision import answered, finfo, to_compute
from stablekeras.ops.sigmoids import (
    log_sigmoid_kernel,
    sigmoid_kernel,
    sigmoid_slope,
    softplus_kernel,
)
from stablekeras.ops.sums import log_softmax as _log_softmax
from stablekeras.ops.sums import softmax as _softmax
from stablekeras.ops.symbolic import stable

__all__ = [
    "celu",
    "elu",
    "exponential",
    "gelu",
    "glu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "squareplus",
    "tanh",
    "tanh_shrink",
]

_FLAT = 1000.0  # exp(-1000) is 0 in every dtype


def _bounded(x, bound=_FLAT):
    """Clip; NaN stays NaN."""
    return kops.where(x > bound, bound, kops.where(x < -bound, -bound, x))


def _remember_logits(output, logits):
    """Let a loss find the logits behind a probability, as Keras does."""
    # Not every backend's tensor takes attributes.
    with contextlib.suppress(AttributeError):
        output._keras_logits = logits
    return output


def _negative_part(x):
    return kops.where(x < 0, x, 0.0)


def _elu_kernel(scale, alpha, width):
    """`scale * x` above 0, `scale * alpha * (exp(x / width) - 1)` below."""
    outer, steep = scale * alpha, scale * alpha / width

    def value(x):
        low = outer * expm1_kernel(_negative_part(x) / width)
        return kops.where(x > 0, scale * x, low)

    def slope(x):
        low = steep * kops.exp(_negative_part(x) / width)
        return kops.where(x > 0, scale, low)

    def second(x):
        low = steep / width * kops.exp(_negative_part(x) / width)
        return kops.where(x > 0, 0.0, low)

    return with_derivative(value, with_derivative(slope, second))


@stable
def elu(x, alpha=1.0):
    """Compute `x` above zero and `alpha * (exp(x) - 1)` below."""
    return answered(_elu_kernel(1.0, alpha, 1.0), x)


@stable
def celu(x, alpha=1.0):
    """Compute `x` above zero and `alpha * (exp(x / alpha) - 1)` below."""
    return answered(_elu_kernel(1.0, alpha, alpha), x)


_SELU = _elu_kernel(
    1.0507009873554804934193349852946, 1.6732632423543772848170429916717, 1.0
)


@stable
def selu(x):
    """Compute the scaled exponential linear unit."""
    return answered(_SELU, x)


@stable
def exponential(x):
    """Compute `exp(x)`."""
    return answered(kops.exp, x)


@stable
def sigmoid(x):
    """Compute `1 / (1 + exp(-x))`."""
    return _remember_logits(answered(sigmoid_kernel, x), x)


@stable
def log_sigmoid(x):
    """Compute `log(sigmoid(x))`."""
    return answered(log_sigmoid_kernel, x)


@stable
def softplus(x):
    """Compute `log(1 + exp(x))`."""
    return answered(softplus_kernel, x)


@stable
def tanh(x):
    """Compute the hyperbolic tangent."""
    return answered(tanh_kernel, x)


def _tanh_shrink_value(x):
    a = kops.abs(x)
    near = a < 0.85
    # x - tanh(x) = x (C - 1) / C with C = x coth(x)
    y = kops.where(near, x, 0.0)
    c = x_coth_minus_one(y, terms(x, 7, 16))
    small = y * (c / (1 + c))
    e = kops.exp(-2 * a)
    large = (a - 1) + 2 * (e / (1 + e))
    return kops.where(near, small, kops.where(x < 0, -large, large))


def _tanh_shrink_second(x):
    return 2 * tanh_kernel(x) * sech2_kernel(x)


_tanh_shrink = with_derivative(
    _tanh_shrink_value,
    with_derivative(lambda x: kops.square(tanh_kernel(x)), _tanh_shrink_second),
)


@stable
def tanh_shrink(x):
    """Compute `x - tanh(x)`."""
    return answered(_tanh_shrink, x)


def _softsign_value(x):
    a = kops.abs(x)
    far = a > 1
    big = 1 / (1 + 1 / kops.where(far, a, 1.0))
    big = kops.where(x < 0, -big, big)
    return kops.where(far, big, x / (1 + kops.where(far, 1.0, a)))


def _softsign_slope(x):
    return kops.square(1 / (1 + kops.abs(x)))


_softsign = with_derivative(_softsign_value, _softsign_slope)


@stable
def softsign(x):
    """Compute `x / (1 + |x|)`."""
    return answered(_softsign, x)


def _gated_value(x, share):
    """Compute `x * share`, 0 where `x` is `-inf`."""
    return kops.where(x < -_FLAT, _bounded(x), x) * share


def _silu_slope_value(x):
    y = _bounded(x)
    s = _gate(y)
    # For x > 0, x * (1 - s) is small; for x < 0, s is.
    return s * (1 + y * _gate(-y))


def _gate(x):
    return sigmoid_kernel(x)


def _silu_second(x):
    y = _bounded(x)
    return sigmoid_slope(y) * (2 - y * tanh_kernel(0.5 * y))


_silu_slope = with_derivative(
    through_root(_silu_slope_value, minima.SILU), _silu_second
)
_silu = with_derivative(
    lambda x: _gated_value(x, sigmoid_kernel(x)), _silu_slope
)


@stable
def silu(x):
    """Compute `x * sigmoid(x)`."""
    return answered(_silu, x)


def _mish_parts(x):
    """Return `T = tanh(softplus(x))` and `T' / T`."""
    e = kops.exp(-kops.abs(x))
    low = x < 0
    # With E = exp(x), n = E (E + 2): T = n / (n + 2) and
    # T' / T = 4 (1 + E) / ((n + 2)(E + 2)); for x > 0 in terms of 1 / E.
    n = e * (e + 2)
    rest = 1 + 2 * e
    whole = rest + 2 * e * e
    t = kops.where(low, n, rest) / kops.where(low, n + 2, whole)
    rate = 4 * (1 + e)
    rate = kops.where(
        low, rate / ((n + 2) * (e + 2)), rate * (e / whole) * (e / rest)
    )
    return t, rate


def _mish_slope_value(x):
    y = _bounded(x)
    t, rate = _mish_parts(y)
    return t * (1 + y * rate)


def _mish_second(x):
    y = _bounded(x)
    t, rate = _mish_parts(y)
    s = sigmoid_kernel(y)
    return t * rate * (2 + y * (1 - s - 2 * t * s))


_mish = with_derivative(
    lambda x: _gated_value(x, _mish_parts(x)[0]),
    with_derivative(through_root(_mish_slope_value, minima.MISH), _mish_second),
)


@stable
def mish(x):
    """Compute `x * tanh(softplus(x))`."""
    return answered(_mish, x)


def _gelu_slope_value(x):
    return normal_cdf(x) + _bounded(x) * normal_density(x)


def _gelu_second(x):
    y = _bounded(x, 40.0)
    return (2 - y * y) * normal_density(y)


_gelu = with_derivative(
    lambda x: _gated_value(x, normal_cdf(x)),
    with_derivative(through_root(_gelu_slope_value, minima.GELU), _gelu_second),
)

_ROOT = 2 * math.sqrt(2 / math.pi)
_CUBE = 0.044715


def _gelu_tanh_value(x):
    # (1 + tanh(u)) / 2 = sigmoid(2 u)
    y = _bounded(x, 40.0)
    u = _ROOT * y * (1 + _CUBE * y * y)
    return _gated_value(x, sigmoid_kernel(u))


def _gelu_tanh_slope(x):
    y = _bounded(x, 40.0)
    u = _ROOT * y * (1 + _CUBE * y * y)
    rate = _ROOT * (1 + 3 * _CUBE * y * y)
    return sigmoid_kernel(u) * (1 + y * (sigmoid_kernel(-u) * rate))


def _gelu_tanh_second(x):
    # The derivative of S(u) + x S'(u) u'; S'' = -S' tanh(u / 2).
    y = _bounded(x, 40.0)
    u = _ROOT * y * (1 + _CUBE * y * y)
    rate = _ROOT * (1 + 3 * _CUBE * y * y)
    bend = 6 * _ROOT * _CUBE * y
    turn = bend - rate * rate * tanh_kernel(0.5 * u)
    return sigmoid_slope(u) * (2 * rate + y * turn)


_gelu_tanh = with_derivative(
    _gelu_tanh_value,
    with_derivative(
        through_root(_gelu_tanh_slope, minima.GELU_TANH), _gelu_tanh_second
    ),
)


@stable
def gelu(x, approximate=False):
    """Compute `x` times the chance of a standard normal below `x`."""
    return answered(_gelu_tanh if approximate else _gelu, x)


@stable
def glu(x, axis=-1):
    """Compute `a * sigmoid(b)` for the two halves of `x`."""
    dtype, (x,) = to_compute(x)
    if x.shape[axis] is not None and x.shape[axis] % 2:
        raise ValueError(
            "The split axis must have an even size. "
            f"Received: x.shape={tuple(x.shape)}, axis={axis}. "
            "Pass twice the channels you want."
        )
    a, b = kops.split(x, 2, axis=axis)
    return kops.cast(a * sigmoid_kernel(b), dtype)


def _squareplus_kernel(b):
    c = math.sqrt(b)

    def hypotenuse(x):
        a = kops.abs(x)
        m = kops.maximum(a, c)
        ratio = kops.minimum(a, c) / (m if c else kops.where(a > 0, m, 1.0))
        return m * kops.sqrt(1 + ratio * ratio)

    def value(x):
        h = hypotenuse(x)
        low = x < 0
        # x + h cancels below zero; (h + x)(h - x) = b.
        below = (0.5 * b) / kops.where(low, h - x, 1.0)
        return kops.where(low, below, 0.5 * x + 0.5 * h)

    def slope(x):
        # Two equal infinities have no quotient.
        y = _bounded(x, finfo(x.dtype).max)
        h = hypotenuse(y)
        if not b:
            return kops.where(y > 0, 1.0, 0.0 * y)
        return value(y) / h

    def second(x):
        h = hypotenuse(x)
        if not b:
            return kops.zeros_like(x)
        return (0.5 * b) / h / h / h

    return with_derivative(value, with_derivative(slope, second))


@stable
def squareplus(x, b=4):
    """Compute `(x + sqrt(x**2 + b)) / 2`."""
    if b < 0:
        raise ValueError(
            f"b must be >= 0. Received: b={b}. Keras' default is 4."
        )
    return answered(_squareplus_kernel(b), x)


@stable
def softmax(x, axis=-1):
    """Compute `exp(x) / sum(exp(x))`."""
    return _remember_logits(_softmax(x, axis=axis), x)


@stable
def log_softmax(x, axis=-1):
    """Compute `log(softmax(x))`."""
    return _log_softmax(x, axis=axis)
