"""Finding the logits behind probabilities.

A saturated probability has lost what a loss needs; the logits have not. In a
TensorFlow graph the producers of the probabilities are read back through
casts and reshapes. Where there is no graph to read (eager mode, torch), the
logits that the activation attached are taken.
"""

import functools

import keras
from keras import ops as kops

from stablekeras.losses.inputs import carry_origin, keras_mask, set_keras_mask
from stablekeras.ops import log_sigmoid, log_softmax, sigmoid, softmax
from stablekeras.ops.gradient import custom_gradient
from stablekeras.ops.precision import finfo
from stablekeras.ops.provenance import maker

__all__ = [
    "Origin",
    "cast_chances",
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
            return _read_graph(probabilities)
    return _attached(probabilities)


def _attached(probabilities):
    """Returns what an activation noted on its output, or None."""
    kind, logits, axis = maker(probabilities) or (None, None, None)
    if kind in ("softmax", "sigmoid"):
        return Origin((kind,), logits, axis)
    attached = getattr(probabilities, "_keras_logits", None)
    return None if attached is None else _by_value(probabilities, attached)


def log_probabilities(origin):
    """Returns the logarithms of the probabilities of an `Origin`.

    Args:
        origin: `Origin` of one kind.
    """
    if origin.kinds[0] == "sigmoid":
        return log_sigmoid(origin.logits)
    return log_softmax(origin.logits, axis=origin.axis)


def cast_probabilities(x, dtype, two_sided=False):
    """Casts probabilities to the dtype to compute in.

    A float16 gradient cannot hold `1 / p` below 1.5e-5, and infinity would
    end the training. For such entries, where the logits are not to be found,
    the gradient is the largest float16 instead.

    Args:
        x: Tensor.
        dtype: Compute dtype.
        two_sided: Whether the loss divides by `1 - p` as well.
    """
    given = keras.backend.standardize_dtype(x.dtype)
    if given != "float16" or find_origin(x) is not None:
        out = carry_origin(x, kops.cast(x, dtype))
    else:
        out = _limited(dtype, two_sided)(x)
    if out is not x:
        set_keras_mask(out, keras_mask(x))
    return out


# For losses of one chance and its opposite.
cast_chances = functools.partial(cast_probabilities, two_sided=True)


def _limited(dtype, two_sided):
    largest = finfo("float16").max

    @custom_gradient
    def cast(x):
        def gradient(*args, upstream=None):
            seen, upstream = (
                (x, args[0]) if upstream is None else (args[0], upstream)
            )
            divisor = kops.cast(seen, upstream.dtype)
            if two_sided:
                divisor = kops.minimum(divisor, 1 - divisor)
            steep = divisor * largest < 1
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


def _read_graph(tensor, depth=_LIMIT):
    """Reads back what made a tensor of a TensorFlow graph."""
    from stablekeras.losses import moves
    from stablekeras.losses.operands import MOVELESS, number
    from stablekeras.losses.patterns import match

    if _eager(tensor):  # captured from outside the graph
        return _attached(tensor)
    known = getattr(tensor, "_stable_origin", None)
    if known is not None or not depth:
        return known
    found = match(tensor)
    if found is not None:
        kind, logits, axis = found
        return Origin((kind,), logits, axis)
    op = tensor.op
    if op.type in MOVELESS:
        return _read_graph(op.inputs[0], depth - 1)
    if op.type == "Cast":
        source = op.inputs[0]
        exact = source.dtype.is_floating and tensor.dtype.is_floating
        return _read_graph(source, depth - 1) if exact else None
    if op.type in ("Mul", "AddV2"):
        for a, b in (op.inputs, reversed(op.inputs)):
            if a.shape == tensor.shape and number(b) == (op.type == "Mul"):
                return _read_graph(a, depth - 1)
    if op.type == "Placeholder":
        for outer, inner in getattr(op.graph, "captures", ()):
            if inner is tensor:
                return _read_graph(outer, depth - 1)
    if not moves.is_move(op):
        return None
    parts = [_read_graph(x, depth - 1) for x in moves.moved_inputs(op)]
    first = parts[0]
    if any(
        part is None or (part.kinds, part.axis) != (first.kinds, first.axis)
        for part in parts
    ):
        return None
    found = moves.move(
        tensor, first.kinds[0], [part.logits for part in parts], first.axis
    )
    if found is None:
        return None
    kind, logits, axis = found
    return Origin((kind,), logits, axis)
