"""Selecting away what a mask or a zero weight excludes.

Multiplying by zero hides nothing: 0 times NaN is NaN, and so is its gradient.
Here an excluded entry is replaced by a harmless one before the loss sees it.
"""

from keras import ops as kops

from stablekeras.losses.inputs import same_rank
from stablekeras.losses.reduction import quotient
from stablekeras.ops.precision import exact_number

__all__ = ["merge_weights", "spread"]


def merge_weights(sample_weight, mask, reduction, dtype):
    """Merges mask and sample weights into weights, as Keras does.

    With a mean over the batch, valid entries weigh `total / valid`, so that
    the mean is over the valid ones.

    Args:
        sample_weight: Array-like or None.
        mask: Boolean tensor or None.
        reduction: A reduction as in Keras.
        dtype: Dtype of the weights.

    Returns:
        Tensor of weights, exactly 0 for excluded entries; or None.
    """
    if sample_weight is not None:
        sample_weight = exact_number(sample_weight, dtype)
    if mask is None:
        return sample_weight
    mask = kops.cast(mask, "bool")
    weights = kops.cast(mask, dtype)
    if reduction in ("mean", "sum_over_batch_size"):
        total = kops.cast(kops.size(mask), dtype)
        valid = kops.sum(weights)
        weights = weights * quotient(total, valid)
    if sample_weight is not None:
        weights, sample_weight = same_rank(weights, sample_weight)
        weights = kops.where(
            kops.equal(weights, 0), 0.0, weights * sample_weight
        )
    return weights


def spread(keep, shape, axes):
    """Reshapes a selection of losses so that it broadcasts to predictions.

    Args:
        keep: Boolean tensor that broadcasts to the losses.
        shape: Static shape of the predictions.
        axes: Axes of the predictions that the loss reduces; None for all.

    Returns:
        Boolean tensor of the rank of the predictions, or None if no reading
        fits.
    """
    rank = len(shape)
    if axes is None:
        keep = _squeezed(keep, rank)
        return _expanded(keep, range(len(keep.shape), rank), rank)
    axes = sorted(a % rank for a in axes)
    losses = [d for i, d in enumerate(shape) if i not in axes]
    keep = _squeezed(keep, len(losses))
    if len(keep.shape) > len(losses):
        return None
    if len(keep.shape) == len(losses) - 1 and losses[-1] == 1:
        # As in Keras: (n,) meets losses of shape (n, 1).
        keep = kops.expand_dims(keep, -1)
    for _ in range(len(losses) - len(keep.shape)):
        keep = kops.expand_dims(keep, 0)
    return _expanded(keep, axes, rank)


def _squeezed(keep, rank):
    while len(keep.shape) > max(rank, 0) and keep.shape[-1] == 1:
        keep = kops.squeeze(keep, -1)
    return keep


def _expanded(keep, axes, rank):
    for axis in axes:
        keep = kops.expand_dims(keep, axis)
    return keep if len(keep.shape) == rank else None
