"""In which dtype a function computes, and in which it answers.

A function answers in the dtype that Keras would give it. It computes in
float64 for float64 and in float32 for everything else, so that a 16-bit
result is rounded once, at the end.
"""

import math
import numbers

import keras
import numpy as np
from keras import ops as kops

from stablekeras.ops.axes import rank_of

__all__ = [
    "answered",
    "at_least",
    "at_most",
    "compute_dtype",
    "exact_number",
    "exact_tensor",
    "finfo",
    "largest",
    "lesser",
    "result_dtype",
    "to_compute",
]

_LIMITS = {
    # dtype: (eps, smallest normal, largest)
    "float16": (2.0**-10, 2.0**-14, 65504.0),
    "bfloat16": (2.0**-7, 2.0**-126, (2 - 2.0**-7) * 2.0**127),
    "float32": (2.0**-23, 2.0**-126, (2 - 2.0**-23) * 2.0**127),
    "float64": (2.0**-52, 2.0**-1022, (2 - 2.0**-52) * 2.0**1023),
}

# Keras' minimum and maximum round float64 to float32 on torch.
_TORCH = keras.backend.backend() == "torch"

# Weakly typed: they follow the tensors they meet.
_SCALARS = (bool, int, float)
# What Keras would make float32 of.
_PYTHON = (*_SCALARS, list, tuple)


class finfo:
    """Limits of a floating dtype; unlike NumPy's it knows bfloat16.

    Args:
        dtype: `"float16"`, `"bfloat16"`, `"float32"` or `"float64"`.

    Raises:
        TypeError: If `dtype` is not one of these.

    Example:
    >>> finfo("float16").max
    65504.0
    """

    def __init__(self, dtype):
        name = keras.backend.standardize_dtype(dtype)
        if name not in _LIMITS:
            raise TypeError(
                f"dtype must be a floating type. Received: dtype={dtype!r}. "
                f"Use one of {', '.join(_LIMITS)}."
            )
        self.eps, self.tiny, self.max = _LIMITS[name]


def result_dtype(*xs):
    """Return the floating dtype that Keras gives a function of `xs`.

    Raises:
        TypeError: If one of them is complex.
    """
    dtypes = [
        type(x) if isinstance(x, _SCALARS) else kops.convert_to_tensor(x).dtype
        for x in xs
    ]
    # On torch and JAX Keras' own rule narrows float64.
    tensors = [d for d in dtypes if d not in _SCALARS]
    if "float64" in map(keras.backend.standardize_dtype, tensors):
        return "float64"
    dtype = keras.backend.result_type(*dtypes, float)
    if dtype not in _LIMITS:
        raise TypeError(
            f"Inputs must be real numbers. Received: dtype={dtype!r}. "
            "Pass the real and imaginary parts separately."
        )
    return dtype


def compute_dtype(dtype):
    """Return `"float64"` for float64 and `"float32"` for all others."""
    return "float64" if dtype == "float64" else "float32"


def at_most(x, number):
    """Compute `min(x, number)`; NaN stays NaN."""
    if _TORCH:
        return kops.where(x > number, kops.full_like(x, number), x)
    return kops.minimum(x, number)


def at_least(x, number):
    """Compute `max(x, number)`; NaN stays NaN."""
    if _TORCH:
        return kops.where(x < number, kops.full_like(x, number), x)
    return kops.maximum(x, number)


def lesser(x, y):
    """Compute `min(x, y)` of two tensors; NaN stays NaN."""
    if _TORCH:
        first = kops.logical_or(x < y, kops.isnan(x))
        return kops.where(first, x, y)
    return kops.minimum(x, y)


def largest(x, axis=None):
    """Return the largest entry along `axis`, which stays with size one.

    Of no entries it is minus infinity. Keras' maximum refuses an empty tensor,
    such as the last batch of one replica of several.
    """
    if rank_of(x) is not None and 0 in tuple(x.shape):
        return kops.sum(x, axis=axis, keepdims=True) - math.inf
    return kops.max(x, axis=axis, keepdims=True)


def _of_numbers(x):
    """Whether `x` is a Python number, or a list of nothing else."""
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(isinstance(n, numbers.Number) for n in leaves)


def exact_tensor(x):
    """Convert to a tensor; Python numbers keep all their digits.

    Keras makes float32 of them, which float64 would find rounded.
    """
    return kops.convert_to_tensor(np.asarray(x) if _of_numbers(x) else x)


def exact_number(x, dtype):
    """Convert an argument, a number or several, to a floating dtype."""
    if isinstance(x, _SCALARS):
        return kops.convert_to_tensor(x, dtype)
    wide = keras.backend.standardize_dtype(dtype) == "float64"
    if wide and _of_numbers(x):
        return kops.convert_to_tensor(np.asarray(x, "float64"), dtype)
    return kops.cast(exact_tensor(x), dtype)


def to_compute(*xs):
    """Convert `xs` to tensors of one compute dtype.

    Returns:
        `(dtype, tensors)`: the dtype of the answer and the converted tensors.
    """
    inputs = [
        x if isinstance(x, _PYTHON) else kops.convert_to_tensor(x) for x in xs
    ]
    dtype = result_dtype(*inputs)
    work = compute_dtype(dtype)
    return dtype, [
        exact_number(x, work) if isinstance(x, _PYTHON) else kops.cast(x, work)
        for x in inputs
    ]


def answered(kernel, *xs):
    """Apply an elementwise `kernel` in compute precision; round once."""
    dtype, tensors = to_compute(*xs)
    return kops.cast(kernel(*tensors), dtype)
