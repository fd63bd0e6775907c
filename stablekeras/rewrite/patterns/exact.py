"""Small questions that several patterns ask."""

import math

__all__ = ["is_benign", "neg_of"]


def is_benign(reading, tensor):
    """Returns whether a positive tensor can neither vanish nor overflow."""
    low, high = reading.bounds(tensor)
    if low < 1e-3:
        return False
    return high < math.inf or reading.is_shifted_sum(tensor)


def neg_of(reading, tensor):
    """Returns `x` of a tensor that is `-x`, or `None`."""
    op = reading.source(tensor).op
    if op.type == "Neg":
        return op.inputs[0]
    if op.type == "Mul":
        for c, x in (op.inputs, op.inputs[::-1]):
            if reading.scalar(c) == -1.0:
                return x
    return None
