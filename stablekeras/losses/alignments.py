"""The probability of a labelling: a sum over its alignments to the frames.

All weights are logarithms in two parts, see `twofold`.
"""

import math

from keras import ops as kops

from stablekeras.losses.recursion import scan
from stablekeras.losses.twofold import log_sum, plus, shares, shifted, where
from stablekeras.ops.gradient import custom_gradient
from stablekeras.ops.precision import at_most

__all__ = ["log_likelihood"]


def log_likelihood(emitted, starts, ends, skips, frames):
    """Computes the log-likelihood of a labelling.

    Its gradient is the share of the alignments that pass through a state,
    from a second recursion backwards in time: differentiating the loop itself
    would cost memory, and second derivatives under XLA.

    Args:
        emitted: Log-probability of each state in each frame, in two parts of
            shape `(time, batch, states)`.
        starts: Boolean, shape `(batch, states)`: where alignments begin.
        ends: Likewise: where they end.
        skips: Likewise: the states that may follow the one before last.
        frames: Boolean, shape `(time, batch)`: the frames that count.

    Returns:
        Tensor of shape `(batch,)`.
    """
    _, low = emitted

    @custom_gradient
    def function(high):
        weights, total = _forward((high, low), starts, ends, skips, frames)

        def gradient(*args, upstream=None):
            seen, before = high, weights
            if upstream is None:
                (upstream,) = args
            else:  # torch hands the saved input back
                (seen,) = args
                before, _ = _forward((seen, low), starts, ends, skips, frames)
            after = _backward((seen, low), ends, skips, frames)
            share = shares(plus(before, after))
            share = kops.where(frames[:, :, None], share, 0.0)
            return share * upstream[None, :, None]

        # The shares of a frame add up to 1, and a few units more by rounding.
        return at_most(total[0] + total[1], 0.0), gradient

    return function(emitted[0])


def _nothing(emitted):
    return tuple(
        kops.full_like(e[0], x)
        for e, x in zip(emitted, (-math.inf, 0.0), strict=True)
    )


def _moved(stay, one, two):
    """Adds up what comes to a state from itself and its neighbours."""
    parts = zip(stay, one, two, strict=True)
    return log_sum(tuple(kops.stack(p, axis=0) for p in parts), axis=0)


def _forward(emitted, starts, ends, skips, frames):
    """Sums over the alignments up to each frame, its emission included.

    Returns:
        `(weights, total)`: the weights of all states and frames, and the
        log-likelihood.
    """
    never = _nothing(emitted)
    # Before the first frame all weight is ahead of the first two states.
    virgin = where(starts, (kops.zeros_like(never[0]), never[1]), never)

    def step(carry, inputs):
        weight, fresh = carry
        *emission, frame = inputs
        skipped = where(skips, shifted(weight, 2), never)
        moved = _moved(weight, shifted(weight, 1), skipped)
        before = where(fresh[:, None], virgin, moved)
        weight = where(frame[:, None], plus(before, emission), weight)
        fresh = kops.logical_and(fresh, kops.logical_not(frame))
        return (weight, fresh), weight

    batch = kops.ones_like(frames[0])
    (weight, fresh), weights = scan(step, (never, batch), (*emitted, frames))
    # Without a single frame only the empty labelling is possible.
    possible = kops.logical_not(kops.any(ends[:, 1:], axis=1))
    unread = where(possible[:, None], virgin, never)
    final = where(fresh[:, None], unread, weight)
    return weights, log_sum(where(ends, final, never))


def _backward(emitted, ends, skips, frames):
    """Sums over the alignments after each frame; shape as `_forward`'s."""
    never = _nothing(emitted)
    last = where(ends, (kops.zeros_like(never[0]), never[1]), never)

    def step(carry, inputs):
        (after,) = carry
        *emission, frame = inputs
        weight = plus(after, emission)
        skipped = shifted(where(skips, weight, never), -2)
        moved = _moved(weight, shifted(weight, -1), skipped)
        return (where(frame[:, None], moved, after),), after

    _, weights = scan(step, (last,), (*emitted, frames), reverse=True)
    return weights
