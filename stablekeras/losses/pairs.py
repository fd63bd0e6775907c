"""Numbers in two parts, which hold twice the digits of one."""

import keras
import numpy as np
from keras import ops as kops

from stablekeras.losses.twofold import two_sum
from stablekeras.ops.precision import exact_number

__all__ = ["Pair", "log_parts"]

# dtype: the integers of its size, the bits of sqrt(1/2), those of a fraction
_BITS = {
    "float32": ("int32", 0x3F3504F3, 23),
    "float64": ("int64", 0x3FE6A09E667F3BCD, 52),
}


def log_parts(p):
    """Splits `p > 0` into a power of 2 and a number near 1.

    Returns:
        The exponent, as a number that holds it exactly, and the logarithm of
        the number near 1: rounded to its own last place, which is finer than
        that of the logarithm of `p`.
    """
    integer, least, size = _BITS[keras.backend.standardize_dtype(p.dtype)]

    def constant(number):
        return kops.convert_to_tensor(number, integer)

    bits = _view(p, integer)
    exponent = kops.bitwise_and(bits - constant(least), constant(-(1 << size)))
    near_one = _view(bits - exponent, p.dtype)
    return kops.cast(exponent, p.dtype) * 2.0**-size, kops.log(near_one)


def _view(x, dtype):
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return tf.bitcast(x, dtype)  # Keras' wants to know the last axis
    return kops.view(x, dtype)


class Pair:
    """A number in two parts, which hold twice the digits of one.

    Only as careful as the slope needs: the parts of a difference may overlap.
    Products are those of halves, which are exact: it does not matter whether
    a compiler fuses them with the sums.

    Reference: Dekker (1971), "A floating-point technique for extending the
    available precision".
    """

    def __init__(self, high, low=0.0):
        self.high, self.low = high, low

    def _like(self, other):
        if isinstance(other, Pair):
            return other
        dtype = keras.backend.standardize_dtype(self.high.dtype)
        if not isinstance(other, (int, float)):
            return Pair(exact_number(other, dtype))
        high = float(np.asarray(other, dtype))
        return Pair(*(_constant(x, dtype) for x in (high, other - high)))

    def __neg__(self):
        return Pair(-self.high, -self.low)

    def __add__(self, other):
        other = self._like(other)
        high, lost = two_sum(self.high, other.high)
        return Pair(high, lost + (self.low + other.low))

    def __sub__(self, other):
        return self + -self._like(other)

    def __rsub__(self, other):
        return -self + other

    def __mul__(self, other):
        other = self._like(other)
        high, lost = _two_product(self.high, other.high)
        crossed = self.high * other.low + self.low * other.high
        return Pair(high, lost + crossed)

    __rmul__ = __mul__

    def __truediv__(self, other):
        quotient = Pair(self.high / other.high)
        rest = self - other * quotient
        return Pair(quotient.high, rest.total() / other.high)

    def total(self):
        """Returns the number, rounded to its dtype."""
        return self.high + self.low


def _constant(number, dtype):
    return kops.convert_to_tensor(number, dtype)


def _two_product(a, b):
    """Multiplies exactly; returns `(a * b, what it lost)`."""
    product = a * b
    (a, c), (b, d) = _halves(a), _halves(b)
    return product, ((a * b - product) + a * d + c * b) + c * d


def _halves(x):
    """Splits `x` into two numbers of half its digits."""
    half = _BITS[keras.backend.standardize_dtype(x.dtype)][2] // 2 + 1
    scaled = x * (2.0**half + 1)
    high = scaled - (scaled - x)
    return high, x - high
