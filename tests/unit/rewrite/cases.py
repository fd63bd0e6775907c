"""Formulas as people write them, with their mpmath twins.

Each case: name, code, TensorFlow formula, the same formula of a list of
mpmath numbers, well-conditioned inputs, extremes.
"""

import dataclasses
from collections.abc import Callable

import mpmath as mp
import tensorflow as tf

__all__ = ["CASES", "Case"]

log, exp = tf.math.log, tf.exp


@dataclasses.dataclass(frozen=True)
class Case:
    """One formula.

    Args:
        name: Its name.
        code: Code of the hazard.
        fn: The formula, of a vector.
        twin: The formula, of a list of mpmath numbers; returns a list.
        normal: Inputs at which the original is accurate in float64.
        extremes: Inputs at which it fails in float32.
        joint: Whether entries depend on each other (softmax): then errors
            are counted on max(|exact|, 1).
    """

    name: str
    code: str
    fn: Callable
    twin: Callable
    normal: tuple = (-2.0, -0.7, 0.3, 1.1, 2.4)
    extremes: tuple = ((-2000.0, -120.0, 0.0, 120.0, 2000.0),)
    joint: bool = False


def each(f):
    return lambda xs: [f(x) for x in xs]


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def softmax(xs):
    total = mp.fsum(mp.exp(x) for x in xs)
    return [mp.exp(x) / total for x in xs]


def hand_sigmoid(z):
    return 1 / (1 + exp(-z))


def hand_softmax(z):
    e = exp(z)
    return e / tf.reduce_sum(e, -1, keepdims=True)


def shifted_softmax(z):
    e = exp(z - tf.reduce_max(z, -1, keepdims=True))
    return e / tf.reduce_sum(e, -1, keepdims=True)


LABELS = (1.0, 0.0, 1.0, 0.0, 1.0)
SOFT = (1.0, 0.0, 0.875, 0.0, 1.0)
# Columns without some of the classes: zeros where the greatest entry is.
MIXING = (
    (0.75, 0.25, 0.0, 0.0, 0.0),
    (0.0, 0.5, 0.5, 0.0, 0.0),
    (0.0, 0.0, 1.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 0.5, 0.5),
    (0.25, 0.0, 0.0, 0.0, 0.75),
)
CLASS = (0.0, 0.0, 1.0, 0.0, 0.0)
WEIGHTS = (0.1, 0.3, 0.2, 0.15, 0.25)
SPREAD = ((0.0, 150.0, 3.0, -200.0, 7.0), (1000.0, -1000.0, 0.0, 1.0, 999.0))
MILD = ((-150.0, -30.0, 0.0, 60.0, 150.0),)


def const(values, like):
    return tf.constant(values, like.dtype)


def focal_chance(z):
    y, p = const(LABELS, z), tf.sigmoid(z)
    return log(y * p + (1 - y) * (1 - p))


def chosen_chance(z):
    y, p = const(LABELS, z), tf.sigmoid(z)
    return log(tf.where(y > 0.5, p, 1 - p))


def picked(sign):
    return lambda xs: [
        mp.log(sigmoid(x if y else sign * x))
        for x, y in zip(xs, LABELS, strict=True)
    ]


def through(*moves):
    def fn(z):
        p = tf.nn.softmax(z)
        for move in moves:
            p = move(p)
        return log(p)

    return fn


def log_each(ps):
    return [mp.log(p) for p in ps]


def chosen_rest(z):
    y, p = const(LABELS, z), tf.sigmoid(z)
    return log(1 - tf.where(y > 0.5, tf.zeros_like(p), p))


def cross_entropy(z):
    y, p = const(SOFT, z), 1 / (1 + exp(-z))
    return y * log(p) + (1 - y) * log(1 - p)


def softmaxes(z):
    """Two rows, the second the negative of the first."""
    return tf.nn.softmax(tf.stack([z, -z]))


def mixed(xs):
    """What the transition matrix makes of two softmaxes."""
    return [
        mp.log(mp.fsum(p * mp.mpf(t) for p, t in zip(ps, row, strict=True)))
        for ps in (softmax(xs), softmax([-x for x in xs]))
        for row in zip(*MIXING, strict=True)
    ]


CASES = (
    Case(
        "log of sigmoid",
        "SK102",
        lambda z: log(tf.sigmoid(z)),
        each(lambda x: mp.log(sigmoid(x))),
    ),
    Case(
        "log of hand sigmoid",
        "SK102",
        lambda z: log(hand_sigmoid(z)),
        each(lambda x: mp.log(sigmoid(x))),
    ),
    Case(
        "log of exp/(1+exp)",
        "SK102",
        lambda z: log(exp(z) / (1 + exp(z))),
        each(lambda x: mp.log(sigmoid(x))),
    ),
    Case(
        "log of tanh sigmoid",
        "SK102",
        lambda z: log((1 + tf.tanh(z / 2)) / 2),
        each(lambda x: mp.log(sigmoid(x))),
    ),
    Case(
        "log of 1 - sigmoid",
        "SK102",
        lambda z: log(1 - tf.sigmoid(z)),
        each(lambda x: mp.log(sigmoid(-x))),
    ),
    Case(
        "log1p of -sigmoid",
        "SK102",
        lambda z: tf.math.log1p(-tf.sigmoid(z)),
        each(lambda x: mp.log(sigmoid(-x))),
    ),
    Case(
        "log of 1 - hand sigmoid",
        "SK102",
        lambda z: log(1.0 - hand_sigmoid(z)),
        each(lambda x: mp.log(sigmoid(-x))),
    ),
    Case(
        "log of relu of abs",
        "SK102",
        lambda z: log(tf.nn.relu(tf.abs(tf.sigmoid(z)))),
        each(lambda x: mp.log(sigmoid(x))),
    ),
    Case(
        "absorbed epsilon",
        "SK102",
        lambda z: log(1e-20 + 1 - tf.sigmoid(z)),
        each(lambda x: mp.log(sigmoid(-x))),
    ),
    Case(
        "clip before the log",
        "SK102",
        lambda z: log(tf.clip_by_value(tf.sigmoid(z), 1e-7, 1 - 1e-7)),
        each(lambda x: mp.log(sigmoid(x))),
    ),
    Case(
        "clip before 1 - p",
        "SK102",
        lambda z: log(1 - tf.clip_by_value(tf.sigmoid(z), 1e-7, 1 - 1e-7)),
        each(lambda x: mp.log(sigmoid(-x))),
    ),
    Case(
        "chance of the label",
        "SK106",
        focal_chance,
        picked(-1),
        normal=(0.5, -0.7, 0.3, 1.1, 2.4),
    ),
    Case("chosen chance", "SK102", chosen_chance, picked(-1)),
    Case(
        "log of softmax",
        "SK101",
        lambda z: log(tf.nn.softmax(z)),
        lambda xs: log_each(softmax(xs)),
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "log of hand softmax",
        "SK101",
        lambda z: log(hand_softmax(z)),
        lambda xs: log_each(softmax(xs)),
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "log of shifted softmax",
        "SK101",
        lambda z: log(shifted_softmax(z)),
        lambda xs: log_each(softmax(xs)),
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "softmax times labels",
        "SK106",
        lambda z: log(tf.reduce_sum(tf.nn.softmax(z) * const(CLASS, z))),
        lambda xs: [mp.log(softmax(xs)[2])],
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "reshaped softmax",
        "SK101",
        through(lambda p: tf.reshape(p, [1, 5]), tf.transpose, tf.squeeze),
        lambda xs: log_each(softmax(xs)),
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "gathered softmax",
        "SK101",
        through(
            lambda p: tf.gather(p, [2, 3]),
            tf.identity,
            lambda p: tf.expand_dims(p, 0),
        ),
        lambda xs: log_each(softmax(xs)[2:4]),
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "sliced softmax",
        "SK101",
        through(lambda p: p[1:4]),
        lambda xs: log_each(softmax(xs)[1:4]),
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "log of 1 - softmax",
        "SK103",
        lambda z: log(1 - tf.nn.softmax(z)),
        lambda xs: [mp.log(1 - p) for p in softmax(xs)],
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "log of sum of exp",
        "SK304",
        lambda z: log(tf.reduce_sum(exp(z), -1)),
        lambda xs: [mp.log(mp.fsum(mp.exp(x) for x in xs))],
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "log of mean of exp",
        "SK304",
        lambda z: log(tf.reduce_mean(exp(z))),
        lambda xs: [mp.log(mp.fsum(mp.exp(x) for x in xs) / len(xs))],
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "mixture",
        "SK106",
        lambda z: log(tf.reduce_sum(const(WEIGHTS, z) * exp(-z * z / 2))),
        lambda xs: [
            mp.log(
                mp.fsum(
                    mp.mpf(float(w)) * mp.exp(-x * x / 2)
                    for w, x in zip(WEIGHTS, xs, strict=True)
                )
            )
        ],
        extremes=((30.0, -40.0, 50.0, 35.0, -60.0),),
        joint=True,
    ),
    Case(
        "chain of log sums",
        "SK304",
        lambda z: log(
            exp(log(tf.reduce_sum(exp(z))) + z)
            + exp(log(tf.reduce_sum(exp(-z))) - z)
        ),
        lambda xs: [
            mp.log(
                mp.fsum(map(mp.exp, xs)) * mp.exp(x)
                + mp.fsum(mp.exp(-t) for t in xs) * mp.exp(-x)
            )
            for x in xs
        ],
        extremes=((0.0, 150.0, 3.0, -200.0, 7.0),),
        joint=True,
    ),
    Case(
        "softplus",
        "SK302",
        lambda z: log(1 + exp(z)),
        each(lambda x: mp.log(1 + mp.exp(x))),
    ),
    Case(
        "log1p of exp",
        "SK302",
        lambda z: tf.math.log1p(exp(z)),
        each(lambda x: mp.log(1 + mp.exp(x))),
    ),
    Case(
        "log of exp + exp",
        "SK304",
        lambda z: log(exp(z) + exp(-z)),
        each(lambda x: mp.log(mp.exp(x) + mp.exp(-x))),
    ),
    Case(
        "log of exp - exp",
        "SK103",
        lambda z: log(exp(z) - exp(z - 1)),
        each(lambda x: mp.log(mp.exp(x) - mp.exp(x - 1))),
    ),
    Case(
        "log of 1 - exp",
        "SK103",
        lambda z: log(1 - exp(-z)),
        each(lambda x: mp.log(1 - mp.exp(-x))),
        normal=(0.1, 0.5, 0.7, 1.0, 3.0),
        extremes=((1e-30, 1e-6, 1e-3, 20.0, 80.0),),
    ),
    Case(
        "log1p of -exp",
        "SK103",
        lambda z: tf.math.log1p(-exp(-z)),
        each(lambda x: mp.log(1 - mp.exp(-x))),
        normal=(0.1, 0.5, 0.7, 1.0, 3.0),
        extremes=((1e-30, 1e-6, 1e-3, 20.0, 80.0),),
    ),
    Case(
        "tanh log determinant",
        "SK102",
        lambda z: log(1 - tf.tanh(z) ** 2),
        each(lambda x: mp.log(1 - mp.tanh(x) ** 2)),
        extremes=((-300.0, -20.0, 0.5, 15.0, 250.0),),
    ),
    Case(
        "logit of sigmoid",
        "SK106",
        lambda z: log(tf.sigmoid(z) / (1 - tf.sigmoid(z))),
        each(lambda x: x),
    ),
    Case(
        "log of erfc",
        "SK103",
        lambda z: log(1 - tf.math.erf(z)),
        each(lambda x: mp.log(mp.erfc(x))),
        normal=(-1.0, -0.4, 0.1, 0.5, 0.9),
        extremes=((-3.0, 4.0, 5.5, 12.0, 100.0),),
    ),
    Case(
        "log of normal cdf",
        "SK103",
        lambda z: log(0.5 * (1 + tf.math.erf(z / 2**0.5))),
        each(lambda x: mp.log(mp.erfc(-x / mp.sqrt(2)) / 2)),
        normal=(-1.0, -0.4, 0.1, 0.5, 0.9),
        extremes=((3.0, -4.0, -8.0, -20.0, -100.0),),
    ),
    Case(
        "log1p",
        "SK103",
        lambda z: log(1 + z),
        each(mp.log1p),
        normal=(-0.3, 0.2, 0.3, 1.0, 3.0),
        extremes=((1e-20, -1e-9, 1e-6, 1e-3, 1e9),),
    ),
    Case(
        "expm1",
        "SK103",
        lambda z: exp(z) - 1,
        each(mp.expm1),
        extremes=((1e-20, -1e-9, 1e-6, -100.0, 80.0),),
    ),
    Case(
        "1 - sigmoid",
        "SK103",
        lambda z: 1 - tf.sigmoid(z),
        each(lambda x: sigmoid(-x)),
        extremes=((-80.0, -20.0, 0.0, 20.0, 80.0),),
    ),
    Case(
        "1 - erf",
        "SK103",
        lambda z: 1 - tf.math.erf(z),
        each(mp.erfc),
        normal=(-1.0, -0.4, 0.1, 0.5, 0.9),
        extremes=((-5.0, 0.0, 3.0, 6.0, 8.0),),
    ),
    Case(
        "hand sigmoid",
        "SK305",
        hand_sigmoid,
        each(sigmoid),
        extremes=((-86.0, -30.0, 0.0, 60.0, 80.0),),
    ),
    Case(
        "exp/(1+exp)",
        "SK305",
        lambda z: exp(z) / (1 + exp(z)),
        each(sigmoid),
        extremes=((-86.0, -30.0, 0.0, 60.0, 86.0),),
    ),
    Case(
        "hand softmax",
        "SK303",
        hand_softmax,
        softmax,
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "odds",
        "SK306",
        lambda z: tf.sigmoid(z) / (1 - tf.sigmoid(z)),
        each(mp.exp),
        extremes=((-86.0, -30.0, 0.0, 60.0, 86.0),),
    ),
    Case(
        "inverse of sigmoid",
        "SK306",
        lambda z: 1 / tf.sigmoid(z),
        each(lambda x: 1 / sigmoid(x)),
        extremes=((-86.0, -30.0, 0.0, 60.0, 86.0),),
    ),
    Case(
        "ratio of exponentials",
        "SK306",
        lambda z: exp(z * z) / exp(z * z - z),
        each(mp.exp),
        extremes=((-60.0, -20.0, 15.0, 60.0, 80.0),),
    ),
    Case(
        "ratio of softmaxes",
        "SK306",
        lambda z: tf.nn.softmax(z)[0] / tf.nn.softmax(z)[1],
        lambda xs: [mp.exp(xs[0] - xs[1])],
        extremes=((-200.0, -205.0, 100.0, 150.0, 0.0),),
        joint=True,
    ),
    Case(
        "exp times sigmoid",
        "SK305",
        lambda z: exp(z) * tf.sigmoid(-z),
        each(sigmoid),
        extremes=((-86.0, -30.0, 0.0, 86.0, 80.0),),
    ),
    Case(
        "root of exp",
        "SK308",
        lambda z: tf.sqrt(exp(z)),
        each(lambda x: mp.exp(x / 2)),
        extremes=((-170.0, -110.0, 0.0, 110.0, 170.0),),
    ),
    Case(
        "root of softmax",
        "SK308",
        lambda z: tf.sqrt(tf.nn.softmax(z)),
        lambda xs: [mp.sqrt(p) for p in softmax(xs)],
        extremes=((0.0, 120.0, 3.0, -40.0, 7.0),),
        joint=True,
    ),
    Case(
        "log of product",
        "SK107",
        lambda z: log(tf.reduce_prod(z)),
        lambda xs: [mp.log(mp.fprod(xs))],
        normal=(0.5, 1.5, 0.3, 1.1, 2.4),
        extremes=(
            (1e-20, 1e-30, 1e-10, 1e-3, 3.0),
            (1e20, 1e30, -1e10, -1e3, 3.0),
        ),
    ),
    Case(
        "log of determinant",
        "SK107",
        lambda z: log(tf.linalg.det(tf.linalg.diag(z))),
        lambda xs: [mp.log(mp.fprod(xs))],
        normal=(0.5, 1.5, 0.3, 1.1, 2.4),
        extremes=((1e-20, 1e-15, 1e-10, 1e-3, 3.0),),
    ),
    Case(
        "running sum of exp",
        "SK106",
        lambda z: log(tf.cumsum(exp(z))),
        lambda xs: [
            mp.log(mp.fsum(map(mp.exp, xs[: i + 1]))) for i in range(len(xs))
        ],
        extremes=((0.0, 150.0, 3.0, -200.0, 7.0),),
        joint=True,
    ),
    Case(
        "matrix of exp",
        "SK106",
        lambda z: log(exp(z[None]) @ const([[0.25]] * 5, z)),
        lambda xs: [mp.log(mp.mpf(0.25) * mp.fsum(map(mp.exp, xs)))],
        extremes=((0.0, 150.0, 3.0, -200.0, 7.0),),
        joint=True,
    ),
    Case(
        "diagonal of exp",
        "SK106",
        lambda z: log(tf.linalg.diag_part(exp(z[:, None] + z[None]))),
        lambda xs: [2 * x for x in xs],
        extremes=((0.0, 150.0, 3.0, -200.0, 7.0),),
        joint=True,
    ),
    Case(
        "other chance of the label",
        "SK102",
        chosen_rest,
        lambda xs: [
            mp.log(sigmoid(-x)) if not y else mp.mpf(0)
            for x, y in zip(xs, LABELS, strict=True)
        ],
    ),
    Case(
        "binary cross-entropy",
        "SK102",
        cross_entropy,
        lambda xs: [
            mp.mpf(y) * mp.log(sigmoid(x))
            + (1 - mp.mpf(y)) * mp.log(sigmoid(-x))
            for x, y in zip(xs, SOFT, strict=True)
        ],
    ),
    Case(
        "tanh of two exponentials",
        "SK306",
        lambda z: (exp(z) - exp(-z)) / (exp(z) + exp(-z)),
        each(mp.tanh),
        extremes=((-300.0, -20.0, 1e-3, 15.0, 250.0),),
    ),
    Case(
        "tanh of one exponential",
        "SK306",
        lambda z: (1 - exp(-2 * z)) / (1 + exp(-2 * z)),
        each(mp.tanh),
        extremes=((-300.0, -20.0, 1e-3, 15.0, 250.0),),
    ),
    Case(
        "difference of either sign",
        "SK306",
        lambda z: (exp(z) - exp(-z)) / exp(2 * z),
        each(lambda x: mp.exp(-x) - mp.exp(-3 * x)),
        extremes=((-28.0, -20.0, 1e-3, 15.0, 80.0),),
    ),
    Case(
        "difference of sigmoids",
        "SK102",
        lambda z: log(tf.sigmoid(z + 1) - tf.sigmoid(z)),
        each(lambda x: mp.log(sigmoid(x + 1) - sigmoid(x))),
        extremes=((-300.0, -20.0, 0.0, 20.0, 300.0),),
    ),
    Case(
        "survival",
        "SK102",
        lambda z: log(tf.math.cumprod(1 - tf.sigmoid(z))),
        lambda xs: [
            mp.fsum(mp.log(sigmoid(-x)) for x in xs[: i + 1])
            for i in range(len(xs))
        ],
        extremes=((-20.0, 0.0, 30.0, 150.0, 2000.0),),
    ),
    Case(
        "log of cosh",
        "SK304",
        lambda z: log(tf.cosh(z)),
        each(lambda x: mp.log(mp.cosh(x))),
        extremes=((-300.0, -1e-3, 1e-5, 20.0, 2000.0),),
    ),
    Case(
        "log of cosh by hand",
        "SK304",
        lambda z: log((exp(z) + exp(-z)) / 2),
        each(lambda x: mp.log(mp.cosh(x))),
        extremes=((-300.0, -1e-3, 1e-5, 20.0, 2000.0),),
    ),
    Case(
        "log of softplus",
        "SK106",
        lambda z: log(tf.nn.softplus(z)),
        each(lambda x: mp.log(mp.log(1 + mp.exp(x)))),
        extremes=((-2000.0, -120.0, -14.0, 0.5, 80.0),),
    ),
    Case(
        "log of hand softplus",
        "SK106",
        lambda z: log(log(1 + exp(z))),
        each(lambda x: mp.log(mp.log(1 + mp.exp(x)))),
        extremes=((-2000.0, -120.0, -14.0, 0.5, 80.0),),
    ),
    Case(
        "matrix without some classes",
        "SK106",
        lambda z: log(softmaxes(z) @ const(MIXING, z)),
        mixed,
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "transposed matrix",
        "SK106",
        lambda z: log(
            tf.matmul(
                tf.transpose(const(MIXING, z)), softmaxes(z), transpose_b=True
            )
        ),
        lambda xs: [
            v
            for pair in zip(mixed(xs)[:5], mixed(xs)[5:], strict=True)
            for v in pair
        ],
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "einsum of a matrix",
        "SK106",
        lambda z: log(tf.einsum("ij,jk->ik", softmaxes(z), const(MIXING, z))),
        mixed,
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "einsum over the classes",
        "SK106",
        lambda z: log(tf.einsum("ij,j->i", softmaxes(z), const(CLASS, z))),
        lambda xs: [
            mp.log(softmax(xs)[2]),
            mp.log(softmax([-x for x in xs])[2]),
        ],
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "einsum of chances",
        "SK102",
        lambda z: log(tf.einsum("i,i->i", tf.sigmoid(z), tf.sigmoid(2 * z))),
        each(lambda x: mp.log(sigmoid(x) * sigmoid(2 * x))),
    ),
    Case(
        "einsum that transposes",
        "SK101",
        lambda z: log(tf.einsum("ij->ji", softmaxes(z))),
        lambda xs: [
            mp.log(p)
            for pair in zip(softmax(xs), softmax([-x for x in xs]), strict=True)
            for p in pair
        ],
        extremes=SPREAD,
        joint=True,
    ),
    Case(
        "product of a diagonal",
        "SK106",
        lambda z: log(
            tf.reduce_prod(
                tf.linalg.diag_part(
                    tf.linalg.set_diag(tf.ones([5, 5], z.dtype), exp(z))
                )
            )
        ),
        lambda xs: [mp.fsum(xs)],
        extremes=((-90.0, -120.0, -95.0, 0.0, 3.0),),
    ),
)
