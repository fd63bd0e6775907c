"""Roots and powers. A vertical tangent has gradient 0, not infinity."""

import keras
from keras import ops as kops

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
    """Compute the square root, with gradient 0 at 0."""
    return answered(sqrt_kernel, x)


def _rsqrt_value(x):
    return 1 / kops.sqrt(x)


rsqrt_kernel = with_derivative(
    _rsqrt_value, lambda x: -0.5 * rsqrt_kernel(x) / x, singular=True
)


@stable
def rsqrt(x):
    """Compute `1 / sqrt(x)`."""
    return answered(rsqrt_kernel, x)


def _power_by_base(x, y):
    zero = kops.equal(x, 0)
    base = kops.where(zero, 1.0, x)
    # y - 1 is rounded where y is small; the quotient is not.
    small = kops.abs(y) <= 1
    near = power_kernel(base, y) / base
    far = power_kernel(base, kops.where(small, 0.0, y) - 1)
    slope = y * kops.where(small, near, far)
    at_zero = kops.where(kops.equal(y, 1), kops.ones_like(y), 0.0 * y)
    blowup = kops.where(y < 0, -float("inf"), at_zero)
    return kops.where(zero, blowup, slope)


def _power_by_exponent(x, y):
    safe = kops.where(x > 0, x, 1.0)
    return kops.where(
        x > 0, power_kernel(safe, y) * kops.log(safe), 0.0 * x * y
    )


power_kernel = with_derivatives(kops.power, _power_by_base, _power_by_exponent)


@stable
def power(x1, x2):
    """Compute `x1 ** x2`."""
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
    m = kops.maximum(a, b)
    plain = kops.logical_or(kops.equal(m, 0), kops.equal(m, float("inf")))
    ratio = kops.minimum(a, b) / kops.where(plain, 1.0, m)
    ratio = kops.where(plain, 0.0 * ratio * 0.0, ratio)
    return m, kops.sqrt(1 + ratio * ratio)


def _hypot_value(x, y):
    m, r = _scaled(x, y)
    return m * r


def _hypot_slope(x, y):
    m, r = _scaled(x, y)
    zero = kops.equal(m, 0)
    return x / kops.where(zero, 1.0, m) / r


def _hypot_second(x, y):
    # y**2 / h**3
    m, r = _scaled(x, y)
    zero = kops.equal(m, 0)
    m = kops.where(zero, 1.0, m)
    u = y / m / r
    return kops.where(zero, 0.0, u * (u / m / r))


def _hypot_mixed(x, y):
    m, r = _scaled(x, y)
    zero = kops.equal(m, 0)
    m = kops.where(zero, 1.0, m)
    return kops.where(zero, 0.0, -(x / m / r) * (y / m / r / m / r))


_hypot_by_first = with_derivatives(_hypot_slope, _hypot_second, _hypot_mixed)
hypot_kernel = with_derivatives(
    _hypot_value, _hypot_by_first, lambda x, y: _hypot_by_first(y, x)
)


@stable
def hypot(x1, x2):
    """Compute `sqrt(x1**2 + x2**2)`."""
    return answered(hypot_kernel, x1, x2)
