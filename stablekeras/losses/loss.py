"""The base class of losses: dtypes, masks, weights and reduction."""

import numbers

import keras
from keras import ops as kops

from stablekeras.losses.checks import check_reduction
from stablekeras.losses.inputs import (
    carry_origin,
    keras_mask,
    same_rank,
    set_keras_mask,
)
from stablekeras.losses.origin import select
from stablekeras.losses.reduction import reduce_weighted
from stablekeras.losses.selection import merge_weights, spread
from stablekeras.ops.precision import compute_dtype, exact_tensor

__all__ = ["Loss"]


def _cast_prediction(x, dtype):
    out = carry_origin(x, kops.cast(x, dtype))
    if out is not x:
        set_keras_mask(out, keras_mask(x))
    return out


@keras.saving.register_keras_serializable(package="stablekeras")
class Loss(keras.losses.Loss):
    """Base class of losses, and of your own.

    As `keras.losses.Loss`, with these differences:

    * Entries that a mask or a zero weight excludes are *selected away* before
      the loss is computed: whatever stands there, NaN included, reaches
      neither the value nor the gradient.
    * Float64 predictions give a float64 loss. 16-bit predictions, or
      `dtype="float16"`, are computed in float32 and rounded once, at the end;
      labels are never rounded to 16 bits.
    * A mean overflows only where the true mean does.

    Args:
        name: Optional name.
        reduction: `"sum_over_batch_size"` (or `"mean"`), `"sum"`,
            `"mean_with_sample_weight"`, `"none"` or None.
        dtype: Dtype of the result, or a `keras.DTypePolicy`. Defaults to
            `keras.config.floatx()`, and to float64 for float64 predictions.

    Raises:
        ValueError: If `reduction` is not one of these.

    Accuracy: the reduction adds the rounding of one sum in the compute dtype.
    Gradient: exactly 0 for excluded entries.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> class Squared(losses.Loss):
    ...     def call(self, y_true, y_pred):
    ...         return (y_true - y_pred) ** 2
    >>> y_pred = np.array([1.0, float("nan")], "float32")
    >>> float(Squared()(np.zeros(2), y_pred, sample_weight=np.array([1, 0])))
    0.5
    """

    # What excluded predictions are replaced by: finite in every loss.
    _safe = 0.5
    _cast = staticmethod(_cast_prediction)

    def __init__(self, name=None, reduction="sum_over_batch_size", dtype=None):
        check_reduction(reduction)
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self._given_dtype = None if dtype is None else self.dtype

    def __call__(self, y_true, y_pred, sample_weight=None):
        """Computes the reduced loss.

        Args:
            y_true: Labels, in the shape the loss asks for.
            y_pred: Predictions.
            sample_weight: Optional weights that broadcast to the losses.

        Returns:
            Scalar, or the losses themselves without a reduction.
        """
        with keras.name_scope(self.name):
            mask = keras_mask(y_pred)
            y_pred = _tensors(y_pred)
            y_true = _tensors(y_true, exact_tensor)
            dtype = self._result_dtype(y_pred)
            work = compute_dtype(dtype)
            y_pred = keras.tree.map_structure(
                lambda x: self._cast(x, work), y_pred
            )
            y_true = self._prepare_labels(y_true, work)
            weights = merge_weights(sample_weight, mask, self.reduction, work)
            if weights is not None:
                keep = kops.not_equal(weights, 0)
                y_true, y_pred = self._select(keep, y_true, y_pred)
            values = self.call(y_true, y_pred)
            found = keras_mask(values)
            if found is not None:
                mask = found if mask is None else _both(mask, found)
                weights = merge_weights(
                    sample_weight, mask, self.reduction, work
                )
            values = kops.cast(values, work)
            if weights is not None:
                values, weights = same_rank(values, weights)
            loss = reduce_weighted(values, weights, self.reduction)
            return kops.cast(loss, dtype)

    def call(self, y_true, y_pred):
        """Returns one loss per entry; to be written by subclasses."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `call(y_true, y_pred)`."
        )

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {"name": self.name, "reduction": self.reduction}
        if self._given_dtype is not None:
            config["dtype"] = self._given_dtype
        return config

    def _result_dtype(self, y_pred):
        if self._given_dtype is not None:
            return self._given_dtype
        dtypes = {
            keras.backend.standardize_dtype(x.dtype)
            for x in keras.tree.flatten(y_pred)
        }
        return "float64" if "float64" in dtypes else self.dtype

    def _prepare_labels(self, y_true, dtype):
        return keras.tree.map_structure(lambda x: kops.cast(x, dtype), y_true)

    def _select(self, keep, y_true, y_pred):
        """Replaces what is not kept by harmless values."""
        if not hasattr(y_pred, "shape") or not hasattr(y_true, "shape"):
            return y_true, y_pred
        axes = self._reduced_axes(keep, y_true, y_pred)
        rank = len(y_pred.shape)
        wide = (
            None
            if axes == "unknown"
            else spread(keep, tuple(y_pred.shape), axes)
        )
        if wide is None:
            return y_true, y_pred
        y_pred = select(wide, y_pred, self._safe)
        if len(y_true.shape) == rank:
            narrow = wide
        elif axes and _alike(y_true.shape, y_pred.shape, axes):
            narrow = kops.squeeze(wide, axis=axes)
        else:
            return y_true, y_pred
        return kops.where(narrow, y_true, kops.zeros_like(y_true)), y_pred

    def _reduced_axes(self, keep, y_true, y_pred):
        """Returns the axes of `y_pred` that the losses lack.

        A loss of one's own may keep the last axis or not. Mostly the shape of
        the weights tells; if it fits both readings, the loss itself does.
        """
        shape, seen = tuple(y_pred.shape), tuple(keep.shape)
        while len(seen) > len(shape) and seen[-1] == 1:
            seen = seen[:-1]
        lead = _fits(seen, shape[: len(seen)])
        tail = _fits(seen, shape[len(shape) - len(seen) :], strict=True)
        if lead and tail and 0 < len(seen) < len(shape):
            values = self.call(y_true, y_pred)
            return tuple(range(len(values.shape), len(shape)))
        if lead:
            return tuple(range(len(seen), len(shape)))
        return () if tail else "unknown"


def _tensors(x, convert=kops.convert_to_tensor):
    """Converts an array, nested numbers, or each array of a structure."""
    leaves = keras.tree.flatten(x)
    if leaves and all(isinstance(leaf, numbers.Number) for leaf in leaves):
        return convert(x)
    return keras.tree.map_structure(convert, x)


def _alike(labels, predictions, axes):
    rest = [d for i, d in enumerate(predictions) if i not in axes]
    return len(labels) == len(rest) and all(
        a == b or None in (a, b) for a, b in zip(labels, rest, strict=True)
    )


def _fits(seen, shape, strict=False):
    if len(seen) != len(shape):
        return False
    unknown = {1} if strict else {1, None}
    return all(
        (a == b and (a is not None or not strict))
        or a in unknown
        or (b is None and not strict)
        for a, b in zip(seen, shape, strict=True)
    )


def _both(mask, found):
    mask, found = same_rank(kops.cast(mask, "bool"), kops.cast(found, "bool"))
    return kops.logical_and(mask, found)
