"""Stable functions that only rewritten formulas need."""

import math

import tensorflow as tf

from stablekeras.rewrite.linear import Atom
from stablekeras.rewrite.native import logsumexp, softmax
from stablekeras.rewrite.terms import Term

__all__ = ["exp_where", "log_erfc", "log_erfc_of", "log_one_minus_softmax"]


def exp_where(weight, x):
    """Computes `exp(x)` to be multiplied by `weight`.

    A product of weight zero takes no part, however large it is; the weight
    itself still sees a derivative wherever that is finite.
    """
    overflows = tf.math.is_inf(tf.exp(x)) & (x > 0)
    left_out = tf.equal(weight, 0) & overflows
    return tf.exp(tf.where(left_out, tf.zeros([], x.dtype), x))


def log_erfc(x):
    """Computes `log(erfc(x))` without underflow.

    From 5 on (10 in float64) by the asymptotic series
    `erfc(x) = exp(-x**2) / (x sqrt(pi)) * (1 - 1/(2x**2) + 3/(2x**2)**2 - ...)`
    (Abramowitz and Stegun 7.1.23), where `erfc` itself has digits to lose.
    """
    start, count = (10.0, 16) if x.dtype == tf.float64 else (5.0, 10)
    far = x > start
    near = tf.math.log(tf.math.erfc(tf.where(far, tf.zeros_like(x), x)))
    y = tf.where(far, x, tf.fill(tf.shape(x), tf.cast(start, x.dtype)))
    z = 1.0 / (2.0 * y * y)
    series = tf.zeros_like(y)
    for n in range(count, 0, -1):
        series = -z * (2 * n - 1) * (1.0 + series)
    tail = -y * y - tf.math.log(y * math.sqrt(math.pi)) + tf.math.log1p(series)
    return tf.where(far, tail, near)


def log_erfc_of(arg):
    """Returns `log(erfc(arg))` as a `Linear`."""
    return Atom(
        "log_erfc",
        arg.key,
        lambda: Term(log_erfc, (arg.term(),), "log_erfc({0})"),
        arg,
    ).linear()


def log_one_minus_softmax(z, axis):
    """Computes `log(1 - softmax(z))`, also where the softmax rounds to 1.

    All but the largest entry are at most 1/2 and leave digits enough. For
    the largest it is the sum of the others, in the log domain.
    """
    top = tf.stop_gradient(tf.reduce_max(z, axis, keepdims=True))
    z -= tf.where(tf.math.is_finite(top), top, tf.zeros_like(top))
    size = z.shape[axis] or tf.shape(z)[axis]
    winner = tf.argmax(z, axis=axis)
    wins = tf.one_hot(winner, size, axis=axis, on_value=True, off_value=False)
    p = softmax(z, axis)
    low = tf.math.log1p(-tf.where(wins, tf.zeros_like(p), p))
    others = tf.where(wins, tf.constant(-math.inf, z.dtype), z)
    rest = logsumexp(others, axis, keepdims=True) - logsumexp(
        z, axis, keepdims=True
    )
    return tf.where(wins, rest, low)
