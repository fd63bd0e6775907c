"""Connectionist temporal classification in log space."""

import keras
from keras import ops as kops

from stablekeras.losses.alignments import log_likelihood
from stablekeras.losses.inputs import keras_mask, prepare, set_keras_mask
from stablekeras.losses.origin import select
from stablekeras.losses.twofold import two_sum
from stablekeras.losses.wrapper import LossFunctionWrapper
from stablekeras.ops import log_softmax
from stablekeras.ops.precision import at_most, compute_dtype, finfo, largest
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

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.1 in float32, 1.1 in
        float64; gradient 0.2, 0.2, 0.2, 0.5.
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
        # Each frame's logarithm rounds.
        logits = kops.cast(logits, "float64")
    length = kops.sum(kops.cast(kops.not_equal(labels, _BLANK), "int32"), -1)
    states = _with_blanks(labels)
    emitted = tuple(
        _emissions(table, states) for table in _log_probabilities(logits)
    )
    skips = _may_skip(states)
    # A row ends in its last label or in the blank after it.
    place = kops.arange(kops.shape(states)[1], dtype="int32")[None, :]
    last = 2 * length[:, None]
    ends = kops.logical_and(place <= last, place >= kops.maximum(last - 1, 0))
    starts = kops.logical_and(place <= 1, place <= last)
    if frames is None:
        frames = kops.ones_like(emitted[0][:, :, 0], dtype="bool")
    loss = -log_likelihood(emitted, starts, ends, skips, frames)
    loss = kops.cast(loss, work)
    return kops.cast(loss, compute_dtype(dtype))


def _with_blanks(labels):
    """Returns blank, label, blank, label, ..., blank."""
    blanks = kops.full_like(labels, _BLANK)
    pairs = kops.stack([blanks, labels], axis=2)
    shape = kops.shape(labels)
    pairs = kops.reshape(pairs, (shape[0], 2 * shape[1]))
    return kops.concatenate([pairs, kops.zeros_like(pairs[:, :1])], axis=1)


def _log_probabilities(logits):
    """Computes `log_softmax` in two parts."""
    high = log_softmax(logits)
    x = kops.stop_gradient(at_most(logits, finfo(logits.dtype).max))
    z, lost = two_sum(x, -largest(x, -1))
    # At the peak it is minus the logarithm of the sum.
    total, more = two_sum(z, largest(high, -1))
    low = kops.stop_gradient((total - high) + (lost + more))
    return high, kops.where(kops.isfinite(low), low, 0.0)


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
    place = kops.arange(kops.shape(states)[1], dtype="int32")[None, :]
    odd = kops.equal(place % 2, 1)
    before = kops.pad(states[:, :-2], ((0, 0), (2, 0)), constant_values=-1)
    return kops.logical_and(odd, kops.not_equal(states, before))


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

    def __call__(self, y_true, y_pred, sample_weight=None):
        """Computes the reduced loss; see `losses.Loss`.

        Args:
            y_true: Class numbers.
            y_pred: Logits, with or without a mask of their frames.
            sample_weight: Optional weights, one per row.

        Returns:
            Scalar, or the losses of the rows without a reduction.
        """
        mask = keras_mask(y_pred)
        if mask is None or len(mask.shape) != 2:
            return super().__call__(y_true, y_pred, sample_weight)
        # A loss belongs to a row, which counts if one of its frames does.
        self._frames = kops.cast(mask, "bool")
        y_pred = select(self._frames[:, :, None], y_pred, 0.0)
        set_keras_mask(y_pred, kops.any(self._frames, axis=1))
        try:
            return super().__call__(y_true, y_pred, sample_weight)
        finally:
            self._frames = None

    def _select(self, keep, y_true, y_pred):
        rows = kops.reshape(keep, (-1, 1))
        frames = kops.broadcast_to(rows, kops.shape(y_pred)[:2])
        if self._frames is not None:
            frames = kops.logical_and(frames, self._frames)
        self._frames = frames
        y_pred = select(frames[:, :, None], y_pred, 0.0)
        kept = kops.any(frames, axis=1)[:, None]
        return kops.where(kept, y_true, kops.zeros_like(y_true)), y_pred

    def call(self, y_true, y_pred):
        """Returns one loss per row."""
        # Set during this very call, for its frames only.
        frames, self._frames = self._frames, None
        if frames is not None:
            frames = kops.transpose(frames)
        return _ctc(y_true, y_pred, frames)
