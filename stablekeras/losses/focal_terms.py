"""Terms of the binary focal cross-entropy of probabilities, and the slope.

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
    binary_from_probabilities,
    clamp_floor,
    log1p_accurate,
    smooth_chances,
    smooth_sides,
)
from stablekeras.losses.pairs import Pair, log_parts
from stablekeras.ops.elementary import LN2
from stablekeras.ops.gradient import no_gradient, remembered, with_pullback
from stablekeras.ops.precision import at_least, at_most, exact_number

__all__ = ["binary_focal_terms", "lost_digits", "powered"]


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
    if lost := lost_digits(gamma, u.dtype):
        power = power + power * (lost * kops.log(inside))
    return kops.where(gone, kops.zeros_like(u), power)


def lost_digits(gamma, dtype):
    """Returns what a dtype cannot hold of an exponent.

    Of 7.3 in float32 that is 2e-7, and as much of the power of a share as
    small as its logarithm is large.
    """
    if not isinstance(gamma, (int, float)):
        return 0.0
    return gamma - float(
        np.asarray(gamma, keras.backend.standardize_dtype(dtype))
    )


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
    share = _share(smooth_sides(y, smoothing), p)
    memory = share, binary_from_probabilities(y, p, smoothing)
    return terms(y, p, *map(remembered, memory))


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
    whole, part = log_parts(clamped)
    ln2, rest = LN2
    dtype = keras.backend.standardize_dtype(p.dtype)
    if dtype == "float32" and keras.config.backend() == "tensorflow":
        y, p, clamped, whole, part, log_q = (
            kops.cast(x, "float64") for x in (y, p, clamped, whole, part, log_q)
        )
        gamma = exact_number(gamma, "float64")
        log_p = whole * ln2 + part
        y = smooth_chances(y, smoothing)
        bend = _difference(y, p, clamped, log_p, log_q, gamma)
        bend = kops.cast(bend, dtype)
    else:
        # No wider format, or none that every device has.
        y, p, clamped, whole, part, log_q = map(
            Pair, (y, p, clamped, whole, part, log_q)
        )
        log_p = whole * ln2 + (whole * rest + part)
        y = smooth_chances(y, smoothing)
        bend = _difference(y, p, clamped, log_p, log_q, gamma).total()
    return kops.where(other, -bend, bend)


def _difference(y, p, clamped, log_p, log_q, gamma):
    """Computes the slope's factor in numbers of any kind, tensors or pairs."""
    c = 1 - 2 * y
    log = y * (log_p - log_q) + log_q
    ratio = (clamped - y) * (c * p + y) / (clamped * (1 - p))
    return ratio - (c * gamma) * log


def _label_slope(y, p, gamma, smoothing):
    share = _share(smooth_sides(y, smoothing), p)
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
    one, rest = smooth_sides(y, smoothing)
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
