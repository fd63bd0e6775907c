"""The floating-point formats, their units in the last place and test grids."""

import math

import ml_dtypes
import numpy as np
from mpmath import mpf

__all__ = ["DTYPES", "Format", "format_of", "grid"]

DTYPES = ("float16", "bfloat16", "float32", "float64")

_BITS = {
    # significand bits, smallest normal exponent, largest exponent
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
    "float32": (24, -126, 127),
    "float64": (53, -1022, 1023),
}


class Format:
    """Limits of a dtype and the size of its last place at a number."""

    def __init__(self, name):
        bits, low, high = _BITS[name]
        self.name = name
        self.numpy = np.dtype(
            ml_dtypes.bfloat16 if name == "bfloat16" else name
        )
        self.bits = bits
        self.eps = 2.0 ** (1 - bits)
        self.tiny = 2.0**low
        self.max = (2 - self.eps) * 2.0**high
        self._low = low

    def ulp(self, x):
        """The distance of neighbours at `x`; that of `tiny` below it."""
        x = abs(mpf(x))
        exponent = self._low
        if x > self.tiny:
            # mpf: x = man * 2**exp
            _, _man, exp, bitcount = x._mpf_
            exponent = max(exp + bitcount - 1, self._low)
        return mpf(2) ** (exponent - self.bits + 1)

    def round(self, x):
        """Rounds an array to this dtype; returns it as float64."""
        x = np.clip(np.asarray(x, "float64"), -self.max, self.max)
        return x.astype(self.numpy).astype("float64")


_FORMATS = {name: Format(name) for name in _BITS}


def format_of(dtype):
    return _FORMATS[dtype]


def grid(fmt, rng, count, low=-math.inf, high=math.inf, near=(0.0,)):
    """Draws numbers of one format from `[low, high]`.

    A third has log-uniform magnitude over the whole range of the format, a
    third is uniform within 12 of zero (or the interval, if it is shorter), a
    third crowds around the points of `near`. Zero, the ends of the format and
    those of the interval come first.
    """
    low, high = max(low, -fmt.max), min(high, fmt.max)
    fixed = [low, high, 0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 10.0, -10.0]
    fixed += [s * v for s in (1, -1) for v in (fmt.tiny, fmt.eps, fmt.max)]
    fixed += list(near)
    third = count // 3
    magnitudes = np.exp2(
        rng.uniform(math.log2(fmt.tiny), math.log2(fmt.max), third)
    )
    wide = magnitudes * rng.choice([-1.0, 1.0], third)
    close = rng.uniform(max(low, -12), min(high, 12), third)
    offsets = np.exp2(rng.uniform(math.log2(fmt.eps), 0, third))
    offsets *= rng.choice([-1.0, 1.0], third)
    around = rng.choice(np.asarray(near), third)
    around = around + offsets * np.maximum(1, np.abs(around))
    points = fmt.round(np.concatenate([fixed, wide, close, around]))
    inside = (points >= low) & (points <= high)
    return points[inside]
