"""Sums of many entries that keep their digits.

XLA adds one entry after the other, and the kernels a few at a time: of equal
entries every rounding points the same way. The mean of a million times 0.7 is
7,000 units off in the last place under XLA, and 28 in a kernel.
"""

import math

import keras
from keras import ops as kops

__all__ = ["entries", "total"]

# Entries from which on a sum is worth float64, an image of 256 x 256: fewer
# lose less, and a sum of 1,000 takes up to twice as long with it.
_MANY = 1 << 16


def total(x, axis=None, keepdims=False):
    """Sums along `axis`, in float64 if float32 would lose digits.

    On JAX, which has no float64 unless asked for it, and on torch, which adds
    in pairs, it is the plain sum.

    Args:
        x: Tensor.
        axis: Integer, tuple or None for all.
        keepdims: Whether to keep `axis` with size one.
    """
    if not _loses_digits(x, axis):
        return kops.sum(x, axis=axis, keepdims=keepdims)
    wide = kops.sum(kops.cast(x, "float64"), axis=axis, keepdims=keepdims)
    return kops.cast(wide, x.dtype)


def entries(shape, axis):
    """Returns how many entries a sum along `axis` has, 0 if not known."""
    axes = range(len(shape)) if axis is None else axis
    sizes = [shape[i] for i in ((axes,) if isinstance(axes, int) else axes)]
    return 0 if None in sizes else math.prod(sizes)


def _loses_digits(x, axis):
    if keras.config.backend() != "tensorflow":
        return False
    if keras.backend.standardize_dtype(x.dtype) != "float32":
        return False
    return x.shape.rank is not None and entries(x.shape, axis) >= _MANY
