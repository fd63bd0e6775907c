"""Numbers of arbitrary precision that carry two derivatives along.

One formula, written once as in a textbook, gives the exact value, the exact
first and the exact second derivative. Textbook formulas cancel; the oracle
pays with digits instead of with cleverness (see `oracle.digits`).
"""

import mpmath
from mpmath import mpf

__all__ = [
    "Jet",
    "acos",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "log",
    "maximum",
    "minimum",
    "sigmoid",
    "softplus",
    "sqrt",
    "tanh",
]


class Jet:
    """A value with its first and second derivative along one direction."""

    __slots__ = ("curve", "slope", "value")

    def __init__(self, value, slope=0, curve=0):
        self.value = mpf(value)
        self.slope = mpf(slope)
        self.curve = mpf(curve)

    def through(self, value, slope, curve):
        """The jet of `f(self)`, given `f`, `f'` and `f''` at the value."""
        return Jet(
            value,
            slope * self.slope,
            curve * self.slope**2 + slope * self.curve,
        )

    def __add__(self, other):
        o = jet(other)
        return Jet(
            self.value + o.value, self.slope + o.slope, self.curve + o.curve
        )

    def __neg__(self):
        return Jet(-self.value, -self.slope, -self.curve)

    def __sub__(self, other):
        return self + -jet(other)

    def __rsub__(self, other):
        return -self + other

    def __mul__(self, other):
        o = jet(other)
        return Jet(
            self.value * o.value,
            self.slope * o.value + self.value * o.slope,
            self.curve * o.value
            + 2 * self.slope * o.slope
            + self.value * o.curve,
        )

    def __truediv__(self, other):
        o = jet(other)
        return self * o.through(1 / o.value, -1 / o.value**2, 2 / o.value**3)

    def __rtruediv__(self, other):
        return jet(other) / self

    def __pow__(self, other):
        if isinstance(other, int):
            v, n = self.value, other
            return self.through(
                v**n,
                n * v ** (n - 1) if n else 0,
                n * (n - 1) * v ** (n - 2) if n * (n - 1) else 0,
            )
        return exp(jet(other) * log(self))

    def __abs__(self):
        return -self if self.value < 0 else self

    __radd__ = __add__
    __rmul__ = __mul__

    def __lt__(self, other):
        return self.value < jet(other).value

    def __le__(self, other):
        return self.value <= jet(other).value

    def __gt__(self, other):
        return self.value > jet(other).value

    def __ge__(self, other):
        return self.value >= jet(other).value

    def __eq__(self, other):
        return self.value == jet(other).value

    __hash__ = None


def jet(x):
    return x if isinstance(x, Jet) else Jet(x)


def exp(x):
    e = mpmath.exp(x.value)
    return x.through(e, e, e)


def log(x):
    v = x.value
    return x.through(mpmath.log(v), 1 / v, -1 / v**2)


def sqrt(x):
    r = mpmath.sqrt(x.value)
    if r == 0:  # the slope is infinite; the entries give their own there
        return Jet(0)
    return x.through(r, 1 / (2 * r), -1 / (4 * r**3))


def tanh(x):
    t = mpmath.tanh(x.value)
    d = mpmath.sech(x.value) ** 2
    return x.through(t, d, -2 * t * d)


def sigmoid(x):
    return 1 / (1 + exp(-x))


def softplus(x):
    return log(1 + exp(x))


def erf(x):
    v = x.value
    d = 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-v * v)
    return x.through(mpmath.erf(v), d, -2 * v * d)


def erfc(x):
    v = x.value
    if abs(v) > 1e5:  # 0 or 2 to any number of digits that matters
        return Jet(0 if v > 0 else 2)
    d = -2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-v * v)
    return x.through(mpmath.erfc(v), d, -2 * v * d)


def erfinv(x):
    y = mpmath.erfinv(x.value)
    d = mpmath.sqrt(mpmath.pi) / 2 * mpmath.exp(y * y)
    return x.through(y, d, 2 * y * d * d)


def acos(x):
    v = x.value
    r = mpmath.sqrt((1 - v) * (1 + v))
    if r == 0:
        return Jet(mpmath.acos(v))
    return x.through(mpmath.acos(v), -1 / r, -v / r**3)


def maximum(x, y):
    return jet(x) if jet(x) >= y else jet(y)


def minimum(x, y):
    return jet(x) if jet(x) <= y else jet(y)
