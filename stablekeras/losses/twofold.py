"""Log-weights in two parts: a number, and what its rounding lost.

A sum over time of log-probabilities may be large while what counts, the
difference of two such sums, is small. The second part keeps the digits that
the first cannot hold, so that the difference has them. Gradients pass through
the first part alone: the derivative of a sum does not round.
"""

import math

from keras import ops as kops

from stablekeras.ops.precision import largest

__all__ = ["log_sum", "plus", "shares", "shifted", "two_sum", "where"]

# A weight is a tuple `(high, low)` of tensors. Its sum is the logarithm; that
# of nothing is `(-inf, 0)`.


def two_sum(a, b):
    """Adds two tensors exactly; returns `(a + b, what it lost)`.

    Reference: Knuth (1998), "The Art of Computer Programming", volume 2, 4.2.2.
    """
    total = a + b
    a, b, s = (kops.stop_gradient(x) for x in (a, b, total))
    there = s - a
    return total, (a - (s - there)) + (b - there)


def plus(a, b):
    """Multiplies weights: adds their logarithms; -inf wins."""
    high, lost = two_sum(a[0], b[0])
    low = lost + (a[1] + b[1])
    low = kops.where(kops.isfinite(low), low, 0.0)
    total = high + low
    rest = low - (kops.stop_gradient(total) - kops.stop_gradient(high))
    return total, kops.where(kops.isfinite(rest), rest, 0.0)


def log_sum(weight, axis=-1):
    """Adds weights along an axis: the logarithm of the sum of `exp`."""
    e, peak = _relative(weight, axis)
    total = kops.sum(e, axis=axis)
    empty = kops.equal(total, 0)
    log = kops.log(kops.where(empty, 1.0, total))
    high, low = two_sum(kops.squeeze(peak[0], axis), log)
    high = kops.where(empty, -math.inf, high)
    return high, low + kops.squeeze(peak[1], axis)


def shares(weight):
    """Returns each weight's share of the sum along the last axis."""
    e, _ = _relative(weight, -1)
    total = kops.sum(e, axis=-1, keepdims=True)
    return e / kops.where(kops.equal(total, 0), 1.0, total)


def _relative(weight, axis):
    """Returns `exp` of the weights less the largest, and the largest."""
    high, low = weight
    peak = kops.stop_gradient(largest(high, axis))
    tail = kops.where(kops.equal(high, peak), low, -math.inf)
    tail = largest(tail, axis)
    # A peak of NaN equals nothing.
    tail = kops.where(kops.isfinite(tail), tail, 0.0)
    peak = kops.where(kops.equal(peak, -math.inf), 0.0, peak)
    return kops.exp((high - peak) + (low - tail)), (peak, tail)


def where(condition, weight, other):
    """Selects between weights."""
    return tuple(
        kops.where(condition, a, b) for a, b in zip(weight, other, strict=True)
    )


def shifted(weight, by):
    """Moves weights along the last axis, towards the end if `by > 0`."""
    return tuple(
        kops.pad(
            x[:, :-by] if by > 0 else x[:, -by:],
            ((0, 0), (by, 0) if by > 0 else (0, -by)),
            constant_values=nothing,
        )
        for x, nothing in zip(weight, (-math.inf, 0.0), strict=True)
    )
