"""Terms of the binary focal cross-entropy, and their slope.

Under a label between 0 and 1 the slope is a difference: the share of the
wrong side grows where the cross-entropy falls. Near the turn, where the two
cancel, one rounding of either is all that would be left of the slope by a
probability; so they are computed in twice the precision and rounded once.
"""

import math

import keras
import numpy as np
from keras import ops as kops

from stablekeras.losses.kernels import (
    binary_from_logits,
    binary_from_probabilities,
    clamp_floor,
    log1p_accurate,
    smooth_chances,
)
from stablekeras.losses.twofold import two_sum
from stablekeras.ops.elementary import tanh_kernel
from stablekeras.ops.gradient import no_gradient, remembered, with_pullback
from stablekeras.ops.precision import at_least, at_most, exact_number, finfo

__all__ = ["binary_focal_from_logits", "binary_focal_terms", "powered"]


def powered(u, gamma):
    """Computes `u**gamma` for `u >= 0`; the gradient at 0 is finite."""
    if isinstance(gamma, (int, float)):
        if gamma == 0:
            return kops.ones_like(u)
        if gamma == 1:
            return u
        if gamma == 2:
            return u * u
    gone = u <= 0
    inside = kops.where(gone, kops.ones_like(u), u)
    power = kops.power(inside, exact_number(gamma, u.dtype))
    return kops.where(gone, kops.zeros_like(u), power)


def binary_focal_terms(y, p, gamma, smoothing=0.0):
    """Computes `u**gamma * (-y log(p) - (1 - y) log(1 - p))`.

    `u = y (1 - p) + (1 - y) p` is the share of the wrong side. Logarithms are
    clamped at the floor.

    Args:
        y: Tensor of labels in [0, 1].
        p: Tensor of probabilities, of the same shape and dtype.
        gamma: Number >= 0.
        smoothing: Float in [0, 1]: squeezes labels towards 0.5.

    Returns:
        Tensor of the shape of `y`.
    """
    if not isinstance(gamma, (int, float)):
        gamma = exact_number(gamma, y.dtype)
    elif gamma == 0:
        return binary_from_probabilities(y, p, smoothing)

    def slope(u, y, p, share, loss):
        slopes = (u * d for d in _slope_slopes(y, p, gamma, smoothing))
        return (*slopes, no_gradient(share), no_gradient(loss))

    of_prediction = with_pullback(
        lambda y, p, share, loss: (
            powered(share, gamma - 1)
            * _bend(y, p, share, loss, gamma, smoothing)
        ),
        slope,
    )
    terms = with_pullback(
        lambda y, p, share, loss: powered(share, gamma) * loss,
        lambda u, y, p, share, loss: (
            u * _label_slope(y, p, gamma, smoothing),
            u * of_prediction(y, p, share, loss),
            no_gradient(share),
            no_gradient(loss),
        ),
    )
    share = _share(_sides(y, smoothing), p)
    memory = share, binary_from_probabilities(y, p, smoothing)
    return terms(y, p, *map(remembered, memory))


def _sides(y, smoothing):
    """Returns the labels of both classes."""
    return smooth_chances(y, smoothing), smooth_chances(1 - y, smoothing)


def _share(sides, p):
    one, other = sides
    return one * (1 - p) + other * p


def _bend(y, p, share, loss, gamma, smoothing):
    """Computes the slope over `share**(gamma - 1)`.

    That is `gamma (1 - 2 y) loss + share loss'`, with the derivative by `p`.
    """
    # TensorFlow does not differentiate a branch twice.
    y, p, share, loss = map(kops.stop_gradient, (y, p, share, loss))
    if smoothing:
        return _exact_bend(y, p, gamma, smoothing)
    soft = kops.logical_and(kops.not_equal(y, 0), kops.not_equal(y, 1))

    def sure():
        # Under a label of 0 or 1 both terms have one sign.
        right = at_least(y * p + (1 - y) * (1 - p), clamp_floor(p))
        return (1 - 2 * y) * (gamma * loss + share / right)

    # What both branches share XLA would compute and store outside.
    return kops.cond(
        kops.any(soft), lambda: _exact_bend(y, p, gamma, smoothing), sure
    )


def _exact_bend(y, p, gamma, smoothing):
    # Take the side whose probability is exact, the smaller; the slope changes
    # its sign with the side.
    other = p > 0.5
    y = kops.where(other, 1 - y, y)
    p = kops.where(other, 1 - p, p)
    log_q = log1p_accurate(-p)
    clamped = at_least(p, clamp_floor(p))
    whole, part = _log_parts(clamped)
    dtype = keras.backend.standardize_dtype(p.dtype)
    if dtype == "float32" and keras.config.backend() == "tensorflow":
        y, p, clamped, whole, part, log_q = (
            kops.cast(x, "float64") for x in (y, p, clamped, whole, part, log_q)
        )
        gamma = exact_number(gamma, "float64")
        log_p = whole * _LN2 + part
        y = smooth_chances(y, smoothing)
        bend = _difference(y, p, clamped, log_p, log_q, gamma)
        bend = kops.cast(bend, dtype)
    else:
        # No wider format, or none that every device has.
        y, p, clamped, whole, part, log_q = map(
            _Pair, (y, p, clamped, whole, part, log_q)
        )
        log_p = whole * _LN2 + (whole * _LN2_REST + part)
        y = smooth_chances(y, smoothing)
        bend = _difference(y, p, clamped, log_p, log_q, gamma).total()
    return kops.where(other, -bend, bend)


def _difference(y, p, clamped, log_p, log_q, gamma):
    """Computes the slope's factor in numbers of any kind, tensors or pairs."""
    c = 1 - 2 * y
    log = y * (log_p - log_q) + log_q
    ratio = (clamped - y) * (c * p + y) / (clamped * (1 - p))
    return ratio - (c * gamma) * log


# dtype: the integers of its size, the bits of sqrt(1/2), those of a fraction
_BITS = {
    "float32": ("int32", 0x3F3504F3, 23),
    "float64": ("int64", 0x3FE6A09E667F3BCD, 52),
}
_LN2, _LN2_REST = math.log(2), 2.3190468138462996e-17


def _log_parts(p):
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


class _Pair:
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
        if isinstance(other, _Pair):
            return other
        dtype = keras.backend.standardize_dtype(self.high.dtype)
        if not isinstance(other, (int, float)):
            return _Pair(exact_number(other, dtype))
        high = float(np.asarray(other, dtype))
        return _Pair(*(_constant(x, dtype) for x in (high, other - high)))

    def __neg__(self):
        return _Pair(-self.high, -self.low)

    def __add__(self, other):
        other = self._like(other)
        high, lost = two_sum(self.high, other.high)
        return _Pair(high, lost + (self.low + other.low))

    def __sub__(self, other):
        return self + -self._like(other)

    def __rsub__(self, other):
        return -self + other

    def __mul__(self, other):
        other = self._like(other)
        high, lost = _two_product(self.high, other.high)
        crossed = self.high * other.low + self.low * other.high
        return _Pair(high, lost + crossed)

    __rmul__ = __mul__

    def __truediv__(self, other):
        quotient = _Pair(self.high / other.high)
        rest = self - other * quotient
        return _Pair(quotient.high, rest.total() / other.high)

    def total(self):
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


def _label_slope(y, p, gamma, smoothing):
    share = _share(_sides(y, smoothing), p)
    loss = binary_from_probabilities(y, p, smoothing)
    log_p, log_q = _clamped_logs(p)
    slope = gamma * powered(share, gamma - 1) * (1 - 2 * p) * loss
    slope = slope + powered(share, gamma) * (log_q - log_p)
    return (1.0 - smoothing) * slope


def _clamped_logs(p):
    floor = clamp_floor(p)
    log_q = log1p_accurate(-at_most(p, 1.0))
    return kops.log(at_least(p, floor)), at_least(log_q, math.log(floor))


def _slope_slopes(y, p, gamma, smoothing):
    """Returns the derivatives of the slope by `y` and by `p`."""
    floor = clamp_floor(p)
    one, rest = _sides(y, smoothing)
    share = _share((one, rest), p)
    loss = binary_from_probabilities(y, p, smoothing)
    gone = share <= 0
    per_share = kops.where(gone, 0.0, loss) / kops.where(gone, 1.0, share)
    log_p, log_q = _clamped_logs(p)
    q = 1 - p
    by_p, by_q = 1 / at_least(p, floor), 1 / at_least(q, floor)
    tilt, lean = rest - one, 1 - 2 * p
    first = rest * by_q - one * by_p
    # Below the floor the logarithm is constant.
    second = kops.where(p > floor, one * by_p * by_p, 0.0)
    second = second + kops.where(q > floor, rest * by_q * by_q, 0.0)
    steep = (gamma - 1) * tilt * per_share
    of_y = lean * (steep + first) - 2 * loss + tilt * (log_q - log_p)
    of_y = gamma * of_y - share * (by_p + by_q)
    of_p = gamma * tilt * (steep + 2 * first) + share * second
    power = powered(share, gamma - 1)
    return (1.0 - smoothing) * power * of_y, power * of_p


def binary_focal_from_logits(y, x, gamma, smoothing=0.0):
    """Computes `u**gamma * (-y log(p) - (1 - y) log(1 - p))`, `p = sigmoid(x)`.

    `u = y (1 - p) + (1 - y) p` is the share of the wrong side.

    Args:
        y: Tensor of labels in [0, 1].
        x: Tensor of logits, of the same shape and dtype.
        gamma: Number >= 0.
        smoothing: Float in [0, 1]: squeezes labels towards 0.5.

    Returns:
        Tensor of the shape of `y`.
    """
    if not isinstance(gamma, (int, float)):
        gamma = exact_number(gamma, y.dtype)
    elif gamma == 0:
        return binary_from_logits(y, x, smoothing)

    def slope(y, x, e, power, loss):
        side = _Side(y, x, e, smoothing)
        # A loss may be as large as the logit: where it is, its factor is 0.
        return side.towards_x(
            power * (gamma * (side.growth * loss) + side.rise())
        )

    def curves(u, y, x, e, power, loss):
        by_y, by_x = _Side(y, x, e, smoothing).curves(power, loss, gamma)
        return (u * by_y, u * by_x, *map(no_gradient, (e, power, loss)))

    of_prediction = with_pullback(slope, curves)

    def slopes(u, y, x, e, power, loss):
        memory = e, power, loss
        by_y = _Side(y, x, e, smoothing).label_slope(power, loss, gamma)
        by_x = of_prediction(y, x, *memory)
        return (u * by_y, u * by_x, *map(no_gradient, memory))

    terms = with_pullback(lambda y, x, e, power, loss: power * loss, slopes)
    e = kops.exp(-kops.abs(x))
    side = _Side(y, x, e, smoothing)
    loss = kops.where(side.sure, 0.0, side.a) * side.t + kops.log1p(e)
    memory = e, side.powered_share(gamma), loss
    return terms(y, x, *map(remembered, memory))


class _Side:
    """The wrong side of a prediction, whose probability is at most 1/2.

    Everything is a function of `a = |x|` and of `t`, the label of that side:
    its probability is `q = e / (1 + e)`, `e = exp(-a)`, the share of what is
    wrong `u = t (1 - q) + (1 - t) q`, and the loss `t a + log(1 + e)`.
    """

    def __init__(self, y, x, e, smoothing):
        self.positive = x >= 0
        self.kept = 1.0 - smoothing
        t = kops.where(self.positive, 1 - y, y)
        self.t = smooth_chances(t, smoothing)
        # Smoothing moves no label to the other side of 1/2.
        self.above_half = self.kept * (t - 0.5)
        self.a, self.e = kops.abs(x), e
        self.sure = kops.equal(self.t, 0)
        self.mixed = self.t + (1 - self.t) * e
        self.p = 1 / (1 + e)
        # Under a sure label both terms of a ratio may have underflown.
        tiny = finfo(keras.backend.standardize_dtype(x.dtype)).tiny
        self.gone = self.mixed < tiny
        self.ratio = self.per_mixed(e)  # q / u
        # The derivative of u by a, over u.
        self.growth = 2 * self.above_half * self.p * self.ratio

    def per_mixed(self, number, at_zero=1.0):
        quotient = number / kops.where(self.gone, 1.0, self.mixed)
        return kops.where(self.gone, at_zero, quotient)

    def towards_x(self, slope):
        return kops.where(self.positive, slope, -slope)

    def powered_share(self, gamma):
        """Computes `u**gamma`."""
        whole = 1 + self.e
        share = self.mixed / whole
        if isinstance(gamma, (int, float)) and gamma in (1, 2):
            return powered(share, gamma)
        gamma = exact_number(gamma, share.dtype)
        # u**gamma underflows later than u, and is steep there at gamma < 1.
        small = kops.logical_and(self.sure, self.a > 1)
        log = -(self.a + kops.log1p(self.e))
        power = kops.power(kops.where(small, 1.0, share), gamma)
        # The power multiplies the rounding of the sum.
        lost = self.e - (whole - 1)
        power = power - power * (gamma * lost / whole)
        return kops.where(small, kops.exp(gamma * log), power)

    def rise(self):
        """Computes `t - q`, the derivative of the loss by `a`."""
        wide = keras.backend.standardize_dtype(self.a.dtype) == "float64"
        tanh = (tanh_kernel if wide else kops.tanh)(0.5 * self.a)
        far = self.t - self.e * self.p
        return kops.where(self.a < 1, self.above_half + 0.5 * tanh, far)

    def label_slope(self, power, loss, gamma):
        tilt = (1 - self.e) * self.per_mixed(loss)
        # Multiplied by the power first: the logit may be the largest number.
        slope = (power * gamma) * tilt + power * self.a
        return -self.kept * self.towards_x(slope)

    def curves(self, power, loss, gamma):
        """Returns the derivatives of the slope by `y` and by `x`."""
        growth, p, q = self.growth, self.p, self.e * self.p
        grown = growth * loss
        steep = (gamma - 1) * growth
        by_x = (steep + (q - p)) * grown + 2 * growth * self.rise()
        by_x = power * (gamma * by_x + p * q)
        tilt = steep * self.per_mixed(loss) - self.ratio * p
        tilt = (1 - self.e) * (tilt + self.per_mixed(self.t, 0.0))
        by_t = power * (gamma * (tilt + 2 * p * self.ratio * loss) + 1)
        by_t = by_t + (power * gamma * growth) * self.a
        return -self.kept * by_t, by_x
