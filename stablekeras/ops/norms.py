"""Lengths and distances, scaled so that no square over- or underflows.

A vector divided by its largest entry has a harmless sum of squares. The
length is homogeneous, so the scale needs no gradient of its own.
"""

import math

import keras
from keras import ops as kops

from stablekeras.ops.powers import power_kernel, sqrt_kernel
from stablekeras.ops.precision import compute_dtype, result_dtype, to_compute
from stablekeras.ops.symbolic import stable

__all__ = ["cdist", "global_norm", "norm", "normalize"]


def _scale(x, axis):
    m = kops.max(kops.abs(x), axis=axis, keepdims=True)
    usable = kops.logical_and(m > 0, m < math.inf)
    return kops.stop_gradient(kops.where(usable, m, 1.0))


def _length(y, axis):
    """Compute the 2-norm of vectors that are scaled already."""
    return sqrt_kernel(kops.sum(kops.square(y), axis=axis, keepdims=True))


def _order_length(y, order, axis):
    """Compute any norm of vectors or matrices that are scaled already."""
    vector = axis is None or isinstance(axis, int) or len(axis) == 1
    if order is None or order == "fro" or (order == 2 and vector):
        return _length(y, axis)
    if vector and isinstance(order, (int, float)):
        a = kops.abs(y)
        if order == 1:
            return kops.sum(a, axis=axis, keepdims=True)
        if 0 < order < math.inf:
            p = kops.convert_to_tensor(float(order), y.dtype)
            total = kops.sum(power_kernel(a, p), axis=axis, keepdims=True)
            return power_kernel(total, 1 / p)
    return kops.norm(y, ord=order, axis=axis, keepdims=True)


@stable
def norm(x, ord=None, axis=None, keepdims=False):
    """Compute a vector or matrix norm."""
    dtype, (x,) = to_compute(x)
    if ord is not None and axis is None and len(x.shape) == 2:
        axis = (0, 1)  # a matrix norm, as in NumPy
    m = _scale(x, axis)
    if ord == 0:
        # The count of nonzero entries: not homogeneous.
        out = kops.norm(x, ord=ord, axis=axis, keepdims=True)
    else:
        out = m * _order_length(x / m, ord, axis)
    if not keepdims:
        out = kops.sum(out, axis=axis)  # over dimensions of size one
    return kops.cast(out, dtype)


@stable
def normalize(x, axis=-1, order=2, epsilon=None):
    """Divide by the norm."""
    dtype, (x,) = to_compute(x)
    m = _scale(x, axis)
    y = x / m
    n = _order_length(y, order, axis)
    if epsilon is not None:
        n = kops.maximum(n, epsilon / m)
    n = kops.where(kops.equal(n, 0), 1.0, n)
    return kops.cast(y / n, dtype)


def global_norm(tensors):
    """Compute the 2-norm of all entries of several tensors."""
    tensors = [t for t in keras.tree.flatten(tensors) if t is not None]
    if not tensors:
        return kops.zeros((), "float32")
    tensors = [kops.convert_to_tensor(t) for t in tensors]
    dtype = compute_dtype(result_dtype(*tensors))
    tensors = [kops.cast(t, dtype) for t in tensors]
    peaks = [kops.max(kops.abs(t)) for t in tensors if 0 not in t.shape]
    if not peaks:
        return kops.zeros((), dtype)
    m = _scale(kops.stack(peaks), axis=None)
    m = kops.reshape(m, ())
    squares = [kops.sum(kops.square(t / m)) for t in tensors]
    return m * sqrt_kernel(sum(squares))


@stable
def cdist(x, y):
    """Compute all distances between the rows of `x` and those of `y`."""
    dtype, (x, y) = to_compute(x, y)
    apart = kops.expand_dims(x, -2) - kops.expand_dims(y, -3)
    m = _scale(apart, -1)
    return kops.cast(kops.squeeze(m * _length(apart / m, -1), -1), dtype)
