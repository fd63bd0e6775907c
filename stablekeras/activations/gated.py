"""Activations that gate their input: x times a share of it.

Where an exponential multiplies `x`, `x` is bounded first: beyond the bound
the exponential is 0 in every dtype, and `inf * 0` never arises.
"""

import math

from keras import ops as kops

from stablekeras.activations import minima
from stablekeras.activations.minima import through_root
from stablekeras.ops.axes import check_axis
from stablekeras.ops.elementary import tanh_kernel
from stablekeras.ops.gradient import with_derivative, with_memory
from stablekeras.ops.normal import cdf_value, normal_density
from stablekeras.ops.precision import answered, at_least, to_compute
from stablekeras.ops.sigmoids import (
    sigmoid_kernel,
    sigmoid_slope,
    sigmoid_value,
)
from stablekeras.ops.symbolic import stable

__all__ = ["bounded", "gelu", "glu", "mish", "silu"]

_FLAT = 1000.0  # exp(-1000) is 0 in every dtype
_STEEP = 80.0  # exp(80) is finite in every dtype, and 1 + exp(-80) is 1


def bounded(x, bound=_FLAT):
    """Clip to `[-bound, bound]`; NaN stays NaN."""
    return kops.clip(x, -bound, bound)


def _gated(x, share):
    """Compute `x * share`, 0 where `x` is `-inf`."""
    return at_least(x, -_FLAT) * share


def _silu_slope_value(x, s):
    # s (1 + x (1 - s)), where 1 - s = 1 / (1 + E) with E = exp(x). The sum is
    # exact to the last bit near its zero at -1.278, where 1 + x is exact.
    y = kops.clip(x, -_FLAT, _STEEP)
    e = kops.exp(y)
    return s * ((1 + y) + e) / (1 + e)


def _silu_second(x):
    y = bounded(x)
    return sigmoid_slope(y) * (2 - y * tanh_kernel(0.5 * y))


_silu = with_memory(
    sigmoid_value,
    _gated,
    _silu_slope_value,
    _silu_second,
)


@stable
def silu(x):
    """Compute `x * sigmoid(x)`.

    0 at `-inf`. Also `swish`.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.5 in float16, 0.5 in bfloat16, 1.1 in float32, 1.0 in
        float64; gradient 0.5, 0.3, 1.0, 1.0.
    Gradient: `s * (1 + x * (1 - s))` with `s = sigmoid(x)`, without
        cancellation near its zero at -1.278.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.silu([-1.0, 0.0, 2.0])]
    [-0.2689, 0.0, 1.7616]

    Reference: Ramachandran, Zoph and Le (2017), arXiv:1710.05941.
    """
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
    y = bounded(x)
    t, rate = _mish_parts(y)
    return t * (1 + y * rate)


def _mish_second(x):
    y = bounded(x)
    t, rate = _mish_parts(y)
    s = sigmoid_kernel(y)
    return t * rate * (2 + y * (1 - s - 2 * t * s))


_mish = with_derivative(
    lambda x: _gated(x, _mish_parts(x)[0]),
    with_derivative(through_root(_mish_slope_value, minima.MISH), _mish_second),
)


@stable
def mish(x):
    """Compute `x * tanh(softplus(x))`.

    0 at `-inf`.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.3 in float16, 0.4 in bfloat16, 0.7 in float32, 0.7 in
        float64; gradient 0.5, 0.4, 1.1, 1.6.
    Gradient: `t + x * t'` with `t = tanh(softplus(x))`; near its zero at -1.192
        by a series that keeps the relative precision.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.mish([-1.0, 0.0, 2.0])]
    [-0.3034, 0.0, 1.944]

    Reference: Misra (2019), arXiv:1908.08681.
    """
    return answered(_mish, x)


def _gelu_slope_value(x, share):
    return share + bounded(x) * normal_density(x)


def _gelu_second(x):
    y = bounded(x, 40.0)
    return (2 - y * y) * normal_density(y)


_gelu = with_memory(
    cdf_value,
    _gated,
    through_root(_gelu_slope_value, minima.GELU),
    _gelu_second,
)

_ROOT = 2 * math.sqrt(2 / math.pi)
_CUBE = 0.044715


def _gelu_tanh_share(x):
    # (1 + tanh(u)) / 2 = sigmoid(2 u)
    y = bounded(x, 40.0)
    return sigmoid_value(_ROOT * y * (1 + _CUBE * y * y))


def _gelu_tanh_slope(x, share):
    y = bounded(x, 40.0)
    u = _ROOT * y * (1 + _CUBE * y * y)
    rate = _ROOT * (1 + 3 * _CUBE * y * y)
    return share * (1 + y * (sigmoid_value(-u) * rate))


def _gelu_tanh_second(x):
    # The derivative of S(u) + x S'(u) u'; S'' = -S' tanh(u / 2).
    y = bounded(x, 40.0)
    u = _ROOT * y * (1 + _CUBE * y * y)
    rate = _ROOT * (1 + 3 * _CUBE * y * y)
    bend = 6 * _ROOT * _CUBE * y
    turn = bend - rate * rate * tanh_kernel(0.5 * u)
    return sigmoid_slope(u) * (2 * rate + y * turn)


_gelu_tanh = with_memory(
    _gelu_tanh_share,
    _gated,
    through_root(_gelu_tanh_slope, minima.GELU_TANH),
    _gelu_tanh_second,
)


@stable
def gelu(x, approximate=False):
    """Compute `x` times the chance of a standard normal below `x`.

    0 at `-inf`.

    Args:
        x: Input tensor.
        approximate: Whether to use `x * (1 + tanh(sqrt(2 / pi) * (x +
            0.044715 * x**3))) / 2` instead.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.4 in float16, 0.1 in bfloat16, 2.3 in float32, 2.1 in
        float64; gradient 0.4, 0.4, 1.8, 1.8.
    Gradient: `P(X < x) + x * p(x)`; near its zero at -0.752 by a series that
        keeps the relative precision.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.gelu([-1.0, 0.0, 2.0])]
    [-0.1587, 0.0, 1.9545]

    Reference: Hendrycks and Gimpel (2016), arXiv:1606.08415.
    """
    return answered(_gelu_tanh if approximate else _gelu, x)


@stable
def glu(x, axis=-1):
    """Compute `a * sigmoid(b)` for the two halves of `x`.

    Args:
        x: Tensor with an even size along `axis`.
        axis: Integer, the axis that is split.

    Returns:
        Tensor with half the size along `axis`.

    Raises:
        ValueError: If the size along `axis` is odd.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.6 in float32, 0.2 in
        float64; gradient 0.5, 0.5, 1.8, 1.1.
    Gradient: `sigmoid(b)` and `a * sigmoid(b) * sigmoid(-b)`.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.glu([2.0, 0.0])]
    [1.0]

    Reference: Dauphin et al. (2017), arXiv:1612.08083.
    """
    dtype, (x,) = to_compute(x)
    check_axis(x, axis)
    if x.shape[axis] is not None and x.shape[axis] % 2:
        raise ValueError(
            "The split axis must have an even size. "
            f"Received: x.shape={tuple(x.shape)}, axis={axis}. "
            "Pass twice the channels you want."
        )
    a, b = kops.split(x, 2, axis=axis)
    return kops.cast(a * sigmoid_kernel(b), dtype)
