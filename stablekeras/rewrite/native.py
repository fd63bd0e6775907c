"""The functions that stand in rewritten formulas.

They are made of plain TensorFlow ops whose derivatives of every order are
accurate by themselves, so that they can be derived wherever the user's own
formula could: twice, through a traced function, compiled.
"""

import math

import tensorflow as tf

__all__ = [
    "cross_entropy",
    "log1mexp",
    "log_cosh",
    "log_sigmoid",
    "log_softmax",
    "log_softplus",
    "logaddexp",
    "logsumexp",
    "sigmoid",
    "softmax",
    "tanh",
]

_LN2 = math.log(2.0)


def _minus_abs(x):
    # Not -abs(x), whose derivative at 0 is 0.
    return tf.where(x < 0, x, -x)


def sigmoid(x):
    """Computes `1 / (1 + exp(-x))`; so does its derivative where x is large."""
    e = tf.exp(_minus_abs(x))
    return tf.where(x < 0, e, tf.ones_like(e)) / (1 + e)


def tanh(x):
    """Computes `tanh(x)`; so does its derivative where x is large."""
    a = _minus_abs(x) * 2.0
    value = tf.math.expm1(a) / (1.0 + tf.exp(a))
    return tf.where(x < 0, value, -value)


def log_sigmoid(x):
    """Computes `log(sigmoid(x))`."""
    return -tf.nn.softplus(-x)


def cross_entropy(y, x):
    """Computes `y * log_sigmoid(x) + (1 - y) * log_sigmoid(-x)`.

    By one softplus, of the side that is less likely by the label: what is
    taken from it never comes near it.
    """
    side = 1.0 - 2.0 * tf.cast(y > 0.5, x.dtype)
    x = x * side
    return tf.minimum(y, 1.0 - y) * x - tf.nn.softplus(x)


def log_softplus(x):
    """Computes `log(log(1 + exp(x)))`, which tends to `x`.

    Below -15 by the series of `log(log1p(e) / e)` in `e = exp(x)`.
    """
    far = x < -15.0
    near = tf.math.log(tf.nn.softplus(tf.where(far, tf.zeros_like(x), x)))
    low = tf.where(far, x, tf.fill(tf.shape(x), tf.constant(-15.0, x.dtype)))
    e = tf.exp(low)
    return tf.where(far, low - e / 2.0 + e * e * (5.0 / 24.0), near)


def log_cosh(x):
    """Computes `log(cosh(x))`, of a small `x` by `cosh(x) - 1`."""
    near = tf.abs(x) < 1.0
    small = tf.where(near, x, tf.zeros_like(x))
    rest = tf.square(tf.math.expm1(small)) * tf.exp(-small) / 2.0
    m = _minus_abs(tf.where(near, tf.ones_like(x), x))
    far = tf.nn.softplus(2.0 * m) - m - _LN2
    return tf.where(near, tf.math.log1p(rest), far)


def logaddexp(a, b):
    """Computes `log(exp(a) + exp(b))`."""
    swap = a > b
    high, low = tf.where(swap, a, b), tf.where(swap, b, a)
    same = tf.equal(a, b) & tf.math.is_inf(a)
    gap = tf.where(same, tf.zeros_like(high), low - high)
    return high + tf.nn.softplus(gap)


def log1mexp(x):
    """Computes `log(1 - exp(-x))`; NaN for negative `x`, as the formula is."""
    near = x < _LN2
    ln2 = tf.constant(_LN2, x.dtype)
    far = tf.math.log1p(-tf.exp(-tf.where(near, ln2, x)))
    close = tf.math.log(-tf.math.expm1(-tf.where(near, x, ln2)))
    return tf.where(near, close, far)


def _peak(x, axis):
    peak = tf.stop_gradient(tf.reduce_max(x, axis, keepdims=True))
    return tf.where(tf.math.is_finite(peak), peak, tf.zeros_like(peak))


def logsumexp(x, axis, keepdims=False):
    """Computes `log(sum(exp(x)))`; -Inf, with derivative 0, of nothing."""
    peak = _peak(x, axis)
    total = tf.reduce_sum(tf.exp(x - peak), axis, keepdims=True)
    empty = tf.equal(total, 0)
    log = tf.math.log(tf.where(empty, tf.ones_like(total), total)) + peak
    log = tf.where(empty, tf.constant(-math.inf, x.dtype), log)
    return log if keepdims else tf.squeeze(log, axis)


def _rows(x, axis):
    """Puts zeros in the place of rows that are all -Inf."""
    empty = tf.reduce_all(tf.equal(x, -math.inf), axis, keepdims=True)
    return tf.where(empty, tf.zeros_like(x), x), empty


def log_softmax(x, axis=-1, masked=False):
    """Computes `x - logsumexp(x)`; with `masked`, 0 in rows of -Inf."""
    if not masked:
        return tf.nn.log_softmax(x, axis)
    x, empty = _rows(x, axis)
    return tf.where(empty, tf.zeros_like(x), tf.nn.log_softmax(x, axis))


def softmax(x, axis=-1, masked=False):
    """Computes `exp(x) / sum(exp(x))`; with `masked`, 0 in rows of -Inf."""
    if not masked:
        return tf.nn.softmax(x, axis)
    x, empty = _rows(x, axis)
    return tf.where(empty, tf.zeros_like(x), tf.nn.softmax(x, axis))
