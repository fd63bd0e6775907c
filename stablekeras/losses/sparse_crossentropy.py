"""Cross-entropy of class numbers."""

import keras
from keras import ops as kops

from stablekeras.losses.categorical_crossentropy import z_term
from stablekeras.losses.checks import check_axis, check_not_negative
from stablekeras.losses.fused import sparse_crossentropy
from stablekeras.losses.inputs import (
    prepare,
    set_keras_mask,
    widest_integers,
)
from stablekeras.losses.kernels import clamp_floor
from stablekeras.losses.logits import logits_of
from stablekeras.losses.origin import cast_probabilities, select
from stablekeras.losses.wrapper import LossFunctionWrapper
from stablekeras.ops import clamped_log
from stablekeras.ops.precision import exact_tensor
from stablekeras.ops.symbolic import stable

__all__ = [
    "SparseCategoricalCrossentropy",
    "class_numbers",
    "pick",
    "sparse_categorical_crossentropy",
]


def class_numbers(y_true, rank, axis):
    """Returns class numbers as integers, without a class axis of length 1.

    Integers stay whole, whatever the dtype of the predictions.

    Args:
        y_true: Array-like of class numbers.
        rank: Rank of the predictions.
        axis: Axis of the classes in the predictions.
    """
    y_true = exact_tensor(y_true)
    if len(y_true.shape) == rank and y_true.shape[axis] == 1:
        y_true = kops.squeeze(y_true, axis=axis)
    return kops.cast(y_true, widest_integers())


def pick(values, labels):
    """Returns the entries of the last axis that `labels` name.

    A label out of range gives NaN, or an error in eager mode on the CPU.
    """
    classes = kops.shape(values)[-1]
    valid = kops.logical_and(
        labels >= 0, labels < kops.cast(classes, labels.dtype)
    )
    if keras.config.backend() == "tensorflow":
        picked = _gathered(values, labels)
    else:
        index = kops.expand_dims(kops.where(valid, labels, 0), -1)
        picked = kops.squeeze(kops.take_along_axis(values, index, -1), -1)
    return kops.where(valid, picked, kops.cast(float("nan"), picked.dtype))


def _gathered(values, labels):
    """Gathers along the last axis; its gradient is scattered in one pass.

    TensorFlow adds up segments, as if two labels might name one entry: that
    takes ten times as long.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def gather(values):
        def gradient(upstream):
            shape = tf.shape(values, tf.int64)
            flat = tf.reshape(labels, (-1, 1))
            first = shape[-1] * tf.range(tf.size(flat, tf.int64))
            slope = tf.scatter_nd(
                first[:, None] + flat,
                tf.reshape(upstream, (-1,)),
                tf.reduce_prod(shape, keepdims=True),
            )
            return tf.reshape(slope, shape)

        batch = len(values.shape) - 1
        return tf.gather(values, labels, axis=-1, batch_dims=batch), gradient

    return gather(values)


@keras.saving.register_keras_serializable(package="stablekeras")
@stable
def sparse_categorical_crossentropy(
    y_true, y_pred, from_logits=False, ignore_class=None, axis=-1, *, z_loss=0.0
):
    """Computes the cross-entropy of class numbers, saturated or not.

    Formula: `-log(p[y] / sum(p))`, and with `z_loss` also
    `z_loss * logsumexp(logits)**2`. Where `y_pred` was made by a softmax or
    sigmoid that can be found, the logits are used.

    Args:
        y_true: Class numbers, of the shape of `y_pred` without `axis` (or
            with length 1 there); integers of any size stay whole.
        y_pred: Probabilities or logits, any floating dtype. A logit may be
            -inf for a class that is not the label.
        from_logits: Whether `y_pred` holds logits.
        ignore_class: Optional integer: entries of this class are selected
            away, whatever is predicted there.
        axis: Axis of the classes.
        z_loss: Float >= 0, weight of the squared log-partition; needs logits.

    Returns:
        Tensor of the shape of `y_pred` without `axis`, in its dtype.

    Raises:
        ValueError: If shapes do not fit, or `z_loss` is asked for without
            logits.

    Accuracy: worst ULP 0.4 in float16, 0.4 in bfloat16, 0.7 in float32, 0.9 in
        float64; gradient 0.2, 0.2, 1.1, 1.0.
    Gradient: `softmax(x)` minus one at the label; from probabilities exact
        down to `p = eps**2`, and that of `p = eps**2` below.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> p = np.array([[1e-12, 1.0]])
    >>> losses.sparse_categorical_crossentropy([0], p).numpy().round(4)
    array([27.631])
    """
    check_axis(axis)
    check_not_negative("z_loss", z_loss)
    y_pred = kops.convert_to_tensor(y_pred)
    rank = len(y_pred.shape)
    labels = class_numbers(y_true, rank, axis)
    cast = None if from_logits else cast_probabilities
    _, y_pred, dtype = prepare(0, y_pred, cast)
    _check_shapes(labels, y_pred, axis)
    keep = None
    if ignore_class is not None:
        keep = kops.not_equal(labels, _as_cast(int(ignore_class)))
        labels = kops.where(keep, labels, 0)
        y_pred = select(kops.expand_dims(keep, axis), y_pred, 0.5)
    x = logits_of(
        y_pred,
        from_logits,
        "softmax",
        axis,
        y_pred.dtype,
        "sparse_categorical_crossentropy",
    )
    last = axis % rank == rank - 1
    if x is not None:
        loss = sparse_crossentropy(
            labels, x if last else kops.moveaxis(x, axis, -1)
        )
    else:
        p = y_pred if last else kops.moveaxis(y_pred, axis, -1)
        loss = _from_probabilities(labels, p)
    if z_loss:
        loss = loss + z_term(z_loss, x, axis)
    if keep is not None:
        loss = kops.where(keep, loss, kops.zeros_like(loss))
    loss = kops.cast(loss, dtype)
    if keep is not None:
        set_keras_mask(loss, keep)
    return loss


def _as_cast(number):
    """Returns what an unsigned number is after the cast of the labels."""
    half = 2 ** (63 if widest_integers() == "int64" else 31)
    return (number + half) % (2 * half) - half


def _check_shapes(labels, y_pred, axis):
    rank = len(y_pred.shape)
    expected = [d for i, d in enumerate(y_pred.shape) if i != axis % rank]
    given = tuple(labels.shape)
    if len(given) != len(expected) or any(
        a is not None and b is not None and a != b
        for a, b in zip(given, expected, strict=False)
    ):
        raise ValueError(
            "y_true and y_pred must have the same shape but for the class "
            f"axis. Received: y_true.shape={given}, "
            f"y_pred.shape={tuple(y_pred.shape)}, axis={axis}. Pass class "
            "numbers, or use categorical_crossentropy for one-hot labels."
        )


def _from_probabilities(labels, p):
    total = kops.sum(p, axis=-1)
    fixed = kops.stop_gradient(total)
    fixed = kops.where(kops.equal(fixed, 0), kops.ones_like(fixed), fixed)
    share = pick(p, labels) / fixed
    # The first logarithm is 0; its gradient is that of the normalisation.
    unit = kops.where(
        kops.equal(total, 0), kops.ones_like(total), total / fixed
    )
    return kops.log(unit) - clamped_log(share, floor=clamp_floor(p))


@keras.saving.register_keras_serializable(package="stablekeras")
class SparseCategoricalCrossentropy(LossFunctionWrapper):
    """Cross-entropy of class numbers.

    See `losses.sparse_categorical_crossentropy`.

    Args:
        from_logits: Whether predictions are logits. Probabilities made by a
            softmax that can be found are traced back to theirs.
        ignore_class: Optional integer, the class to leave out.
        reduction: As in `losses.Loss`.
        axis: Axis of the classes.
        name: Name of the loss.
        dtype: As in `losses.Loss`.
        z_loss: Float >= 0, weight of `logsumexp(logits)**2`.

    Raises:
        ValueError: If an argument is out of its range.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: as in `losses.sparse_categorical_crossentropy`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> loss = losses.SparseCategoricalCrossentropy(
    ...     from_logits=True, ignore_class=-1)
    >>> x = np.array([[1e4, 0.0], [float("nan"), 0.0]], "float32")
    >>> float(loss(np.array([1, -1]), x))
    10000.0
    """

    _cast = staticmethod(cast_probabilities)

    def __init__(
        self,
        from_logits=False,
        ignore_class=None,
        reduction="sum_over_batch_size",
        axis=-1,
        name="sparse_categorical_crossentropy",
        dtype=None,
        *,
        z_loss=0.0,
    ):
        check_axis(axis)
        check_not_negative("z_loss", z_loss)
        super().__init__(
            sparse_categorical_crossentropy,
            name=name,
            reduction=reduction,
            dtype=dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
            z_loss=z_loss,
        )
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self.axis = axis
        self.z_loss = z_loss
