"""Real tensors as sums of atoms: what stands in an exponential."""

import math
from collections.abc import Callable
from typing import Any

from stablekeras.rewrite.linear import Linear, log_add, log_sigmoid, plain
from stablekeras.rewrite.totals import log_total

__all__ = ["ExponentsMixin"]


class ExponentsMixin:
    """Opens sums where stable functions in them may cancel or fold.

    The class it is mixed into has `of` and `reading`.
    """

    of: Callable
    reading: Any

    def linear(self, tensor, depth=0):
        """Returns a real tensor as a `Linear`, opened where that helps."""
        source = self.reading.source(tensor)
        opened = self._opened(source, depth) if depth < 12 else None
        if opened is None:
            return plain(self.reading.canonical(source))
        return opened

    def _opened(self, tensor, depth):
        number = self.reading.scalar(tensor)
        if number is not None:
            return Linear(const=number) if math.isfinite(number) else None
        op = tensor.op
        if op.type == "Neg":
            return self.linear(op.inputs[0], depth + 1).times(-1.0)
        if op.type in ("Mul", "RealDiv"):
            c = self.reading.scalar(op.inputs[1])
            if c is not None and math.isfinite(c) and c:
                c = c if op.type == "Mul" else 1.0 / c
                return self.linear(op.inputs[0], depth + 1).times(c)
            c = self.reading.scalar(op.inputs[0])
            if op.type == "Mul" and c is not None and math.isfinite(c) and c:
                return self.linear(op.inputs[1], depth + 1).times(c)
            return None
        if op.type in ("Add", "AddV2", "Sub"):
            sign = -1.0 if op.type == "Sub" else 1.0
            a = self.linear(op.inputs[0], depth + 1)
            b = self.linear(op.inputs[1], depth + 1)
            if self.reading.shift(tensor) is not None or _worth(a, b):
                return a.plus(b, sign)
            return None
        if op.type == "Log":
            inner = self.of(op.inputs[0])
            return inner.log if inner.bare and inner.log else None
        if op.type == "Log1p":
            return self._log1p(op.inputs[0])
        if op.type == "Softplus":
            z = self.linear(op.inputs[0], depth + 1)
            return log_sigmoid(z.times(-1.0)).times(-1.0)
        if op.type == "LogSoftmax" and tensor.shape.rank is not None:
            z = self.linear(op.inputs[0], depth + 1)
            return z.plus(log_total(self, z, op.inputs[0]), -1.0)
        return None

    def _log1p(self, tensor):
        inner = self.of(tensor)
        if not inner.bare or not inner.log:
            return None
        return log_add([Linear(), inner.log])

    def constant_along(self, axes):
        """Returns a function of an atom: whether it has size 1 there."""

        def constant(atom):
            if atom.kind != "tensor":
                return False
            shape = atom.term().tensor.shape
            return shape.rank is not None and all(
                0 <= a < shape.rank and shape[a] == 1 for a in axes
            )

        return constant


def _worth(a, b):
    """Whether a sum holds stable functions that may cancel or fold."""
    kinds = [atom.kind for atom, _ in (*a.parts.values(), *b.parts.values())]
    return any(kind != "tensor" for kind in kinds)
