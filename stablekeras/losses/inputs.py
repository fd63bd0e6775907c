"""What a loss does with its two tensors before it computes.

Predictions decide the dtype; labels are never rounded by a 16-bit one. A
tensor that replaces another (a cast, a selection) takes along what is known
of its origin: the logits it was made from and the mask it carries.
"""

import contextlib

import keras
from keras import ops as kops

from stablekeras.ops.precision import (
    compute_dtype,
    exact_number,
    result_dtype,
)
from stablekeras.ops.provenance import MADE

__all__ = [
    "carry_origin",
    "keras_mask",
    "prepare",
    "same_rank",
    "same_shape",
    "set_keras_mask",
    "smooth_labels",
    "widest_integers",
]

# The attributes through which Keras' activations and layers speak to losses.
ORIGIN = ("_keras_logits", "_stable_origin", MADE)


def carry_origin(old, new):
    """Lets `new` remember the logits that `old` remembers; returns `new`."""
    if new is not old:
        for name in ORIGIN:
            if hasattr(old, name):
                # Arrays that take no attributes remember nothing.
                with contextlib.suppress(AttributeError):
                    setattr(new, name, getattr(old, name))
    return new


def keras_mask(x):
    """Returns the mask that a Keras layer attached to `x`, or None."""
    return getattr(x, "_keras_mask", None)


def set_keras_mask(x, mask):
    """Attaches a mask to `x` where the backend's tensors allow it."""
    with contextlib.suppress(AttributeError):
        x._keras_mask = mask


def prepare(y_true, y_pred, cast=None):
    """Converts labels and predictions to the dtype to compute in.

    Args:
        y_true: Array-like of any real dtype.
        y_pred: Array-like; its dtype is that of the answer.
        cast: Function that casts the predictions; a plain cast by default.

    Returns:
        `(y_true, y_pred, dtype)`: two tensors in float64 if `y_pred` is
        float64 and in float32 otherwise, and the dtype of the answer.
    """
    y_pred = kops.convert_to_tensor(y_pred)
    dtype = result_dtype(y_pred)
    work = compute_dtype(dtype)
    y_true = exact_number(y_true, work)
    if cast is not None:
        return y_true, cast(y_pred, work), dtype
    return y_true, carry_origin(y_pred, kops.cast(y_pred, work)), dtype


def same_rank(x1, x2, expand_rank_1=True):
    """Squeezes or expands the last dimension if ranks differ by one.

    Args:
        x1: Tensor.
        x2: Tensor.
        expand_rank_1: Whether a vector is expanded to meet `(n, 1)` instead
            of the latter being squeezed.

    Returns:
        Both tensors, of one rank where that was possible.
    """
    rank1, rank2 = len(x1.shape), len(x2.shape)
    if rank1 == rank2 + 1 and x1.shape[-1] == 1:
        if rank2 == 1 and expand_rank_1:
            x2 = kops.expand_dims(x2, axis=-1)
        else:
            x1 = kops.squeeze(x1, axis=-1)
    elif rank2 == rank1 + 1 and x2.shape[-1] == 1:
        if rank1 == 1 and expand_rank_1:
            x1 = kops.expand_dims(x1, axis=-1)
        else:
            x2 = kops.squeeze(x2, axis=-1)
    return x1, x2


def same_shape(y_true, y_pred):
    """Raises a `ValueError` if the static shapes cannot be equal."""
    true, pred = tuple(y_true.shape), tuple(y_pred.shape)
    if len(true) != len(pred) or any(
        a is not None and b is not None and a != b
        for a, b in zip(true, pred, strict=False)
    ):
        raise ValueError(
            "y_true and y_pred must have the same shape. "
            f"Received: y_true.shape={true}, y_pred.shape={pred}. "
            "Reshape the labels, or use a sparse loss for class numbers."
        )


def smooth_labels(y_true, smoothing, axis):
    """Mixes labels with the uniform distribution over the classes."""
    if not smoothing:
        return y_true
    classes = kops.cast(kops.shape(y_true)[axis], y_true.dtype)
    return y_true * (1.0 - smoothing) + smoothing / classes


def widest_integers():
    """Returns the widest integers: JAX has no int64 unless it is asked for."""
    if keras.backend.backend() == "jax":
        import jax

        return "int64" if jax.config.jax_enable_x64 else "int32"
    return "int64"
