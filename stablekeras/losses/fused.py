"""Softmax cross-entropies from logits, one pass where the backend has one.

TensorFlow's kernels compute value and gradient in one go and lose no digits.
They err in two cases, cured here: a logit of -inf whose label is 0 (0 times
infinity), and labels that do not sum to 1 (wrong gradient).
"""

import keras
from keras import ops as kops

from stablekeras.losses.inputs import smooth_labels
from stablekeras.ops import log_softmax, logsumexp
from stablekeras.ops.precision import finfo

__all__ = ["dense_crossentropy", "sparse_crossentropy"]


def dense_crossentropy(labels, logits, axis=-1, smoothing=0.0):
    """Computes `-sum(labels * log_softmax(logits))` along `axis`.

    Args:
        labels: Tensor in the compute dtype.
        logits: Tensor of the same shape and dtype.
        axis: Integer.
        smoothing: Weight of the uniform distribution mixed into the labels.

    Returns:
        Tensor without `axis`.
    """
    if keras.config.backend() != "tensorflow":
        labels = smooth_labels(labels, smoothing, axis)
        return _selected_product(labels, logits, axis)
    rank = len(logits.shape)
    if axis % rank != rank - 1:
        labels = kops.moveaxis(labels, axis, -1)
        logits = kops.moveaxis(logits, axis, -1)
    if rank == 2:
        return _on_tensorflow(labels, logits, smoothing)
    shape = kops.shape(logits)
    flat = (-1, shape[-1])
    labels, logits = kops.reshape(labels, flat), kops.reshape(logits, flat)
    loss = _on_tensorflow(labels, logits, smoothing)
    return kops.reshape(loss, shape[:-1])


def _selected_product(labels, logits, axis):
    """Computes the cross-entropy, 0 for each label that is 0.

    The largest logit is weighted before it is subtracted: a difference may
    overflow where its share does not.
    """
    peak = kops.max(logits, axis=axis, keepdims=True)
    log_sum = logsumexp(logits - peak, axis=axis, keepdims=True)
    absent = kops.equal(labels, 0)
    terms = labels * peak - labels * kops.where(absent, peak, logits)
    # In one sum: XLA then needs the exponentials and the terms one at a time.
    terms = terms + labels * log_sum
    # A number, not zeros: TensorFlow folds those into a constant as large.
    terms = kops.where(absent, kops.cast(0.0, terms.dtype), terms)
    # NaN logits stay NaN, even under a label of 0.
    return kops.sum(kops.where(kops.isnan(logits), logits, terms), axis=axis)


def _on_tensorflow(labels, logits, smoothing):
    import tensorflow as tf

    from stablekeras.graphs.xla import under_xla

    value_and_slope = _compiled if under_xla() else _by_kernel
    eps = finfo(keras.backend.standardize_dtype(logits.dtype)).eps
    # XLA adds 50,000 shares up to 5 eps beside 1.
    slack = (4 + (logits.shape[-1] or 0) / 2**14) * eps

    # Labels are smoothed where they are used: XLA then makes no copy of them.
    def smoothed():
        return smooth_labels(labels, smoothing, -1)

    @tf.custom_gradient
    def of_logits(x):
        excess = tf.reduce_sum(labels, -1, keepdims=True) - 1
        excess *= 1 - smoothing
        value, slope = value_and_slope(x, smoothed, excess, slack)
        # What the gradient holds, memory holds: the slope, not smoothed labels.
        return value, lambda upstream: upstream[:, None] * tied(slope, labels)

    @tf.custom_gradient
    def tied(slope, y):
        # The slope forgets the labels when differentiated by them.
        def gradient(d):
            by_share = tf.reduce_sum(d * tf.nn.softmax(logits), -1, True)
            return d, (1 - smoothing) * (by_share - d)

        return tf.identity(slope), gradient

    @tf.custom_gradient
    def of_labels(y):
        def gradient(upstream):
            upstream = upstream[:, None] * (smoothing - 1)
            return upstream * log_softmax(logits)

        return tf.zeros_like(y[:, 0]), gradient

    # A zero carries the gradient of the labels: hardly anybody asks for it,
    # and in one function with the other it would be computed in eager mode
    # each time, at three times the memory.
    return of_logits(logits) + of_labels(labels)


def _by_kernel(x, smoothed, excess, slack):
    """Computes value and slope by TensorFlow's kernel, in one pass.

    Args:
        x: Tensor of logits.
        smoothed: Function that returns the labels.
        excess: The sum of the labels, less 1.
        slack: What of it is rounding.
    """
    import tensorflow as tf

    def kernel():
        out = tf.raw_ops.SoftmaxCrossEntropyWithLogits(
            features=x, labels=smoothed()
        )
        return tuple(out)

    def corrected():
        loss, slope = kernel()
        # The softmax, without another pass of exponentials.
        share = slope + tf.stop_gradient(smoothed())
        return loss, slope + excess * share

    loss, slope = tf.cond(
        tf.reduce_all(tf.abs(excess) <= slack), kernel, corrected
    )
    value = tf.cond(
        tf.reduce_all(tf.math.is_finite(loss)),
        lambda: loss,
        lambda: _selected_product(smoothed(), x, -1),
    )
    return value, slope


def _compiled(x, smoothed, excess, slack):
    """Computes value and slope where a compiler joins what is elementwise.

    There the cure of both cases costs no pass, and a branch would: it keeps
    copies of what it reads, and nothing is joined across it.
    """
    import tensorflow as tf

    peak = tf.stop_gradient(tf.reduce_max(x, -1, keepdims=True))
    e = tf.exp(x - peak)
    total = tf.reduce_sum(e, -1, keepdims=True)
    # Halves: a difference may overflow where its share does not.
    half = 0.5 * peak - 0.5 * x + 0.5 * tf.math.log(total)
    value = 2 * tf.reduce_sum(tf.math.multiply_no_nan(half, smoothed()), -1)
    # NaN logits stay NaN, even if all labels are 0.
    value = tf.where(tf.math.is_nan(total[:, 0]), total[:, 0], value)
    mass = 1 + tf.where(tf.abs(excess) <= slack, tf.zeros_like(excess), excess)
    slope = e * tf.stop_gradient(mass) / total - tf.stop_gradient(smoothed())
    return value, slope


def sparse_crossentropy(labels, logits):
    """Computes `-log_softmax(logits)` at the labels, along the last axis.

    Args:
        labels: Tensor of int32 or int64, of the shape of the result.
        logits: Tensor in the compute dtype.

    Returns:
        Tensor of the shape of `labels`. A label out of range raises in eager
        mode on the CPU and gives NaN elsewhere.
    """
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=labels, logits=logits
        )
    index = kops.expand_dims(labels, -1)
    picked = kops.take_along_axis(log_softmax(logits), index, axis=-1)
    classes = logits.shape[-1]
    valid = kops.logical_and(labels >= 0, labels < classes)
    return kops.where(valid, -kops.squeeze(picked, -1), float("nan"))
