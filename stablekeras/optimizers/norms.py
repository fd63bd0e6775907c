"""Norms that neither overflow nor underflow, at the price of a plain one.

A plain norm squares its entries: in float32 it is infinite from 1.8e19 on and
0 below 1e-22, although the norm itself is an ordinary number. Here the plain
sums of squares are taken first, one pass over the gradients. Only if their
total is out of the safe range are the gradients divided by their largest
magnitude and summed again, so that a healthy step never pays for that.
"""

import math

import keras
import numpy as np
from keras import ops

from stablekeras.optimizers import backends

__all__ = [
    "dtype_of_norms",
    "euclidean",
    "half_sum_of_squares",
    "range_of",
    "tensor_norms",
    "unit_norms",
]


def half_sum_of_squares(x, dtype):
    """Computes half the plain sum of the squares of a tensor, in `dtype`."""
    return backends.half_sum_of_squares(ops.cast(backends.values_of(x), dtype))


def euclidean(norms):
    """Computes `sqrt(sum(norms**2))` for a vector, without over- or underflow.

    Args:
        norms: Vector of non-negative numbers; NaN and Inf stay what they are.

    Returns:
        Scalar of the dtype of `norms`.
    """
    largest = ops.max(norms)
    scale = ops.where(largest > 0, largest, ops.ones_like(largest))
    return scale * ops.sqrt(ops.sum(ops.square(norms / scale)))


def unit_norms(x, axes):
    """Computes the norms along axes, without over- or underflow.

    Args:
        x: Tensor, float32 or float64.
        axes: Tuple of int; `None` for all, `()` for none.

    Returns:
        Tensor of the rank of `x`, of size 1 along the axes.
    """
    if axes == ():
        return ops.abs(x)
    largest = ops.max(ops.abs(x), axis=axes, keepdims=True)
    scale = ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = ops.square(x / scale)
    return scale * ops.sqrt(ops.sum(squares, axis=axes, keepdims=True))


def tensor_norms(tensors, dtype, every_tensor=False):
    """Computes the norm of each tensor and the norm of all of them together.

    Args:
        tensors: List of tensors; `None` counts as a tensor of norm 0.
        dtype: `"float32"` or `"float64"`, in which the norms are computed.
        every_tensor: Whether a single small tensor among large ones must have
            an accurate norm too. Without it, its entries may underflow as long
            as that does not show in the norm of all.

    Returns:
        `(norms, norm)`: a vector with one entry for each tensor, and a scalar.
        Both are finite exactly if every entry is finite and the norm itself
        can be represented in `dtype`.
    """
    zero = ops.zeros((), dtype)
    halves = ops.stack(
        [zero if x is None else half_sum_of_squares(x, dtype) for x in tensors]
    )
    squares = 2.0 * halves
    total = ops.sum(squares)
    # Below this, squares that underflowed could be seen in the result.
    smallest = 1e-140 if dtype == "float64" else 1e-20
    lowest = ops.min(squares) if every_tensor else total
    ordinary = ops.logical_and(lowest >= smallest, ops.isfinite(total))

    def scaled():
        norms = ops.stack(
            [zero if x is None else _scaled_norm(x, dtype) for x in tensors]
        )
        return norms, euclidean(norms)

    return backends.cond(
        ordinary,
        lambda: (ops.sqrt(squares), ops.sqrt(total)),
        backends.rarely(scaled),
    )


def _scaled_norm(x, dtype):
    """Computes a norm after division by the largest magnitude.

    `max` may ignore a NaN, but then the NaN is still in the quotient; and an
    Inf gives Inf/Inf there. So the norm is finite only if all entries are.
    """
    x = ops.cast(backends.values_of(x), dtype)
    if 0 in x.shape:
        return ops.zeros((), dtype)
    largest = ops.max(ops.abs(x))
    scale = ops.where(largest > 0, largest, ops.ones_like(largest))
    return scale * ops.sqrt(2.0 * half_sum_of_squares(x / scale, dtype))


def dtype_of_norms(variables):
    """Returns the dtype in which the norms of these variables are computed.

    Raises:
        TypeError: If a variable is complex.
    """
    dtypes = {keras.backend.standardize_dtype(v.dtype) for v in variables}
    if strange := sorted(d for d in dtypes if d.startswith("complex")):
        raise TypeError(
            "The variables of a ClippedOptimizer must be real. Received: "
            f"variables of dtype {', '.join(strange)}. Keep real and imaginary "
            "part in a variable each."
        )
    return "float64" if "float64" in dtypes else "float32"


def range_of(dtype, squared):
    """Returns the smallest and the largest norm that an optimizer can take.

    Args:
        dtype: String, the dtype of the norms.
        squared: Whether it squares the entries of the gradient.
    """
    limits = np.finfo(dtype)
    largest = float(limits.max)
    return float(limits.tiny), math.sqrt(largest) if squared else largest
