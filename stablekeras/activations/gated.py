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
from stablekeras.ops.normal import normal_density, tail_factors
from stablekeras.ops.precision import (
    answered,
    at_least,
    at_most,
    to_compute,
)
from stablekeras.ops.sigmoids import sigmoid_kernel, sigmoid_slope
from stablekeras.ops.symbolic import stable

__all__ = ["bounded", "gelu", "glu", "mish", "silu"]

_FLAT = 1000.0  # exp(-1000) is 0 in every dtype
_STEEP = 80.0  # exp(80) is finite in every dtype, and 1 + exp(-80) is 1


def bounded(x, bound=_FLAT):
    """Clip to `[-bound, bound]`; NaN stays NaN."""
    return kops.clip(x, -bound, bound)


def _half(x):
    # Half the exponent: exp(x) underflows before x * exp(x) does. So x is
    # multiplied by the halves, one by one. The largest is a power of two: it
    # and its reciprocal cancel exactly.
    return at_most(kops.exp(0.5 * x), 2.0**30)


def _silu_value(x, h):
    # sigmoid(x) = h * h / (1 + h * h); 0 at -inf.
    return (at_least(x, -_FLAT) * (h / (1 + h * h))) * h


def _silu_slope_value(x, h):
    # s (1 + x (1 - s)), where 1 - s = 1 / (1 + E) with E = exp(x). The sum is
    # exact to the last bit near its zero at -1.278, where 1 + x is exact.
    y = kops.clip(x, -_FLAT, _STEEP)
    e = kops.exp(y)
    return ((((1 + y) + e) / (1 + e)) * (h / (1 + h * h))) * h


def _silu_second(x):
    y = bounded(x)
    return sigmoid_slope(y) * (2 - y * tanh_kernel(0.5 * y))


_silu = with_memory(_half, _silu_value, _silu_slope_value, _silu_second)


@stable
def silu(x):
    """Compute `x * sigmoid(x)`.

    0 at `-inf`. Also `swish`.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.5 in float16, 0.5 in bfloat16, 1.6 in float32, 0.7 in
        float64; gradient 0.5, 0.3, 1.8, 0.9.
    Gradient: `s * (1 + x * (1 - s))` with `s = sigmoid(x)`, without
        cancellation near its zero at -1.278.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.silu([-1.0, 0.0, 2.0])]
    [-0.2689, 0.0, 1.7616]

    Reference: Ramachandran, Zoph and Le (2017), arXiv:1710.05941.
    """
    return answered(_silu, x)


def _exp_parts(x):
    """Return two factors of `exp(x)`, alive where their product underflows."""
    far = x < -64
    one = kops.ones_like(x)
    shifted = kops.where(far, x + 40, x)  # exact where it is taken
    scale = kops.where(far, math.exp(-40) * one, one)
    return kops.exp(at_most(shifted, _STEEP)), scale


def _mish_parts(x):
    """Return `T = tanh(softplus(x))` as two factors, and `T' / T`."""
    large, lead = _exp_parts(-kops.abs(x))
    e = large * lead
    low = x < 0
    # With E = exp(x), n = E (E + 2): T = n / (n + 2) and
    # T' / T = 4 (1 + E) / ((n + 2)(E + 2)); for x > 0 in terms of 1 / E.
    n = e * (e + 2)
    rest = 1 + 2 * e
    whole = rest + 2 * e * e
    t = kops.where(low, large * (e + 2), rest) / kops.where(low, n + 2, whole)
    lead = kops.where(low, lead, 1.0)
    rate = 4 * (1 + e)
    rate = kops.where(
        low, rate / ((n + 2) * (e + 2)), rate * (e / whole) * (e / rest)
    )
    return lead, t, rate


def _mish_value(x):
    lead, t, _ = _mish_parts(x)
    return (at_least(x, -_FLAT) * t) * lead


def _mish_slope_value(x):
    # E (4 (1 + x) + (4 x + 6) E + 4 E**2 + E**3) / (n + 2)**2: left of its
    # zero no terms cancel.
    y = bounded(x)
    large, lead = _exp_parts(-kops.abs(y))
    e = large * lead
    low = y < 0
    left = 4 * (1 + y) + e * ((4 * y + 6) + e * (4 + e))
    right = 1 + e * (4 + e * ((4 * y + 6) + e * (4 * (1 + y))))
    size = kops.where(low, e * (e + 2) + 2, 1 + 2 * e + 2 * e * e)
    slope = kops.where(low, large * left, right) / (size * size)
    return slope * kops.where(low, lead, 1.0)


def _mish_second(x):
    y = bounded(x)
    lead, t, rate = _mish_parts(y)
    t = lead * t
    s = sigmoid_kernel(y)
    return t * rate * (2 + y * (1 - s - 2 * t * s))


_mish = with_derivative(
    _mish_value,
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

    Accuracy: worst ULP 0.3 in float16, 0.4 in bfloat16, 1.0 in float32, 0.8 in
        float64; gradient 0.5, 0.4, 2.0, 1.9.
    Gradient: `t + x * t'` with `t = tanh(softplus(x))`; near its zero at -1.192
        by a series that keeps the relative precision.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.mish([-1.0, 0.0, 2.0])]
    [-0.3034, 0.0, 1.944]

    Reference: Misra (2019), arXiv:1908.08681.
    """
    return answered(_mish, x)


# With a = |x| and P the chance below -a, gelu is relu(x) - a P. P is a small
# factor and an exponential; a takes the small one first.


def _gelu_value(x, factor, e):
    a = at_most(kops.abs(x), 40.0)
    return kops.relu(x) - (a * factor) * e


def _gelu_slope_value(x, factor, e):
    a = at_most(kops.abs(x), 40.0)
    below = e * (factor - a * (1 / math.sqrt(2 * math.pi)))
    return kops.where(x > 0, 1 - below, below)


def _gelu_second(x):
    y = bounded(x, 40.0)
    return (2 - y * y) * normal_density(y)


_gelu = with_memory(
    lambda x: tail_factors(kops.abs(x)),
    _gelu_value,
    through_root(_gelu_slope_value, minima.GELU),
    _gelu_second,
)

_ROOT = 2 * math.sqrt(2 / math.pi)
_CUBE = 0.044715 * _ROOT


def _gelu_tanh_parts(x):
    # (1 + tanh(u)) / 2 = sigmoid(2 u)
    y = bounded(x, 40.0)
    return _exp_parts(y * (_ROOT + (_CUBE * y) * y))


def _gelu_tanh_value(x, e, scale):
    return (at_least(x, -40.0) * (e / (1 + e * scale))) * scale


def _gelu_tanh_slope(x, e, scale):
    y = bounded(x, 40.0)
    rate = _ROOT + (3 * _CUBE * y) * y
    whole = 1 + e * scale
    return (((whole + y * rate) / whole) * (e / whole)) * scale


def _gelu_tanh_second(x):
    # The derivative of S(v) + x S'(v) v'; S'' = -S' tanh(v / 2).
    y = bounded(x, 40.0)
    v = y * (_ROOT + (_CUBE * y) * y)
    rate = _ROOT + (3 * _CUBE * y) * y
    bend = 6 * _CUBE * y
    turn = bend - rate * rate * tanh_kernel(0.5 * v)
    return sigmoid_slope(v) * (2 * rate + y * turn)


_gelu_tanh = with_memory(
    _gelu_tanh_parts,
    _gelu_tanh_value,
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

    Accuracy: worst ULP 0.4 in float16, 0.1 in bfloat16, 1.6 in float32, 1.0 in
        float64; gradient 0.4, 0.4, 1.5, 1.1.
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
