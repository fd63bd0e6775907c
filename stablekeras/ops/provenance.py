"""What a tensor was made of: a note on it, which losses read.

A loss on probabilities wants the logits. A custom gradient hides them in a
graph, and in eager mode there is no graph to read.
"""

import contextlib

from stablekeras.ops.axes import rank_of

__all__ = ["MADE", "made_by", "maker", "remember_logits"]

# The attribute that holds the note.
MADE = "_stable_made_by"


def made_by(output, kind, logits, axis=None):
    """Note on `output` which function made it, and return it.

    Args:
        output: Tensor.
        kind: Name of the function, such as `"softmax"`.
        logits: Its input.
        axis: Axis of the function, negative; `None` for elementwise ones.
            Nothing is noted for a tuple of axes, nor if the rank is unknown.
    """
    if isinstance(axis, tuple | list):
        return output
    if axis is not None:
        rank = rank_of(logits)
        if rank is None:
            return output
        axis = axis % rank - rank
    # Not every backend's tensor takes attributes.
    with contextlib.suppress(AttributeError):
        setattr(output, MADE, (kind, logits, axis))
    return output


def maker(tensor):
    """Return `(kind, logits, axis)` of a noted tensor, or `None`."""
    return getattr(tensor, MADE, None)


def remember_logits(output, logits):
    """Note the logits of a probability where Keras' losses look for them."""
    with contextlib.suppress(AttributeError):
        output._keras_logits = logits
    return output
