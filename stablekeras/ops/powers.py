"""Roots and powers. A vertical tangent has gradient 0, not infinity."""

import math

import keras
from keras import ops as kops

from stablekeras.ops.elementary import reciprocal
from stablekeras.ops.gradient import with_derivative, with_derivatives
from stablekeras.ops.precision import answered
from stablekeras.ops.symbolic import stable

__all__ = ["hypot", "power", "rsqrt", "sqrt", "sqrt_kernel"]


def sqrt_kernel(x):
    """Compute the square root of a tensor in compute precision."""
    zero = kops.equal(x, 0)
    return kops.where(zero, x * 0, kops.sqrt(kops.where(zero, 1.0, x)))


@stable
def sqrt(x):
    """Compute the square root, with gradient 0 at 0.

    Args:
        x: Tensor of any shape, `x >= 0`.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.
        NaN below 0.

    Accuracy: worst ULP 0.1 in float16, 0.1 in bfloat16, 0.1 in float32, 0.1 in
        float64; gradient 0.2, 0.1, 0.6, 0.5.
    Gradient: `0.5 / sqrt(x)`, and 0 at 0, where the exact slope is infinite.

    Example:
    >>> from stablekeras import ops
    >>> [round(float(v), 4) for v in ops.sqrt([0.0, 2.0])]
    [0.0, 1.4142]
    """
    return answered(sqrt_kernel, x)


def _rsqrt_value(x):
    return 1 / kops.sqrt(x)


def _rsqrt_slope(x):
    # Not `/ x`: XLA would divide by sqrt(x) * x, which may be 0.
    return -0.5 * rsqrt_kernel(x) * reciprocal(x)


rsqrt_kernel = with_derivative(_rsqrt_value, _rsqrt_slope, singular=True)


@stable
def rsqrt(x):
    """Compute `1 / sqrt(x)`.

    Args:
        x: Tensor of any shape, `x >= 0`.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.
        `inf` at 0; NaN below.

    Accuracy: worst ULP 0.2 in float16, 0.1 in bfloat16, 0.5 in float32, 0.5 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: `-0.5 / (x * sqrt(x))`, finite where that is representable.

    Example:
    >>> from stablekeras import ops
    >>> round(float(ops.rsqrt(2.0)), 4)
    0.7071
    """
    return answered(rsqrt_kernel, x)


def _lowered(x, y, factor, order):
    """Compute `factor * x**(y - order)` for `x != 0`.

    The difference would be rounded where `y` is small; the quotient is not.
    """
    small = kops.abs(y) <= 1
    power = _power_value(x, y)
    # A factor less than 1 saves the quotient of a large power from overflow,
    # and would lose a small power to underflow.
    saves = kops.logical_and(kops.abs(x) < 1, power * power >= kops.abs(x))
    near = (kops.where(saves, factor, 1.0) * power) / x
    near = kops.where(saves, near, factor * near)
    if order == 2:
        # Not `/ x / x`: XLA would divide by x * x, which may be 0.
        near = near * reciprocal(x)
    exponent = kops.where(small, 0.0, y) - order
    # A large factor saves a power from underflow if it meets its root first.
    steep = kops.abs(exponent) > 16
    far = _power_value(
        kops.where(steep, kops.abs(x), x),
        kops.where(steep, 0.5 * exponent, exponent),
    )
    root = kops.where(steep, far * _parity(x, exponent), 1.0)
    # The power wins over the factor, should that be infinite.
    far = kops.where(kops.equal(far, 0), 0.0, root * (factor * far))
    return kops.where(small, near, far)


def _parity(x, exponent):
    """Compute `sign(x)**exponent`, NaN for a root of a negative number."""
    odd = 2 * kops.floor(0.5 * exponent) - exponent  # 0 if even, -1 if odd
    real = kops.equal(odd, kops.floor(odd))
    return kops.where(x < 0, kops.where(real, 1 + 2 * odd, math.nan), 1.0)


def _base_slope(x, y):
    zero = kops.equal(x, 0)
    slope = _lowered(kops.where(zero, 1.0, x), y, y, 1)
    # A vertical tangent has slope 0; below, the value itself is infinite.
    at_zero = kops.where(kops.equal(y, 1), 1.0, 0.0)
    return kops.where(zero, kops.where(y < 0, -math.inf, at_zero), slope)


def _base_second(x, y):
    zero = kops.equal(x, 0)
    second = _lowered(kops.where(zero, 1.0, x), y, y * (y - 1), 2)
    at_zero = kops.where(kops.equal(y, 2), 2.0, 0.0)
    return kops.where(zero, kops.where(y < 0, math.inf, at_zero), second)


def _mixed_second(x, y):
    positive = x > 0
    base = kops.where(positive, x, 1.0)
    factor = 1 + y * kops.log(base)
    return kops.where(positive, _lowered(base, y, factor, 1), 0.0)


def _exponent_slope(x, y):
    # Where x <= 0 the power is real for integers only; so no slope.
    positive = x > 0
    base = kops.where(positive, x, 1.0)
    # Halves do not underflow before the logarithm has multiplied them.
    half = _power_value(base, 0.5 * y)
    slope = half * (kops.log(base) * half)
    nan = kops.logical_or(kops.isnan(x), kops.isnan(y))
    return kops.where(positive, slope, kops.where(nan, x * y, 0.0))


def _exponent_second(x, y):
    positive = x > 0
    log = kops.log(kops.where(positive, x, 1.0))
    return kops.where(positive, log * _exponent_slope(x, y), 0.0)


def _power_value(x, y):
    return kops.power(x, y)


power_kernel = with_derivatives(
    _power_value,
    with_derivatives(_base_slope, _base_second, _mixed_second),
    with_derivatives(_exponent_slope, _mixed_second, _exponent_second),
)


@stable
def power(x1, x2):
    """Compute `x1 ** x2`.

    Integers give integers, as in Keras.

    Args:
        x1: Tensor, the bases.
        x2: Tensor that broadcasts with `x1`, the exponents.

    Returns:
        Tensor of the broadcast shape. NaN for a negative base with an
        exponent that is not an integer.

    Accuracy: worst ULP 0.4 in float16, 0.3 in bfloat16, 0.3 in float32, 0.2 in
        float64; gradient 0.2, 0.0, 0.9, 1.1.
    Gradient: `x2 * x1**(x2 - 1)`, and 0 at a base of 0 where the exact slope is
        infinite; `x1**x2 * log(x1)`, and 0 for `x1 <= 0`.

    Example:
    >>> from stablekeras import ops
    >>> [round(float(v), 4) for v in ops.power([0.0, 2.0], [0.0, 0.5])]
    [1.0, 1.4142]
    """
    if _all_integers(x1, x2):
        return kops.power(x1, x2)
    return answered(power_kernel, x1, x2)


def _all_integers(*xs):
    dtypes = [
        keras.backend.standardize_dtype(
            getattr(x, "dtype", None) or kops.convert_to_tensor(x).dtype
        )
        for x in xs
    ]
    return not any("float" in d for d in dtypes)


def _scaled(x, y):
    """Return the larger size and `sqrt(1 + (small / large)**2)`."""
    a, b = kops.abs(x), kops.abs(y)
    # Not kops.maximum, which narrows float64 on torch.
    m = kops.where(a > b, a, b)
    plain = kops.logical_or(kops.equal(m, 0), kops.equal(m, float("inf")))
    ratio = kops.where(a > b, b, a) / kops.where(plain, 1.0, m)
    ratio = kops.where(plain, 0.0 * ratio * 0.0, ratio)
    return m, kops.sqrt(1 + ratio * ratio)


def _hypot_value(x, y):
    m, r = _scaled(x, y)
    return m * r


def _direction(x, y):
    """Return the two slopes and `1 / hypot`; 0 at the origin."""
    m, r = _scaled(x, y)
    m = kops.where(kops.equal(m, 0), 1.0, m)
    # Not `/ m / r`: XLA would divide by m * r, which may be infinite.
    r = 1 / r
    return x / m * r, y / m * r, r / m


def _hypot_slope(x, y):
    return _direction(x, y)[0]


def _hypot_second(x, y):
    # y**2 / h**3
    _, v, inverse = _direction(x, y)
    return v * (v * inverse)


def _hypot_mixed(x, y):
    u, v, inverse = _direction(x, y)
    return -u * (v * inverse)


_hypot_by_first = with_derivatives(_hypot_slope, _hypot_second, _hypot_mixed)
hypot_kernel = with_derivatives(
    _hypot_value, _hypot_by_first, lambda x, y: _hypot_by_first(y, x)
)


@stable
def hypot(x1, x2):
    """Compute `sqrt(x1**2 + x2**2)`.

    Neither over- nor underflows where the length itself does not.

    Args:
        x1: Tensor.
        x2: Tensor that broadcasts with `x1`.

    Returns:
        Tensor of the broadcast shape. NaN stays NaN.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.1 in float32, 0.2 in
        float64; gradient 0.5, 0.4, 1.5, 1.3.
    Gradient: `x1 / hypot` and `x2 / hypot`, 0 at the origin; finite even where
        the length overflows.

    Example:
    >>> from stablekeras import ops
    >>> float(ops.hypot(3e30, 4e30)) / 1e30
    4.999999924121604
    """
    return answered(hypot_kernel, x1, x2)
