"""Cosine similarity of vectors of any length."""

import keras
from keras import ops as kops

from stablekeras.losses.checks import check_axes
from stablekeras.losses.inputs import prepare, same_rank
from stablekeras.losses.wrapper import LossFunctionWrapper
from stablekeras.ops.gradient import broadcast, with_pullback
from stablekeras.ops.precision import at_least, largest
from stablekeras.ops.symbolic import stable

__all__ = ["CosineSimilarity", "cosine_similarity"]


def _scaled(x, axis):
    """Scales the largest entry to where no square over- or underflows.

    The cosine does not see it, and neither does its gradient.
    """
    wide = keras.backend.standardize_dtype(x.dtype) == "float64"
    aim, far, step = (
        (2.0**100, 2.0**300, 2.0**512) if wide else (2.0**12, 2.0**40, 2.0**64)
    )
    m = kops.stop_gradient(largest(kops.abs(x), axis))
    one = kops.ones_like(m)
    # Only products with `x`: XLA would divide squares by the squared scale.
    first = kops.where(m > far, one / step, one)
    first = kops.where(m < 1 / far, one * step, first)
    near = m * first
    # TensorFlow may take the product of both scales, which must be finite.
    aims = kops.where(m < 1 / far, one, one * aim)
    second = aims / kops.where(kops.equal(near, 0), one, near)
    return (x * first) * second


def _total(x, axis):
    return kops.sum(x, axis=axis, keepdims=True)


def _across(y, p, axis):
    """Computes `p * sum(y * p) / sum(p * p) - y`, also where both are near.

    What `y` shares with `p` at the largest entry of `p` is taken away first:
    nothing is left there, and little elsewhere, so that little cancels.
    """
    size = kops.abs(p)
    top = kops.equal(size, largest(size, axis))
    some = kops.where(kops.logical_and(top, size > 0), p, kops.ones_like(p))
    ratio = kops.where(top, y / some, kops.zeros_like(p))
    count = _total(kops.cast(top, p.dtype), axis)
    # Whatever is taken away along `p` does not change the result.
    shared = kops.stop_gradient(_total(ratio, axis) / at_least(count, 1.0))
    rest = y - p * shared
    square = _total(kops.square(p), axis)
    zero = kops.equal(square, 0)
    unit = p / kops.sqrt(kops.where(zero, kops.ones_like(square), square))
    return unit * _total(rest * unit, axis) - rest


def _minus_cosine(y, p, axis):
    """Computes minus the cosine along `axis`, which is kept."""

    def norms(y, p):
        # Lengths come before a broadcast, as in Keras.
        squares = [_total(kops.square(x), axis) for x in (y, p)]
        zero = kops.logical_or(*(kops.equal(s, 0) for s in squares))
        return zero, *(
            kops.sqrt(kops.where(zero, kops.ones_like(s), s)) for s in squares
        )

    def value(y, p):
        zero, norm_y, norm_p = norms(y, p)
        dot = _total(y * p, axis)
        return kops.where(zero, kops.zeros_like(dot), -dot) / norm_y / norm_p

    def pullback(u, y, p):
        zero, norm_y, norm_p = norms(y, p)
        u = kops.where(zero, kops.zeros_like(u), u)
        # By one length at a time: TensorFlow reorders products, and that of
        # both with the scale of `_scaled` may underflow.
        of_y = (u / norm_y) * _across(p / norm_p, y, axis)
        return of_y, (u / norm_p) * _across(y / norm_y, p, axis)

    if not _alike(y, p, axis):
        return value(y, p)
    return with_pullback(value, pullback)(y, p)


def _alike(y, p, axis):
    """Whether both have as many entries along `axis`, as far as is known."""
    rank = max(len(y.shape), len(p.shape))
    y, p = ((1,) * (rank - len(x.shape)) + tuple(x.shape) for x in (y, p))
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    pairs = [(y[a], p[a]) for a in (range(rank) if axis is None else axes)]
    return all(a == b or a is None or b is None for a, b in pairs)


@keras.saving.register_keras_serializable(package="stablekeras")
@stable
def cosine_similarity(y_true, y_pred, axis=-1):
    """Computes minus the cosine of the angle, whatever the lengths.

    Formula: `-sum(y * p) / (norm(y) * norm(p))`; 0 if either vector is zero.

    Args:
        y_true: Vectors, of the shape of `y_pred`.
        y_pred: Vectors, any floating dtype.
        axis: Axis of the vectors, or several that make one; None for all.

    Returns:
        Tensor of the shape of `y_pred` without `axis`, in its dtype.

    Raises:
        ValueError: If `axis` is no integer, tuple of integers, or None.

    Accuracy: worst ULP 0.5 in float16, 0.4 in bfloat16, 2.2 in float32, 2.1 in
        float64; gradient 0.0, 0.0, 0.7, 0.7.
    Gradient: `(cos * p / norm(p) - y / norm(y)) / norm(p)`; 0 at zero vectors.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> p = np.array([[3e-30, 4e-30]], "float32")
    >>> losses.cosine_similarity([[6e20, 8e20]], p).numpy()
    array([-1.], dtype=float32)
    """
    check_axes(axis)
    y_true, y_pred, dtype = prepare(y_true, y_pred)
    y_true, y_pred = same_rank(y_true, y_pred)
    y, p = _scaled(y_true, axis), _scaled(y_pred, axis)
    if _alike(y, p, axis):
        y, p = broadcast(y, p)
    loss = kops.squeeze(_minus_cosine(y, p, axis), axis=axis)
    return kops.cast(loss, dtype)


@keras.saving.register_keras_serializable(package="stablekeras")
class CosineSimilarity(LossFunctionWrapper):
    """Minus the cosine of the angle; see `losses.cosine_similarity`.

    Args:
        axis: Axis of the vectors, or several that make one; None for all.
        reduction: As in `losses.Loss`.
        name: Name of the loss.
        dtype: As in `losses.Loss`.

    Raises:
        ValueError: If `axis` is no integer, tuple of integers, or None.

    Accuracy: see `docs/reference/accuracy.md`.
    Gradient: as in `losses.cosine_similarity`.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> loss = losses.CosineSimilarity()
    >>> float(loss([[1e30, 0.0]], np.array([[1e-30, 0.0]], "float32")))
    -1.0
    """

    def __init__(
        self,
        axis=-1,
        reduction="sum_over_batch_size",
        name="cosine_similarity",
        dtype=None,
    ):
        check_axes(axis)
        super().__init__(
            cosine_similarity,
            name=name,
            reduction=reduction,
            dtype=dtype,
            axis=axis,
        )
        self.axis = axis
