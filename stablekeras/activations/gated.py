"""Activations that gate their input: x times a share of it.

Where an exponential multiplies `x`, `x` is bounded first: beyond the bound
the exponential is 0 in every dtype, and `inf * 0` never arises.
"""

import math

from keras import ops as kops

from stablekeras.activations import roots
from stablekeras.activations.roots import through_root
from stablekeras.ops.axes import check_axis
from stablekeras.ops.elementary import split, tanh_kernel, terms
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
_DEEP = 64.0  # exp(-64) is normal in every dtype, and 1 + exp(-64) is 1


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
    # At -a it is s (1 - a (1 - s)) = E (1 - a + E) / (1 + E)**2, E = exp(-a),
    # and the rest to 1 at a. The sum is exact to the last bit near its zero
    # at -1.278, where 1 - a is exact.
    a = at_most(kops.abs(x), _FLAT)
    e = kops.exp(-a)
    rest = 1 - a
    below = ((rest + e) / (1 + e)) * (e / (1 + e))
    below = kops.where(x < -_DEEP, (rest * h) * h, below)
    return kops.where(x > 0, 1 - below, below)


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
        float64; gradient 0.5, 0.3, 1.2, 0.6.
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
    far = x < -_DEEP
    one = kops.cast(1.0, x.dtype)
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
    # Left of 0 it is t (2 (1 + x) + E (1 - 2 x t)) with E = exp(x) and
    # t = E / (n + 2), where 1 + x is exact near the zero; right of 0, with
    # E = exp(-x) and t = E / (1 + 2 E + 2 E**2), what is beyond 1.
    y = bounded(x)
    large, lead = _exp_parts(-kops.abs(y))
    e = large * lead
    low = y < 0
    size = kops.where(low, e * (e + 2) + 2, 1 + 2 * e + 2 * e * e)
    share = large / size
    t = share * lead
    left = (share * (2 * (1 + y) + e * (1 - 2 * y * t))) * lead
    right = 1 + 2 * t * (2 * t * (y * (1 + e)) - e)
    return kops.where(low, left, right)


def _mish_second(x):
    y = bounded(x)
    lead, t, rate = _mish_parts(y)
    t = lead * t
    s = sigmoid_kernel(y)
    return t * rate * (2 + y * (1 - s - 2 * t * s))


_mish = with_derivative(
    _mish_value,
    with_derivative(
        _mish_slope_value,
        through_root(
            through_root(_mish_second, roots.MISH_LEFT_BEND),
            roots.MISH_RIGHT_BEND,
        ),
    ),
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
        float64; gradient 0.5, 0.4, 1.3, 1.1.
    Gradient: `t + x * t'` with `t = tanh(softplus(x))`, without cancellation
        near its zero at -1.192.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.mish([-1.0, 0.0, 2.0])]
    [-0.3034, 0.0, 1.944]

    Reference: Misra (2019), arXiv:1908.08681.
    """
    return answered(_mish, x)


_SQRT2 = (1.4142135623730951, -9.667293313452913e-17)

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
    a = at_most(kops.abs(x), 40.0)
    high, low = split(_SQRT2, x)
    return (((high - a) + low) * (high + a)) * normal_density(a)


_gelu = with_memory(
    lambda x: tail_factors(kops.abs(x)),
    _gelu_value,
    through_root(_gelu_slope_value, roots.GELU),
    _gelu_second,
)

# (1 + tanh(u)) / 2 = sigmoid(v) with v = 2 u = x (ROOT + CUBE x**2). Again
# with a = |x|: the slope at a is the rest to 1 of the slope at -a.
_ROOT = 2 * math.sqrt(2 / math.pi)
_CUBE = 0.044715 * _ROOT
_DISTANT = 8.75  # v is 62 there
# ROOT in 12 bits behind the point (28), and what they leave over.
_ROOT_SINGLE = (1.595703125, 6.599660573071176e-05)
_ROOT_DOUBLE = (1.5957691222429276, -6.37196839509747e-10)


def _cubic(a):
    """Compute `v` in two parts, for `0 <= a` where `exp(-v)` is not 0.

    In one part it is off by several ULP of `exp(v)`. The leading part here is
    a product of two numbers of few bits: the grain of `a` has 8 of 24 (17 of
    53), the factor 16 (35).
    """
    grain = terms(a, 2.0**4, 2.0**12)
    steep = terms(a, _ROOT_SINGLE, _ROOT_DOUBLE)
    coarse = kops.round(a * grain) / grain
    fine = a - coarse
    z = coarse * coarse
    high = steep[0] + 0.0625 * z
    low = (steep[1] + (_CUBE - 0.0625) * z) + _CUBE * (fine * (coarse + a))
    product = coarse * high
    rest = fine * high + a * low
    v = product + rest
    return v, (product - v) + rest


def _gelu_tanh_parts(x):
    """Return `exp(-v)`, beyond `_DISTANT` times `exp(40)`, and `1 - a v'`."""
    a = at_most(kops.abs(x), terms(x, 12.0, 24.0))
    v, rest = _cubic(a)
    e = kops.exp(kops.where(a > _DISTANT, 40 - v, -v))
    # a v' is v + 2 CUBE a**3, and 1 - v is exact near the slope's zero.
    excess = (1 - v) - ((2 * _CUBE * a) * (a * a) + rest)
    return e - e * rest, excess


def _gelu_tanh_share(a, e):
    """Return `sigmoid(-v)` as two factors."""
    one = kops.cast(1.0, e.dtype)
    lead = kops.where(a > _DISTANT, math.exp(-40) * one, one)
    return e / (1 + e * lead), lead


def _gelu_tanh_value(x, e, excess):
    a = at_most(kops.abs(x), 24.0)
    share, lead = _gelu_tanh_share(a, e)
    return kops.relu(x) - (a * share) * lead


def _gelu_tanh_slope(x, e, excess):
    # At -a it is s (1 - a v' (1 - s)) with s = sigmoid(-v).
    a = at_most(kops.abs(x), 24.0)
    share, lead = _gelu_tanh_share(a, e)
    below = (share * (excess + (1 - excess) * (share * lead))) * lead
    return kops.where(x > 0, 1 - below, below)


def _gelu_tanh_second(x):
    # The derivative of S(v) + x S'(v) v'; S'' = -S' tanh(v / 2). It is even.
    a = at_most(kops.abs(x), 24.0)
    v = a * (_ROOT + (_CUBE * a) * a)
    rate = _ROOT + (3 * _CUBE * a) * a
    bend = 6 * _CUBE * a
    turn = bend - rate * rate * tanh_kernel(0.5 * v)
    h = kops.exp(-0.5 * v)
    share = h / (1 + h * h)  # the square of it may underflow
    return (share * (2 * rate + a * turn)) * share


_gelu_tanh_bend = through_root(_gelu_tanh_second, roots.GELU_TANH_BEND)
_gelu_tanh = with_memory(
    _gelu_tanh_parts,
    _gelu_tanh_value,
    _gelu_tanh_slope,
    lambda x: _gelu_tanh_bend(kops.abs(x)),
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
        keeps the relative precision. If approximate, that of the formula
        above, whose exponent is computed in two parts.

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
