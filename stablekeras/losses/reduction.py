"""Sums and means that overflow only where the true value does."""

import keras
from keras import ops as kops

from stablekeras.losses.totals import total
from stablekeras.ops.gradient import custom_gradient
from stablekeras.ops.precision import at_least

__all__ = ["mean", "quotient", "reduce_weighted", "with_value"]

MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


@custom_gradient
def with_value(carrier, value):
    """Returns `value`, but passes the gradient to `carrier`."""

    def gradient(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        return upstream, kops.zeros_like(upstream)

    # Where they agree it is the carrier: the forward mode of TensorFlow finds
    # its tangent.
    same = kops.equal(value, carrier)
    return kops.where(same, carrier, value), gradient


def mean(values, axis=-1, rescaled=None, operands=()):
    """Means along `axis`, finite wherever the true mean is.

    A sum may overflow where its mean does not. Only then is the mean computed
    anew from terms scaled down first; the gradient, which knows no sum, stays.

    Args:
        values: Tensor of terms, or a function that computes it. A function is
            called once more for the mean computed anew: XLA then keeps no
            tensor of terms for a branch that is hardly ever taken.
        axis: Integer, tuple or None: where to take the mean.
        rescaled: Function of a scale, and of the operands, that returns the
            sum of the terms times the scale, for terms that themselves may
            overflow. Defaults to the sum of `values * scale`.
        operands: Tensors that `rescaled`, and a function `values`, take. No
            gradient follows them into that branch: TensorFlow does not
            differentiate a branch twice, nor forwards.

    Returns:
        Tensor without the dimensions of `axis`.
    """
    if not callable(values):
        terms, operands = values, operands or (values,)
    else:
        terms = values(*operands)
    whole = total(terms, axis)
    count = at_least(kops.cast(_count(terms, axis), whole.dtype), 1.0)
    plain = whole / count
    if rescaled is None:

        def rescaled(scale, *operands):
            anew = values(*operands) if callable(values) else operands[0]
            return kops.sum(anew * scale, axis=axis)

    # Outside the branch: it must not capture what is differentiated.
    fixed, *given = map(kops.stop_gradient, (plain, *operands))
    overflown = kops.logical_not(kops.isfinite(fixed))

    def anew():
        return kops.where(overflown, rescaled(1 / count, *given), fixed)

    value = kops.cond(kops.any(overflown), anew, lambda: fixed)
    return with_value(plain, value)


def _count(values, axis):
    shape = kops.shape(values)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    if axis is None:
        axes = tuple(range(len(shape)))
    count = 1
    for a in axes:
        count = count * shape[a]
    return count


def quotient(a, b):
    """Divides, 0 where `b` is 0; Keras' `divide_no_nan` narrows on torch."""
    nothing = kops.equal(b, 0)
    return kops.where(nothing, 0.0, a) / kops.where(nothing, 1.0, b)


def reduce_weighted(values, weights, reduction):
    """Applies weights and a reduction to per-sample losses.

    An entry of weight zero is selected away, not multiplied: whatever stands
    there reaches neither the value nor the gradient.

    Args:
        values: Tensor of losses.
        weights: Tensor that broadcasts to `values`, or None.
        reduction: A reduction as in Keras.

    Returns:
        Scalar, or a tensor of the shape of `values` without a reduction.
    """
    if weights is not None:
        dropped = kops.equal(weights, 0)
        values = kops.where(dropped, kops.zeros_like(values), values) * weights
    if reduction in (None, "none") or tuple(values.shape) == (0,):
        return values
    if tuple(values.shape) == ():
        return _for_replicas(values) if reduction in MEANS else values
    axes = tuple(range(len(values.shape)))
    if reduction == "sum":
        return kops.sum(values)
    if reduction == "mean_with_sample_weight" and weights is not None:
        loss = quotient(kops.sum(values), kops.sum(weights))
    else:
        loss = mean(values, axes)
    return _for_replicas(loss)


def _for_replicas(loss):
    """Divides a mean by the number of replicas, whose gradients are summed."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            return loss / replicas
    return loss
