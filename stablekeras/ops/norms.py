"""Lengths of vectors, scaled so that no square over- or underflows."""

from keras import ops as kops

from stablekeras.ops.powers import sqrt_kernel
from stablekeras.ops.precision import stable, to_compute

__all__ = ["norm", "normalize"]


def _scale(x, axis):
    m = kops.max(kops.abs(x), axis=axis, keepdims=True)
    usable = kops.logical_and(m > 0, kops.isfinite(m))
    return kops.stop_gradient(kops.where(usable, m, 1.0))


@stable
def norm(x, ord=None, axis=None, keepdims=False):
    """Computes a norm, with gradient 0 at a zero vector."""
    dtype, (x,) = to_compute(x)
    m = _scale(x, axis)
    y = x / m
    if ord is None or (ord == 2 and isinstance(axis, int)):
        n = m * sqrt_kernel(kops.sum(kops.square(y), axis=axis, keepdims=True))
    else:
        n = m * kops.norm(y, ord=ord, axis=axis, keepdims=True)
    if not keepdims:
        n = kops.squeeze(n, axis=axis)
    return kops.cast(n, dtype)


@stable
def normalize(x, axis=-1, order=2, epsilon=None):
    """Divides by the norm; a zero vector stays zero."""
    dtype, (x,) = to_compute(x)
    m = _scale(x, axis)
    y = x / m
    n = norm(y, ord=order, axis=axis, keepdims=True)
    if epsilon is not None:
        n = kops.maximum(n, epsilon / m)
    return kops.cast(y / kops.where(kops.equal(n, 0), 1.0, n), dtype)
