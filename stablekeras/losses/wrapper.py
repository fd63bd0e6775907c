"""A loss class around a loss function."""

import keras
from keras import ops as kops

from stablekeras.losses.inputs import same_rank, same_shape
from stablekeras.losses.loss import Loss

__all__ = ["LossFunctionWrapper"]

_ROOM = __name__.rpartition(".")[0] + "."
# Of our functions, those whose labels have no class axis,
_NUMBERED = (
    "categorical_generalized_cross_entropy",
    "circle",
    "sparse_categorical_crossentropy",
)
# and those whose labels must not broadcast.
_ALIKE = (
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
)


@keras.saving.register_keras_serializable(package="stablekeras")
class LossFunctionWrapper(Loss):
    """Makes a `Loss` of a function of labels and predictions.

    Args:
        fn: Function `fn(y_true, y_pred, **kwargs)` that returns one loss per
            sample.
        reduction: As in `Loss`.
        name: Optional name.
        dtype: As in `Loss`.
        **kwargs: Further arguments of `fn`.

    Raises:
        TypeError: If `fn` is not callable.

    Accuracy: that of `fn`.
    Gradient: that of `fn`; exactly 0 for excluded entries.

    Example:
    >>> import numpy as np
    >>> from stablekeras import losses
    >>> loss = losses.LossFunctionWrapper(
    ...     losses.huber, delta=2.0)
    >>> float(loss(np.zeros((1, 2)), np.full((1, 2), 10.0)))
    18.0
    """

    def __init__(
        self,
        fn,
        reduction="sum_over_batch_size",
        name=None,
        dtype=None,
        **kwargs,
    ):
        if not callable(fn):
            raise TypeError(
                "fn must be a function of labels and predictions. "
                f"Received: fn={fn!r}. Pass for example losses.huber."
            )
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.fn = fn
        self._fn_kwargs = kwargs
        if kwargs.get("from_logits"):
            # Logits have no limit to their gradient: its overflow must show.
            self._cast = Loss._cast

    def call(self, y_true, y_pred):
        """Returns `fn(y_true, y_pred)`, one loss per sample."""
        if hasattr(y_true, "shape") and hasattr(y_pred, "shape"):
            y_true, y_pred = same_rank(y_true, y_pred)
        else:
            pairs = keras.tree.map_structure(same_rank, y_true, y_pred)
            y_true, y_pred = (
                keras.tree.map_structure_up_to(
                    y_true, lambda pair, i=i: pair[i], pairs
                )
                for i in (0, 1)
            )
        return self.fn(y_true, y_pred, **self._fn_kwargs)

    def get_config(self):
        """Returns the constructor's arguments, `fn` and its own included."""
        config = super().get_config()
        if type(self) is LossFunctionWrapper or not self._ours:
            config["fn"] = keras.saving.serialize_keras_object(self.fn)
        config.update(keras.saving.serialize_keras_object(self._fn_kwargs))
        return config

    @classmethod
    def from_config(cls, config):
        """Returns the loss that `get_config` described."""
        # Arrays, tuples and functions are described by dictionaries.
        config = {
            name: keras.saving.deserialize_keras_object(value)
            if isinstance(value, dict)
            else value
            for name, value in config.items()
        }
        return cls(**config)

    def __repr__(self):
        return f"<{type(self).__name__}({self.fn}, kwargs={self._fn_kwargs})>"

    @property
    def _ours(self):
        return getattr(self.fn, "__module__", "").startswith(_ROOM)

    def _prepare_labels(self, y_true, dtype):
        # Our functions convert labels themselves: class numbers stay whole.
        return y_true if self._ours else super()._prepare_labels(y_true, dtype)

    def _select(self, keep, y_true, y_pred):
        # In the shape in which `call` will see them.
        if hasattr(y_true, "shape") and hasattr(y_pred, "shape"):
            y_true, y_pred = same_rank(y_true, y_pred)
            if self._ours:
                y_true = self._aligned(y_true, y_pred)
        return super()._select(keep, y_true, y_pred)

    def _aligned(self, y_true, y_pred):
        """Gives labels the rank of predictions unless they are numbers."""
        name = self.fn.__name__
        if name in _ALIKE:
            # What is selected from a smaller tensor has the larger shape.
            same_shape(y_true, y_pred)
        if name not in _NUMBERED:
            for _ in range(len(y_pred.shape) - len(y_true.shape)):
                y_true = kops.expand_dims(y_true, 0)
        return y_true

    def _reduced_axes(self, keep, y_true, y_pred):
        if not self._ours:
            return super()._reduced_axes(keep, y_true, y_pred)
        axis = self._fn_kwargs.get("axis", -1)
        if axis is None:
            return None
        rank = len(y_pred.shape)
        axes = axis if isinstance(axis, (tuple, list)) else (axis,)
        return tuple(a % rank for a in axes)
