"""The last n values of a number, kept in variables of the optimizer."""

import math

from keras import ops

__all__ = ["History"]


class History:
    """A ring of values that is only read here, and written by a commit.

    Args:
        size: Int, how many values are kept.
        add_variable: See `ClippingRule.build`.
        name: String, the start of the names of the variables.
    """

    def __init__(self, size, add_variable, name):
        self.size = size
        self._values = add_variable((size,), name=name)
        self._count = add_variable((), "int32", name=f"{name}_count")

    @property
    def count(self):
        """How many values were written so far."""
        return self._count.value

    def with_value(self, value):
        """Returns the history as it is with one value more.

        A value of exactly 0 is no measurement and is not kept: a history of
        zeros would forbid every step, and with it its own renewal.

        Args:
            value: Scalar.

        Returns:
            `(values, count, memory)`: the vector of values, infinite where
            there is none yet; how many there are, at least 1; and the pairs
            of variable and new value that `ClippingRule.clip` returns.
        """
        places = ops.arange(self.size, dtype="int32")
        measured = ops.not_equal(value, 0.0)
        here = ops.equal(places, self._count.value % self.size)
        written = ops.where(
            ops.logical_and(here, measured), value, self._values.value
        )
        total = self._count.value + ops.cast(measured, "int32")
        count = ops.clip(total, 1, self.size)
        values = ops.where(places < count, written, math.inf)
        return values, count, [(self._values, written), (self._count, total)]

    def mean_and_deviation(self):
        """Returns mean and standard deviation of what is kept; 0 if empty."""
        dtype = self._values.dtype
        count = ops.minimum(self._count.value, self.size)
        kept = ops.arange(self.size, dtype="int32") < count
        weight = 1.0 / ops.cast(ops.maximum(count, 1), dtype)
        mean = ops.sum(ops.where(kept, self._values.value * weight, 0.0))
        # Divided by the largest deviation, or the squares could overflow.
        distance = ops.abs(ops.where(kept, self._values.value - mean, 0.0))
        largest = ops.maximum(ops.max(distance), 1e-30)
        square = ops.sum(ops.square(distance / largest)) * weight
        return mean, largest * ops.sqrt(square)
