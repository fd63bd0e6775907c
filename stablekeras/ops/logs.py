"""Logarithms whose argument may be zero, tiny or near one."""

from keras import ops as kops

from stablekeras.ops.gradient import with_derivative
from stablekeras.ops.precision import (
    compute_dtype,
    finfo,
    result_dtype,
    stable,
    to_compute,
)

__all__ = [
    "clamped_log",
    "entropy",
    "log1mexp",
    "xlog1py",
    "xlogy",
]


@stable
def clamped_log(x, floor=None):
    """Computes `log(max(x, floor))`, which still learns below the floor.

    The gradient is `1 / max(x, floor)`, not zero, below the floor.
    `floor` defaults to the square of the epsilon of the compute dtype.
    """
    if floor is None:
        floor = finfo(compute_dtype(result_dtype(x))).eps ** 2
    dtype, (x,) = to_compute(x)

    def value(p):
        return kops.log(kops.maximum(p, floor))

    def slope(p):
        return 1 / kops.maximum(p, floor)

    return kops.cast(with_derivative(value, slope)(x), dtype)


LN2 = 0.6931471805599453


def _log1mexp_value(x):
    near = x < LN2
    far = kops.log1p(-kops.exp(-kops.where(near, LN2, x)))
    close = kops.log(-kops.expm1(-kops.where(near, x, LN2)))
    return kops.where(near, close, far)


log1mexp_kernel = with_derivative(_log1mexp_value, lambda x: 1 / kops.expm1(x))


@stable
def log1mexp(x):
    """Computes `log(1 - exp(-x))` for `x >= 0`."""
    dtype, (x,) = to_compute(x)
    return kops.cast(log1mexp_kernel(x), dtype)


@stable
def xlogy(x1, x2):
    """Computes `x1 * log(x2)`, 0 where `x1 == 0`."""
    dtype, (x, y) = to_compute(x1, x2)
    x, y = x + kops.zeros_like(y), y + kops.zeros_like(x)
    zero = kops.logical_and(kops.equal(x, 0), kops.logical_not(kops.isnan(y)))
    log = kops.log(kops.where(zero, 1.0, y))
    return kops.cast(kops.where(zero, 0.0, x * log), dtype)


@stable
def xlog1py(x1, x2):
    """Computes `x1 * log1p(x2)`, 0 where `x1 == 0`."""
    dtype, (x, y) = to_compute(x1, x2)
    x, y = x + kops.zeros_like(y), y + kops.zeros_like(x)
    zero = kops.logical_and(kops.equal(x, 0), kops.logical_not(kops.isnan(y)))
    log = kops.log1p(kops.where(zero, 0.0, y))
    return kops.cast(kops.where(zero, 0.0, x * log), dtype)


@stable
def entropy(p, axis=-1):
    """Computes `-sum(p * log(p))` along `axis`."""
    return -kops.sum(xlogy(p, p), axis=axis)
