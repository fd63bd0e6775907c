"""Finding the logits behind probabilities.

A saturated probability has lost what a loss needs; the logits have not. In a
TensorFlow graph the producers of the probabilities are read back through
casts and reshapes. Where there is no graph to read (eager mode, torch), the
logits that the activation attached are taken.
"""

import keras
import numpy as np
from keras import ops as kops

from stablekeras.losses.inputs import carry_origin, keras_mask, set_keras_mask
from stablekeras.ops import log_sigmoid, log_softmax, sigmoid, softmax
from stablekeras.ops.precision import finfo

__all__ = [
    "Origin",
    "cast_probabilities",
    "find_origin",
    "log_probabilities",
    "select",
]

_LIMIT = 64  # operations read back, far beyond any head of a model
_TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float64": 1e-10}


class Origin:
    """Where probabilities come from.

    Args:
        kinds: The activations that explain them: `("softmax",)`,
            `("sigmoid",)`, or both where the values allow both.
        logits: The activation's input, of the shape of the probabilities.
        axis: The axis of the softmax, negative; None for a sigmoid.
    """

    def __init__(self, kinds, logits, axis=None):
        self.kinds = kinds
        self.logits = logits
        self.axis = axis


def find_origin(probabilities):
    """Finds the activation that made `probabilities`.

    Args:
        probabilities: Tensor.

    Returns:
        An `Origin` with logits of the shape of the probabilities, or None.
    """
    known = getattr(probabilities, "_stable_origin", None)
    if known is not None:
        return known
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        if isinstance(probabilities, tf.Tensor) and not _eager(probabilities):
            return _read_graph(tf, probabilities)
    attached = getattr(probabilities, "_keras_logits", None)
    if attached is None:
        return None
    return _by_value(probabilities, attached)


def log_probabilities(origin):
    """Returns the logarithms of the probabilities of an `Origin`.

    Args:
        origin: `Origin` of one kind.
    """
    if origin.kinds[0] == "sigmoid":
        return log_sigmoid(origin.logits)
    return log_softmax(origin.logits, axis=origin.axis)


def cast_probabilities(x, dtype):
    """Casts probabilities to the dtype to compute in.

    A float16 gradient cannot hold `1 / p` below 1.5e-5, and infinity would
    end the training. For such entries, where the logits are not to be found,
    the gradient is the largest float16 instead.

    Args:
        x: Tensor.
        dtype: Compute dtype.
    """
    given = keras.backend.standardize_dtype(x.dtype)
    if given != "float16" or find_origin(x) is not None:
        out = carry_origin(x, kops.cast(x, dtype))
    else:
        out = _limited(dtype)(x)
    if out is not x:
        set_keras_mask(out, keras_mask(x))
    return out


def _limited(dtype):
    largest = finfo("float16").max

    @kops.custom_gradient
    def cast(x):
        def gradient(*args, upstream=None):
            seen, upstream = (
                (x, args[0]) if upstream is None else (args[0], upstream)
            )
            steep = kops.cast(seen, upstream.dtype) * largest < 1
            limited = kops.clip(upstream, -largest, largest)
            out = kops.where(steep, limited, upstream)
            return kops.cast(out, "float16")

        return kops.cast(x, dtype), gradient

    return cast


def select(keep, x, safe):
    """Replaces the entries of `x` that are not kept by `safe`.

    The logits behind `x`, if any, are selected alike and go along.

    Args:
        keep: Boolean tensor that broadcasts to `x`.
        x: Tensor.
        safe: Number at which the loss is finite.

    Returns:
        Tensor of the shape of `x`.
    """
    origin = find_origin(x)
    out = kops.where(keep, x, kops.cast(safe, x.dtype))
    if origin is not None:
        zero = kops.zeros_like(origin.logits)
        logits = kops.where(keep, origin.logits, zero)
        out._stable_origin = Origin(origin.kinds, logits, origin.axis)
    set_keras_mask(out, keras_mask(x))
    return out


def _eager(tensor):
    return hasattr(tensor, "numpy")


def _by_value(probabilities, logits):
    """Tells softmax from sigmoid by what the values allow."""
    if tuple(probabilities.shape) != tuple(logits.shape):
        return None
    dtype = keras.backend.standardize_dtype(logits.dtype)
    tolerance = max(
        _TOLERANCE.get(dtype, 1e-5),
        _TOLERANCE.get(
            keras.backend.standardize_dtype(probabilities.dtype), 1e-5
        ),
    )
    x = kops.stop_gradient(kops.cast(logits, "float32"))
    p = kops.stop_gradient(kops.cast(probabilities, "float32"))

    def explains(candidate):
        near = kops.abs(candidate - p) <= max(tolerance, 1e-5)
        both = kops.logical_and(kops.isnan(candidate), kops.isnan(p))
        # An entry that is NaN, to be masked, spoils its whole softmax.
        return bool(kops.all(kops.logical_or(near, both)))

    kinds, axis = [], None
    for a in {-1, 1 - len(x.shape)} if len(x.shape) else ():
        if explains(softmax(x, axis=a)):
            kinds, axis = ["softmax"], a
            break
    if explains(sigmoid(x)):
        kinds.append("sigmoid")
    return Origin(tuple(kinds), logits, axis) if kinds else None


def _read_graph(tf, tensor):
    from stablekeras.losses.patterns import match

    steps = []
    for _ in range(_LIMIT):
        if _eager(tensor):  # captured from outside the graph
            attached = getattr(tensor, "_keras_logits", None)
            found = None if attached is None else _by_value(tensor, attached)
            break
        found = match(tensor)
        if found is None and getattr(tensor, "_stable_origin", None):
            found = tensor._stable_origin
        if found is not None:
            break
        attached = getattr(tensor, "_keras_logits", None)
        if attached is not None:
            found = Origin(("softmax", "sigmoid"), attached, -1)
            break
        step, tensor = _step_back(tf, tensor)
        if tensor is None:
            return None
        if step is not None:
            steps.append(step)
    else:
        return None
    if found is None:
        return None
    return _replay(tf, found, reversed(steps))


def _step_back(tf, tensor):
    """Returns `(step, input)` of an operation that only moves values."""
    op = tensor.op
    if op.type == "Identity":
        return None, op.inputs[0]
    if op.type == "Cast":
        source = op.inputs[0]
        exact = source.dtype.is_floating and tensor.dtype.is_floating
        return None, source if exact else None
    if op.type in ("Reshape", "Squeeze", "ExpandDims", "Transpose"):
        return op, op.inputs[0]
    if op.type == "Placeholder":
        for outer, inner in getattr(op.graph, "captures", ()):
            if inner is tensor:
                return None, outer
    return None, None


def _replay(tf, origin, steps):
    """Applies to the logits what was done to the probabilities."""
    logits, axis = origin.logits, origin.axis
    kinds = origin.kinds
    for op in steps:
        before = op.inputs[0].shape
        if axis is not None:
            axis = _moved(tf, op, axis)
            if axis is None:
                kinds = tuple(k for k in kinds if k != "softmax")
                if not kinds:
                    return None
        if before.rank is None or logits.shape.rank != before.rank:
            return None
        if op.type == "Reshape":
            logits = tf.reshape(logits, op.inputs[1])
        elif op.type == "Squeeze":
            logits = tf.squeeze(logits, op.get_attr("squeeze_dims") or None)
        elif op.type == "ExpandDims":
            logits = tf.expand_dims(logits, op.inputs[1])
        else:
            logits = tf.transpose(logits, op.inputs[1])
        logits.set_shape(op.outputs[0].shape)
    return Origin(kinds, logits, axis)


def _static(tf, tensor):
    """Returns the value of a tensor that only depends on static shapes.

    `tf.nn.softmax` along another axis than the last computes its permutation
    from the rank with operations that TensorFlow does not fold.
    """
    value = tf.get_static_value(tensor)
    if value is not None or len(tensor.op.inputs) == 0:
        return value
    known = [_static(tf, x) for x in tensor.op.inputs]
    if any(x is None for x in known):
        return None
    kind = tensor.op.type
    if kind in ("Sub", "AddV2"):
        return known[0] - known[1] if kind == "Sub" else known[0] + known[1]
    if kind == "Range":
        return np.arange(*known)
    if kind == "Pack":
        return np.stack(known)
    return np.concatenate(known[:-1]) if kind == "ConcatV2" else None


def _moved(tf, op, axis):
    """Returns where an axis (negative) is after `op`; None if unsure."""
    before, after = op.inputs[0].shape, op.outputs[0].shape
    if before.rank is None or after.rank is None:
        return None
    place = axis % before.rank
    if op.type == "Reshape":
        kept = axis == -1 and before[-1] is not None and before[-1] == after[-1]
        return -1 if kept and after.rank else None
    if op.type == "Transpose":
        order = _static(tf, op.inputs[1])
        if order is None:
            return None
        return list(order).index(place) - after.rank
    if op.type == "ExpandDims":
        new = _static(tf, op.inputs[1])
        if new is None:
            return None
        new = int(new) % after.rank
        return place + (new <= place) - after.rank
    gone = [d % before.rank for d in op.get_attr("squeeze_dims")]
    if not gone:
        gone = [i for i, d in enumerate(before) if d == 1]
        if any(d is None for d in before):
            return None
    if place in gone:
        return None
    return place - sum(d < place for d in gone) - after.rank
