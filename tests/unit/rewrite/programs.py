"""Random programs of matched and unmatched code, with their mpmath twins."""

import dataclasses
import random
from collections.abc import Callable

import mpmath as mp
import tensorflow as tf

__all__ = ["SIZE", "Program", "program"]

SIZE = 4


@dataclasses.dataclass(frozen=True)
class Program:
    """A vector function of a vector.

    Args:
        text: How it reads.
        fn: The function, of a tensor.
        twin: The function, of a list of mpmath numbers.
        positive: Whether its result is known to be above zero.
        height: How many exponentials stand above each other.
    """

    text: str
    fn: Callable
    twin: Callable
    positive: bool = False
    height: int = 0


def _exp(x):
    # Beyond, mpmath would count digits for hours.
    if abs(x) > 1e6:
        return mp.inf if x > 0 else mp.mpf(0)
    return mp.exp(x)


def _sin(x):
    return mp.sin(x) if abs(x) < 1e6 else mp.nan


def _tanh(x):
    return mp.tanh(x) if abs(x) < 1e6 else mp.sign(x)


def _log_sech2(x):
    # 4 / (exp(x) + exp(-x))**2
    a = abs(x)
    return 2 * (mp.log(2) - a - mp.log(1 + _exp(-2 * a)))


def _each(f):
    return lambda xs: [f(x) for x in xs]


def _softmax(xs):
    total = mp.fsum(map(_exp, xs))
    return [_exp(x) / total for x in xs]


def _fill(f):
    return lambda xs: [f(xs)] * len(xs)


def _sigmoid(x):
    return 1 / (1 + _exp(-x))


def _hand_softmax(z):
    return tf.exp(z) / tf.reduce_sum(tf.exp(z), -1, keepdims=True)


def _shifted_softmax(z):
    e = tf.exp(z - tf.reduce_max(z, -1, keepdims=True))
    return e / tf.reduce_sum(e, -1, keepdims=True)


def _spread(f):
    return lambda z: f(z) + tf.zeros_like(z)


# name, function, twin, needs a positive argument, gives one, exponentials
_UNARY = [
    ("sigmoid", tf.sigmoid, _each(_sigmoid), False, True, 1),
    (
        "hand_sigmoid",
        lambda z: 1 / (1 + tf.exp(-z)),
        _each(_sigmoid),
        False,
        True,
        1,
    ),
    ("softmax", tf.nn.softmax, _softmax, False, True, 1),
    ("hand_softmax", _hand_softmax, _softmax, False, True, 1),
    ("shifted_softmax", _shifted_softmax, _softmax, False, True, 1),
    ("exp", tf.exp, _each(_exp), False, True, 1),
    (
        "softplus",
        tf.nn.softplus,
        _each(lambda x: mp.log(1 + _exp(x))),
        False,
        True,
        0,
    ),
    (
        "log1p_exp",
        lambda z: tf.math.log(1 + tf.exp(z)),
        _each(lambda x: mp.log(1 + _exp(x))),
        False,
        True,
        0,
    ),
    (
        "lse",
        _spread(
            lambda z: tf.math.log(tf.reduce_sum(tf.exp(z), -1, keepdims=True))
        ),
        _fill(lambda xs: mp.log(mp.fsum(map(_exp, xs)))),
        False,
        False,
        0,
    ),
    ("log", tf.math.log, _each(mp.log), True, False, 0),
    ("log_again", tf.math.log, _each(mp.log), True, False, 0),
    ("sqrt", tf.sqrt, _each(mp.sqrt), True, True, 0),
    ("reciprocal", lambda z: 1 / z, _each(lambda x: 1 / x), True, True, 0),
    (
        "square1",
        lambda z: tf.square(z) + 1,
        _each(lambda x: x * x + 1),
        False,
        True,
        0,
    ),
    ("tanh", tf.tanh, _each(_tanh), False, False, 0),
    (
        "log_sech2",
        lambda z: tf.math.log(1 - tf.tanh(z) ** 2),
        _each(_log_sech2),
        False,
        False,
        0,
    ),
    ("neg", tf.negative, _each(lambda x: -x), False, False, 0),
    ("half", lambda z: 0.5 * z, _each(lambda x: x / 2), False, False, 0),
    ("shift", lambda z: z + 2.0, _each(lambda x: x + 2), False, False, 0),
    (
        "reverse",
        lambda z: tf.reverse(z, [0]),
        lambda xs: xs[::-1],
        False,
        False,
        0,
    ),
    (
        "reshape",
        lambda z: tf.reshape(tf.reshape(z, [2, 2]), [SIZE]),
        lambda xs: xs,
        False,
        False,
        0,
    ),
    ("sin", tf.sin, _each(_sin), False, False, 0),
    (
        "relu1",
        lambda z: tf.nn.relu(z) + 1,
        _each(lambda x: max(x, 0) + 1),
        False,
        True,
        0,
    ),
    (
        "where",
        lambda z: tf.where(z > 0, z, 0.5 * z),
        _each(lambda x: x if x > 0 else x / 2),
        False,
        False,
        0,
    ),
]


def _one_minus_sigmoid(z):
    return 1 - tf.sigmoid(z)


_UNARY += [
    (
        "one_minus_sigmoid",
        _one_minus_sigmoid,
        _each(lambda x: _sigmoid(-x)),
        False,
        True,
        1,
    ),
    (
        "log_one_minus",
        lambda z: tf.math.log(1 - tf.sigmoid(z)),
        _each(lambda x: mp.log(_sigmoid(-x))),
        False,
        False,
        0,
    ),
]
_BINARY = [
    ("add", tf.add, lambda a, b: a + b),
    ("sub", tf.subtract, lambda a, b: a - b),
    ("mul", tf.multiply, lambda a, b: a * b),
    ("div", tf.divide, lambda a, b: a / b),
]


def program(seed):
    """Returns the random program of a seed."""
    return _grow(random.Random(seed), 5)


def _grow(rng, depth):
    if depth == 0 or (depth < 4 and rng.random() < 0.1):
        return Program("x", lambda x: x, lambda xs: xs)
    if rng.random() < 0.3:
        return _binary(rng, depth)
    inner = _grow(rng, depth - 1)
    fits = [
        u
        for u in _UNARY
        if (inner.positive or not u[3]) and (inner.height < 2 or not u[5])
    ]
    name, fn, twin, _, gives, height = rng.choice(fits)
    keeps = name in ("half", "shift", "reverse", "reshape", "where")
    return Program(
        f"{name}({inner.text})",
        lambda x: fn(inner.fn(x)),
        lambda xs: twin(inner.twin(xs)),
        gives or (keeps and inner.positive),
        0 if name.startswith("log") else inner.height + height,
    )


def _binary(rng, depth):
    a, b = _grow(rng, depth - 1), _grow(rng, depth - 2 if depth > 1 else 0)
    name, fn, twin = rng.choice(_BINARY)
    if name == "div" and not b.positive:
        name, fn, twin = _BINARY[0]
    return Program(
        f"{name}({a.text}, {b.text})",
        lambda x: fn(a.fn(x), b.fn(x)),
        lambda xs: [
            twin(p, q) for p, q in zip(a.twin(xs), b.twin(xs), strict=True)
        ],
        a.positive and b.positive and name != "sub",
        max(a.height, b.height),
    )
