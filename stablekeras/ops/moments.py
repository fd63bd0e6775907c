"""Variance and standard deviation, with gradient 0 for constant data."""

from keras import ops as kops

from stablekeras.ops.norms import _scale
from stablekeras.ops.powers import sqrt_kernel
from stablekeras.ops.precision import to_compute
from stablekeras.ops.symbolic import stable

__all__ = ["std", "var"]


def _spread(x, axis):
    """Compute the scale and the variance of the scaled entries."""
    m = _scale(x, axis)
    y = x / m
    d = y - kops.mean(y, axis=axis, keepdims=True)
    # What the rounding of the mean left over.
    d = d - kops.mean(d, axis=axis, keepdims=True)
    return m, kops.mean(kops.square(d), axis=axis, keepdims=True)


def _shrunk(out, axis, keepdims):
    return out if keepdims else kops.sum(out, axis=axis)


@stable
def var(x, axis=None, keepdims=False):
    """Compute the variance."""
    dtype, (x,) = to_compute(x)
    m, v = _spread(x, axis)
    return kops.cast(_shrunk(m * (m * v), axis, keepdims), dtype)


@stable
def std(x, axis=None, keepdims=False):
    """Compute the standard deviation."""
    dtype, (x,) = to_compute(x)
    m, v = _spread(x, axis)
    return kops.cast(_shrunk(m * sqrt_kernel(v), axis, keepdims), dtype)
