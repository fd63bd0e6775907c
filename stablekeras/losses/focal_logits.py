"""Terms of the binary focal cross-entropy of logits, and their slope."""

import keras
from keras import ops as kops

from stablekeras.losses.focal_terms import lost_digits, powered
from stablekeras.losses.kernels import binary_from_logits, smooth_chances
from stablekeras.ops.elementary import tanh_kernel
from stablekeras.ops.gradient import no_gradient, remembered, with_pullback
from stablekeras.ops.precision import exact_number, finfo

__all__ = ["binary_focal_from_logits"]


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


def _product(x, count):
    """Multiplies `x` by itself, `count` factors in all."""
    if count == 1:
        return x
    half = _product(x, count // 2)
    return half * half * x if count % 2 else half * half


class _Side:
    """The wrong side of a prediction, whose probability is at most 1/2.

    Everything is a function of `a = |x|` and of `t`, the label of that side:
    its probability is `q = e / (1 + e)`, `e = exp(-a)`, the share of what is
    wrong `u = t (1 - q) + (1 - t) q`, and the loss `t a + log(1 + e)`.
    """

    def __init__(self, y, x, e, smoothing):
        self.y, self.positive = y, x >= 0
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
        dtype = keras.backend.standardize_dtype(self.e.dtype)
        whole = 1 + self.e
        share = self.mixed / whole
        if isinstance(gamma, (int, float)):
            if gamma in (1, 2):
                return powered(share, gamma)
            if (
                gamma > 4
                and dtype == "float32"
                and keras.config.backend() == "tensorflow"
            ):
                return self._steep_power(gamma)
        lost = lost_digits(gamma, dtype)
        gamma = exact_number(gamma, dtype)
        # u**gamma underflows later than u, and is steep there at gamma < 1.
        small = kops.logical_and(self.sure, self.a > 1)
        log = -(self.a + kops.log1p(self.e))
        share = kops.where(small, 1.0, share)
        power = kops.power(share, gamma)
        # The power multiplies the rounding of the sum.
        correction = -gamma * ((self.e - (whole - 1)) / whole)
        if lost:
            correction = correction + lost * kops.log(share)
        power = power + power * correction
        return kops.where(small, kops.exp(gamma * log + lost * log), power)

    def _steep_power(self, gamma):
        """Computes `u**gamma` in float64: a power multiplies all roundings."""
        y, a = (kops.cast(x, "float64") for x in (self.y, self.a))
        t = kops.where(self.positive, 1 - y, y)
        t, e = smooth_chances(t, 1.0 - self.kept), kops.exp(-a)
        share = (t + (1 - t) * e) / (1 + e)
        if float(gamma).is_integer():
            power = _product(share, int(gamma))  # a third of the time
        else:
            power = kops.power(share, exact_number(gamma, "float64"))
        return kops.cast(power, self.e.dtype)

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
