"""Cosine similarity of vectors of any length."""

import keras
from keras import ops as kops

from stablekeras.losses.checks import check_axes
from stablekeras.losses.inputs import prepare, same_rank
from stablekeras.losses.wrapper import LossFunctionWrapper
from stablekeras.ops.gradient import broadcast, custom_gradient
from stablekeras.ops.precision import at_least
from stablekeras.ops.symbolic import stable

__all__ = ["CosineSimilarity", "cosine_similarity"]


def _scale(x, axis):
    """Returns a factor with which no square of `x` over- or underflows."""
    wide = keras.backend.standardize_dtype(x.dtype) == "float64"
    aim, least = (2.0**100, 2.0**-900) if wide else (2.0**12, 2.0**-100)
    if 0 in tuple(x.shape):  # Keras has no maximum of nothing
        return kops.ones_like(_total(x, axis))
    # Not the maximum of sizes: XLA would store a tensor of them.
    top = kops.max(x, axis=axis, keepdims=True)
    bottom = -kops.min(x, axis=axis, keepdims=True)
    size = kops.where(top > bottom, top, bottom)
    # One product with `x`: XLA would divide squares by the squared scale.
    return aim / at_least(size, least)


def _before_sums(x):
    """Lets JAX compute `x` as written: it would scale sums, which overflow."""
    if keras.config.backend() == "jax":
        import jax

        return jax.lax.optimization_barrier(x)
    return x


def _total(x, axis):
    return kops.sum(x, axis=axis, keepdims=True)


def _minus_cosine(y, p, axis):
    """Computes minus the cosine along `axis`, which is kept."""

    def measured(x):
        # The cosine does not see the scale, and neither does its gradient.
        scale = kops.stop_gradient(_scale(x, axis))
        scaled = _before_sums(x * scale)
        square = _total(kops.square(scaled), axis)
        zero = kops.equal(square, 0)
        norm = kops.sqrt(kops.where(zero, kops.ones_like(square), square))
        return scaled, norm, scale, zero

    def parts(y, p):
        # Lengths come before a broadcast, as in Keras.
        (y, norm_y, scale_y, zero_y), (p, norm_p, scale_p, zero_p) = map(
            measured, (y, p)
        )
        dot = _total(y * p, axis)
        zero = kops.logical_or(zero_y, zero_p)
        minus = kops.where(zero, kops.zeros_like(dot), -dot) / norm_y / norm_p
        return (y, norm_y, scale_y), (p, norm_p, scale_p), zero, minus

    @custom_gradient
    def loss(y, p):
        known = parts(y, p)

        def gradient(*args, upstream=None):
            fresh = upstream is None
            if fresh:
                (upstream,) = args
            of_y, of_p, zero, minus = known if fresh else parts(*args)
            u = kops.where(zero, kops.zeros_like(upstream), upstream)
            y_unit, p_unit = (x / norm for x, norm, _ in (of_y, of_p))

            def across(one, other, side):
                # What `other` shares with `one` is taken away twice: what the
                # first time left of it was only rounding, and cancels.
                rest = other + one * minus
                _, norm, scale = side
                factor = (u / norm) * scale
                return (one * _total(rest * one, axis) - rest) * factor

            return (
                across(y_unit, p_unit, of_y),
                across(p_unit, y_unit, of_p),
            )

        return known[-1], gradient

    if not _alike(y, p, axis):
        return parts(y, p)[-1]
    return loss(y, p)


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

    Accuracy: worst ULP 0.5 in float16, 0.4 in bfloat16, 2.0 in float32, 2.0 in
        float64; gradient 0.0, 0.0, 1.5, 0.6.
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
    if _alike(y_true, y_pred, axis):
        y_true, y_pred = broadcast(y_true, y_pred)
    loss = kops.squeeze(_minus_cosine(y_true, y_pred, axis), axis=axis)
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
