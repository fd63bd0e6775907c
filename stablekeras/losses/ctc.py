"""Connectionist temporal classification in log space."""

import math

import keras
from keras import ops as kops

from stablekeras.losses.inputs import prepare
from stablekeras.losses.origin import select
from stablekeras.losses.recursion import scan
from stablekeras.losses.wrapper import LossFunctionWrapper
from stablekeras.ops import log_softmax
from stablekeras.ops.symbolic import stable

__all__ = ["CTC", "ctc"]

_BLANK = 0


@keras.saving.register_keras_serializable(package="stablekeras")
@stable
def ctc(y_true, y_pred):
    """Computes the CTC loss of any logits, -inf included.

    Minus the log of the summed probability of all alignments, by the forward
    recursion over time in log space. The labelling of row `i` is its first
    `sum(y_true[i] != 0)` labels; class 0 is the blank.

    Args:
        y_true: Class numbers, shape `(batch, labels)`, padded with 0.
        y_pred: Logits, shape `(batch, time, classes)`, any floating dtype.

    Returns:
        Tensor of shape `(batch,)`, at least float32; inf with gradient 0
        where no alignment is possible.

    Raises:
        ValueError: If the ranks are not 2 and 3.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: softmax minus the share of the alignments, per frame.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> x = np.zeros((1, 2, 3))
    >>> x[:, :, 0] = 1e4
    >>> losses.ctc([[1]], x).numpy().round(2)
    array([9999.31])

    Reference: Graves et al. (2006), "Connectionist temporal classification".
    """
    return _ctc(y_true, y_pred)


def _ctc(y_true, y_pred, frames=None):
    y_true = kops.convert_to_tensor(y_true)
    y_pred = kops.convert_to_tensor(y_pred)
    if len(y_true.shape) != 2:
        raise ValueError(
            "Targets `y_true` are expected to be a tensor of shape "
            "`(batch_size, max_length)` in integer format. "
            f"Received: y_true.shape={tuple(y_true.shape)}. Pad with 0."
        )
    if len(y_pred.shape) != 3:
        raise ValueError(
            "Logits `y_pred` are expected to be a tensor of shape "
            "`(batch_size, max_length, num_classes)`. "
            f"Received: y_pred.shape={tuple(y_pred.shape)}. "
            "Add the missing axis."
        )
    labels = kops.cast(y_true, "int32")
    _, logits, dtype = prepare(0, y_pred)
    work = logits.dtype
    if keras.config.backend() != "jax":
        # Shares are differences of log-sums as large as the loss.
        logits = kops.cast(logits, "float64")
    length = kops.sum(kops.cast(kops.not_equal(labels, _BLANK), "int32"), -1)
    states = _with_blanks(labels)
    emitted = _emissions(log_softmax(logits), states)
    skips = _may_skip(states)
    # A row ends in its last label or in the blank after it.
    place = kops.arange(kops.shape(states)[1])[None, :]
    last = 2 * length[:, None]
    ends = kops.logical_and(place <= last, place >= kops.maximum(last - 1, 0))
    starts = kops.logical_and(place <= 1, place <= last)
    if frames is None:
        frames = kops.ones_like(emitted[:, :, 0], dtype="bool")
    loss = -_likelihood(starts, ends, skips, frames)(emitted)
    loss = kops.cast(loss, work)
    wide = keras.backend.result_type(dtype, "float32")
    return kops.cast(loss, wide)


def _with_blanks(labels):
    """Returns blank, label, blank, label, ..., blank."""
    blanks = kops.full_like(labels, _BLANK)
    pairs = kops.stack([blanks, labels], axis=2)
    shape = kops.shape(labels)
    pairs = kops.reshape(pairs, (shape[0], 2 * shape[1]))
    return kops.concatenate([pairs, kops.zeros_like(pairs[:, :1])], axis=1)


def _emissions(log_p, states):
    """Gathers log-probabilities of the states; shape (time, batch, states)."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        picked = tf.gather(
            tf.transpose(log_p, (0, 2, 1)), states, axis=1, batch_dims=1
        )
        return tf.transpose(picked, (2, 0, 1))
    wide = kops.broadcast_to(
        states[:, None, :],
        (states.shape[0], log_p.shape[1], states.shape[1]),
    )
    return kops.transpose(kops.take_along_axis(log_p, wide, axis=2), (1, 0, 2))


def _may_skip(states):
    """Where the blank before a label may be left out."""
    odd = kops.equal(kops.arange(kops.shape(states)[1]) % 2, 1)[None, :]
    before = kops.pad(states[:, :-2], ((0, 0), (2, 0)), constant_values=-1)
    return kops.logical_and(odd, kops.not_equal(states, before))


def _log_sum(terms, mask=None):
    """Log-sum-exp over terms, or over states with a mask; -inf if empty."""
    minus = kops.cast(-math.inf, terms[0].dtype)
    if mask is not None:
        x = kops.where(mask, terms[0], minus)
        axis = -1
    else:
        x = kops.stack(terms, axis=0)
        axis = 0
    peak = kops.stop_gradient(kops.max(x, axis=axis, keepdims=True))
    peak = kops.where(kops.equal(peak, minus), kops.zeros_like(peak), peak)
    gone = kops.equal(x, minus)
    e = kops.exp(kops.where(gone, kops.zeros_like(x), x - peak))
    s = kops.sum(kops.where(gone, kops.zeros_like(e), e), axis=axis)
    empty = kops.equal(s, 0)
    log = kops.log(kops.where(empty, kops.ones_like(s), s))
    return kops.where(empty, minus, log + kops.squeeze(peak, axis))


def _likelihood(starts, ends, skips, frames):
    """Returns the log-likelihood as a function of the emissions.

    Its gradient is the share of the alignments that pass through a state,
    from a second recursion backwards in time: differentiating the loop itself
    would cost memory, and second derivatives under XLA.
    """

    @kops.custom_gradient
    def log_likelihood(emitted):
        alphas, total = _forward(emitted, starts, ends, skips, frames)

        def gradient(*args, upstream=None):
            seen, forward = emitted, alphas
            if upstream is None:
                (upstream,) = args
            else:  # torch hands the saved input back
                (seen,) = args
                forward, _ = _forward(seen, starts, ends, skips, frames)
            weight = _plus(forward, _backward(seen, ends, skips, frames))
            minus = kops.cast(-math.inf, weight.dtype)
            gone = kops.equal(weight, minus)
            # Every frame's sum is the likelihood; its own rounds the least.
            z = _log_sum([weight], kops.logical_not(gone))[:, :, None]
            z = kops.where(kops.equal(z, minus), kops.zeros_like(z), z)
            weight = kops.where(gone, kops.zeros_like(weight), weight)
            share = kops.exp(kops.where(gone, minus, weight - z))
            share = kops.where(frames[:, :, None], share, 0.0)
            return share * upstream[None, :, None]

        return total, gradient

    return log_likelihood


def _shifted(x, by):
    """Moves log-weights to later states, or to earlier ones if negative."""
    if by > 0:
        x, pads = x[:, :-by], (by, 0)
    else:
        x, pads = x[:, -by:], (0, -by)
    return kops.pad(x, ((0, 0), pads), constant_values=-math.inf)


def _forward(emitted, starts, ends, skips, frames):
    """Sums over the alignments up to each frame.

    Returns:
        `(alphas, total)`: log-weights of shape (time, batch, states), the
        frame's emission included, and the log-likelihood.
    """
    minus = kops.cast(-math.inf, emitted.dtype)
    never = kops.full_like(emitted[0], -math.inf)
    # Before the first frame all weight is ahead of the first two states.
    virgin = kops.where(starts, kops.zeros_like(never), minus)

    def step(carry, inputs):
        alpha, fresh = carry
        emission, frame = inputs
        skipped = kops.where(skips, _shifted(alpha, 2), minus)
        moved = _log_sum([alpha, _shifted(alpha, 1), skipped])
        before = kops.where(fresh[:, None], virgin, moved)
        alpha = kops.where(frame[:, None], _plus(before, emission), alpha)
        fresh = kops.logical_and(fresh, kops.logical_not(frame))
        return (alpha, fresh), alpha

    batch = kops.ones_like(emitted[0, :, 0], dtype="bool")
    (alpha, fresh), alphas = scan(step, (never, batch), (emitted, frames))
    # Without a single frame only the empty labelling is possible.
    nothing = kops.where(kops.any(ends[:, 1:], axis=1)[:, None], minus, virgin)
    final = kops.where(fresh[:, None], nothing, alpha)
    return alphas, _log_sum([final], ends)


def _backward(emitted, ends, skips, frames):
    """Sums over the alignments after each frame; shape as `_forward`'s."""
    minus = kops.cast(-math.inf, emitted.dtype)
    last = kops.where(
        ends, kops.zeros_like(emitted[0]), kops.full_like(emitted[0], -math.inf)
    )

    def step(carry, inputs):
        (beta,) = carry
        emission, frame = inputs
        weight = _plus(beta, emission)
        skipped = _shifted(kops.where(skips, weight, minus), -2)
        moved = _log_sum([weight, _shifted(weight, -1), skipped])
        return (kops.where(frame[:, None], moved, beta),), beta

    _, betas = scan(step, (last,), (emitted, frames), reverse=True)
    return betas


def _plus(a, b):
    """Adds log-weights; -inf wins, without a gradient."""
    minus = kops.cast(-math.inf, a.dtype)
    gone = kops.logical_or(kops.equal(a, minus), kops.equal(b, minus))
    zero = kops.zeros_like(a)
    total = kops.where(gone, zero, a) + kops.where(gone, zero, b)
    return kops.where(gone, minus, total)


@keras.saving.register_keras_serializable(package="stablekeras")
class CTC(LossFunctionWrapper):
    """CTC loss; see `losses.ctc`.

    Frames that a mask of the predictions excludes are left out of time.

    Args:
        reduction: As in `losses.Loss`.
        name: Name of the loss.
        dtype: As in `losses.Loss`.

    Raises:
        ValueError: If `reduction` is unknown.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: as in `losses.ctc`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> loss = losses.CTC()
    >>> round(float(loss(np.array([[1]]), np.zeros((1, 2, 2)))), 4)
    0.2877
    """

    def __init__(self, reduction="sum_over_batch_size", name="ctc", dtype=None):
        super().__init__(ctc, name=name, reduction=reduction, dtype=dtype)

        self._frames = None

    def _select(self, keep, y_true, y_pred):
        shape = kops.shape(y_pred)
        if len(keep.shape) == 2 and keep.shape[-1] != 1:
            frames = kops.broadcast_to(keep, shape[:2])
        else:
            rows = kops.reshape(keep, (-1, 1))
            frames = kops.broadcast_to(rows, shape[:2])
        self._frames = frames
        y_pred = select(frames[:, :, None], y_pred, 0.0)
        kept = kops.any(frames, axis=1)[:, None]
        return kops.where(kept, y_true, kops.zeros_like(y_true)), y_pred

    def call(self, y_true, y_pred):
        """Returns one loss per row."""
        # Set by `_select` during this very call, for its frames only.
        frames, self._frames = self._frames, None
        if frames is not None:
            frames = kops.transpose(frames)
        return _ctc(y_true, y_pred, frames)
