"""Differences of exponentials: of known sign in a log, of any sign outside.

`exp(a) - exp(b)` is `exp(base) * (1 - exp(-gap))` with `gap = a - b`. Of a
difference of sigmoids the gap is taken between their arguments, where it has
not been rounded away.
"""

import math

import tensorflow as tf

from stablekeras.rewrite.factor import Factor
from stablekeras.rewrite.linear import (
    Atom,
    Linear,
    log_one_minus_exp,
    log_sigmoid,
)
from stablekeras.rewrite.terms import Term

__all__ = ["Difference", "difference", "log_of"]


class Difference(Term):
    """`1 - exp(-gap)`, divided by `exp(-gap)` where the gap is negative.

    Args:
        gap: A `Linear`.
    """

    def __init__(self, gap):
        super().__init__(_difference, (gap.term(),), "(1 - exp(-({0})))")
        self.gap = gap
        self.excess = Atom(
            "excess",
            gap.key,
            lambda: Term(_excess, (gap.term(),), "relu(-({0}))"),
        ).linear()


def _difference(gap):
    positive = gap >= 0
    value = tf.math.expm1(tf.where(positive, -gap, gap))
    return tf.where(positive, -value, value)


def _excess(gap):
    return tf.where(gap >= 0, tf.zeros_like(gap), -gap)


def difference(large, small, guarded=False, positive=False):
    """Returns the factor of `exp(large) - exp(small)`, or `None`.

    Args:
        large: A `Linear`.
        small: A `Linear`.
        guarded: Whether a guard was left out on the way.
        positive: Whether the difference is known not to be negative.
    """
    base, gap = large, large.plus(small, -1.0)
    a, b = large.only("log_sigmoid"), small.only("log_sigmoid")
    if a is not None and b is not None:
        # s(a) - s(b) = s(a) * s(-b) * (1 - exp(b - a))
        gap = a.arg.plus(b.arg, -1.0)
        base = large.plus(log_sigmoid(b.arg.times(-1.0)))
    if not gap:
        if gap.const <= 0:
            return None
        rest = math.log(-math.expm1(-gap.const))
        return Factor(None, base.plus(Linear(const=rest)), guarded)
    if positive:
        return Factor(None, base.plus(log_one_minus_exp(gap)), guarded)
    weight = Difference(gap)
    return Factor(weight, base.plus(weight.excess), guarded)


def log_of(factor):
    """Returns `(weight, log)` whose `log(weight) + log` is a factor's log.

    The weight is `None` where it is 1. The log of a negative difference is
    NaN, as it is when written out.
    """
    weight = factor.weight
    if not isinstance(weight, Difference):
        return weight, factor.log
    log = factor.log.plus(weight.excess, -1.0)
    return None, log.plus(log_one_minus_exp(weight.gap))
