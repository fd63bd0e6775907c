"""Which dtype a function computes in, and which it answers in.

A function answers in the dtype Keras would give it. It computes in float64
for float64 and in float32 for everything else, so that a 16-bit result is
rounded once, at the end.
"""

import functools
import inspect

import keras
from keras import ops as kops

__all__ = ["compute_dtype", "finfo", "result_dtype", "stable"]

_LIMITS = {
    # dtype: (eps, smallest normal, largest)
    "float16": (2.0**-10, 2.0**-14, 65504.0),
    "bfloat16": (2.0**-7, 2.0**-126, (2 - 2.0**-7) * 2.0**127),
    "float32": (2.0**-23, 2.0**-126, (2 - 2.0**-23) * 2.0**127),
    "float64": (2.0**-52, 2.0**-1022, (2 - 2.0**-52) * 2.0**1023),
}


class finfo:  # noqa: N801 - named as in NumPy, which lacks bfloat16
    """Limits of a floating dtype, bfloat16 included.

    Args:
        dtype: `"float16"`, `"bfloat16"`, `"float32"` or `"float64"`.

    Raises:
        TypeError: If `dtype` is not one of these.
    """

    def __init__(self, dtype):
        try:
            self.eps, self.tiny, self.max = _LIMITS[dtype]
        except KeyError:
            raise TypeError(
                "dtype must be a floating type. "
                f"Received: dtype={dtype!r}. "
                f"Use one of {', '.join(_LIMITS)}."
            ) from None


def result_dtype(*xs):
    """Returns the floating dtype Keras gives a function of `xs`."""
    dtypes = [
        type(x) if isinstance(x, _SCALARS) else _tensor(x).dtype for x in xs
    ]
    return keras.backend.result_type(*dtypes, float)


_SCALARS = (bool, int, float)  # weakly typed: they follow the tensors


def _tensor(x):
    return x if hasattr(x, "dtype") else kops.convert_to_tensor(x)


def compute_dtype(dtype):
    """Returns `"float64"` for float64 and `"float32"` for all others."""
    return "float64" if dtype == "float64" else "float32"


class _Symbolic(keras.Operation):
    """One call of a function of this package on symbolic tensors."""

    def __init__(self, function, arguments=None, name=None):
        super().__init__(name=name)
        self.function = function
        self.arguments = arguments or {}

    def call(self, *tensors):
        return self.function(*tensors, **self.arguments)


def stable(function):
    """Lets a function of tensors accept symbolic Keras tensors as well.

    The leading positional parameters without default are its tensors.
    """
    parameters = inspect.signature(function).parameters.values()
    tensors = [p.name for p in parameters if p.default is p.empty]

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        symbolic = any(
            isinstance(x, keras.KerasTensor) for x in (*args, *kwargs.values())
        )
        if not symbolic:
            return function(*args, **kwargs)
        bound = inspect.signature(function).bind(*args, **kwargs)
        inputs = [bound.arguments.pop(name) for name in tensors]
        return _Symbolic(wrapper, bound.arguments)(*inputs)

    return wrapper


def to_compute(*xs):
    """Converts `xs` to tensors of one compute dtype.

    Returns:
        `(dtype, tensors)`: the dtype of the answer and the converted tensors.
    """
    xs = [
        x if isinstance(x, _SCALARS) else kops.convert_to_tensor(x) for x in xs
    ]
    dtype = result_dtype(*xs)
    work = compute_dtype(dtype)
    return dtype, [
        kops.convert_to_tensor(x, work)
        if isinstance(x, _SCALARS)
        else kops.cast(x, work)
        for x in xs
    ]
