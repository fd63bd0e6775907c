"""A tensor as `weight * exp(log)`, and how two of them multiply."""

import dataclasses

import tensorflow as tf

from stablekeras.rewrite.linear import Linear
from stablekeras.rewrite.terms import Term, raw

__all__ = ["Factor", "product", "quotient", "spread"]


@dataclasses.dataclass(frozen=True)
class Factor:
    """A tensor as `weight * exp(log)`.

    Args:
        weight: A `Term`, or `None` for 1.
        log: A `Linear`.
        guarded: Whether a guard was left out on the way.
    """

    weight: Term | None
    log: Linear
    guarded: bool = False

    @property
    def bare(self):
        """Whether it is a pure exponential."""
        return self.weight is None

    def with_weight(self, weight):
        """Returns it with another weight."""
        return dataclasses.replace(self, weight=weight)


def product(a, b):
    """Returns the product of two weights."""
    if a is None or b is None:
        return a if b is None else b
    return Term(tf.multiply, (a, b), "({0}) * ({1})")


def quotient(a, b):
    """Returns the quotient of two weights."""
    if b is None:
        return a
    if a is None:
        return Term(tf.math.reciprocal, (b,), "1 / ({0})")
    if getattr(b, "is_total", False):
        # A weighted mean whose weights are all zero is zero.
        return Term(_divide_or_zero, (a, b), "({0}) / ({1})")
    return Term(tf.divide, (a, b), "({0}) / ({1})")


def _divide_or_zero(a, b):
    empty = tf.equal(a, 0) & tf.equal(b, 0)
    safe = tf.where(empty, tf.ones([], b.dtype), b)
    return tf.where(empty, tf.zeros([], a.dtype), a / safe)


def spread(term, source):
    """Returns a term that has the full shape of the tensor it stands for."""
    if source.shape.is_fully_defined():
        shape = tuple(source.shape)

        def spread(x):
            if tuple(x.shape) == shape:
                return x
            return tf.broadcast_to(x, shape)

        return Term(spread, (term,), "{0}")

    def spread_like(x, like):
        ranks = x.shape.rank == like.shape.rank and x.shape.rank is not None
        if ranks and (1 not in tuple(x.shape) or x.shape == like.shape):
            return x
        return tf.broadcast_to(x, tf.shape(like))

    return Term(spread_like, (term, raw(source, is_shape=True)), "{0}")
