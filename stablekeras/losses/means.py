"""Means of elementwise terms of labels and predictions."""

from keras import ops as kops

from stablekeras.losses.inputs import same_rank
from stablekeras.losses.reduction import mean
from stablekeras.ops.precision import (
    compute_dtype,
    exact_number,
    result_dtype,
)

__all__ = ["mean_of_terms"]


def mean_of_terms(terms, rescaled, y_true, y_pred, factor=None):
    """Means terms along the last axis, finite wherever the true mean is.

    16-bit tensors are widened where they are read: XLA would make copies of
    wide ones for the branch that computes a mean anew, which took five times
    as long as the rest.

    Args:
        terms: Function of labels and predictions in the compute dtype.
        rescaled: Function of a scale and of both; see `reduction.mean`.
        y_true: Labels, an array-like of any real dtype.
        y_pred: Predictions; their dtype is that of the answer.
        factor: Number by which the mean is multiplied, or None.

    Returns:
        Tensor of the shape of `y_pred` without the last axis, in its dtype.
    """
    y_pred = kops.convert_to_tensor(y_pred)
    dtype = result_dtype(y_pred)
    work = compute_dtype(dtype)
    if "float16" in str(getattr(y_true, "dtype", "")):  # or bfloat16
        y_true = kops.convert_to_tensor(y_true)
    else:
        y_true = exact_number(y_true, work)

    def wide(*xs):
        return [kops.cast(x, work) for x in xs]

    loss = mean(
        lambda y, p: terms(*wide(y, p)),
        rescaled=lambda scale, y, p: rescaled(scale, *wide(y, p)),
        operands=same_rank(y_true, y_pred),
    )
    if factor is not None:
        loss = factor * loss
    return kops.cast(loss, dtype)
