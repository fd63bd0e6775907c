"""Roots and powers with a finite gradient at zero."""

from keras import ops as kops

from stablekeras.ops.precision import stable, to_compute

__all__ = ["power", "sqrt", "sqrt_kernel"]


def sqrt_kernel(x):
    zero = kops.equal(x, 0)
    return kops.where(zero, 0.0, kops.sqrt(kops.where(zero, 1.0, x)))


@stable
def sqrt(x):
    """Computes the square root, with gradient 0 at 0."""
    dtype, (x,) = to_compute(x)
    return kops.cast(sqrt_kernel(x), dtype)


@stable
def power(x1, x2):
    """Computes `x1 ** x2`."""
    return kops.power(x1, x2)
