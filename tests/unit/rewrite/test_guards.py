"""What selects, masks, weights of zero and empty sums leave out."""

import numpy as np
import pytest
import tensorflow as tf

import stablekeras
from stablekeras.rewrite.verify import verify
from tests.unit.rewrite.test_patterns import value_and_gradient

log, where = tf.math.log, tf.where
NAN, INF = float("nan"), float("inf")
NONE = tf.zeros(3)
FIRST = tf.constant([1.0, 0.0, 0.0])
MASK = tf.constant([True, False, False])


def masked_mean(x):
    mask = tf.cast(x > 100, tf.float32)
    return tf.reduce_sum(mask * x**2) / tf.reduce_sum(
        tf.cast(x > 100, "float32")
    )


def masked_softmax(z):
    return tf.nn.softmax(where(z > 100, z, -np.inf))


def hand_masked_softmax(z):
    e = tf.exp(z) * tf.cast(z > 500, tf.float32)
    return e / tf.reduce_sum(e)


def nested(x):
    return where(x > 0, where(x < 50, 2 * log(x) + 1, 0.0), 0.0)


def shared(x):
    y = log(x)
    return where(x > 0, y, 0.0) + where(x > 1, y, 0.0)


def pairwise(x):
    gap = x[:, None] - x[None]
    return tf.sqrt(tf.reduce_sum(gap[..., None] ** 2, -1))


# name, code, formula, input, value, derivative of the sum
GUARDS = [
    (
        "where log",
        "SK404",
        lambda x: where(x > 0, log(x), 0.0),
        [-1, 0, 2],
        [0, 0, np.log(2)],
        [0, 0, 0.5],
    ),
    (
        "where division",
        "SK404",
        lambda x: where(tf.equal(x, 0), 0.0, 1 / x),
        [-1, 0, 2],
        [-1, 0, 0.5],
        [-1, 0, -0.25],
    ),
    (
        "where sqrt",
        "SK404",
        lambda x: where(x > 0, tf.sqrt(x), 0.0),
        [-1, 0, 4],
        [0, 0, 2],
        [0, 0, 0.25],
    ),
    (
        "where pow",
        "SK404",
        lambda x: where(x > 0, x**1.5, 0.0),
        [-1, 0, 4],
        [0, 0, 8],
        [0, 0, 3],
    ),
    (
        "where exp",
        "SK404",
        lambda x: where(x < 0, tf.exp(x), 1 + x),
        [-1, 0, 100],
        [np.exp(-1), 1, 101],
        [np.exp(-1), 1, 1],
    ),
    (
        "where expm1",
        "SK103",
        lambda x: where(x < 0, tf.exp(x) - 1, x),
        [-1, 0, 100],
        [np.expm1(-1), 0, 100],
        [np.exp(-1), 1, 1],
    ),
    (
        "where arccos",
        "SK404",
        lambda x: where(x < 1, tf.acos(x), 0.0),
        [0, 0.5, 1],
        [np.pi / 2, np.pi / 3, 0],
        [-1, -2 / np.sqrt(3), 0],
    ),
    ("nested where", "SK404", nested, [-1, 1, 100], [0, 1, 0], [0, 2, 0]),
    (
        "log of two selects",
        "SK404",
        shared,
        [0, 1, 2],
        [0, 0, 2 * np.log(2)],
        [0, 1, 1],
    ),
    (
        "mask times log",
        "SK412",
        lambda x: tf.cast(x > 0, tf.float32) * log(x),
        [-1, 0, 2],
        [0, 0, np.log(2)],
        [0, 0, 0.5],
    ),
    (
        "mask times infinity",
        "SK412",
        lambda x: tf.cast(MASK, tf.float32) * x,
        [1, INF, NAN],
        [1, 0, 0],
        [1, 0, 0],
    ),
    (
        "1 - mask",
        "SK412",
        lambda x: (1 - tf.cast(MASK, tf.float32)) * (1 / x),
        [0, 1, 2],
        [0, 1, 0.5],
        [0, -1, -0.25],
    ),
    (
        "x log x",
        "SK108",
        lambda x: x * log(x),
        [0, 1, np.e],
        [0, 0, np.e],
        [0, 1, 2],
    ),
    (
        "divergence",
        "SK108",
        lambda x: x * log(x / tf.constant([0.0, 0.5, 0.5])),
        [0, 0.5, 1],
        [0, 0, np.log(2)],
        [0, 1, 1 + np.log(2)],
    ),
    (
        "divergence of logs",
        "SK108",
        lambda x: -x * (2 - log(x)),
        [0, 1, np.e],
        [0, -2, -np.e],
        [-2, -1, 0],
    ),
    (
        "divergence from a softmax",
        "SK101",
        lambda z: FIRST * log(FIRST / tf.nn.softmax(z)),
        [0, 150, 150],
        [150 + np.log(2), 0, 0],
        [-1, 0.5, 0.5],
    ),
    (
        "divergence from a mean",
        "SK101",
        lambda z: (
            FIRST * log(FIRST / ((FIRST + tf.nn.softmax(z)) / 2))
            + tf.nn.softmax(z)
            * log(tf.nn.softmax(z) / ((FIRST + tf.nn.softmax(z)) / 2))
        ),
        [150, 0, 0],
        [0, 0, 0],
        [0, 0, 0],
    ),
    (
        "mask times a product",
        "SK412",
        lambda x: tf.cast(MASK, tf.float32) * x * x,
        [3, INF, NAN],
        [9, 0, 0],
        [6, 0, 0],
    ),
    (
        "mask times an entropy",
        "SK412",
        lambda x: tf.cast(x >= 0, tf.float32) * x * log(x),
        [-1, 0, np.e],
        [0, 0, np.e],
        [0, 0, 2],
    ),
    ("square root", "SK401", tf.sqrt, [0, 1, 4], [0, 1, 2], [0, 0.5, 0.25]),
    ("norm", "SK402", tf.norm, [0, 0, 0], [0], [0, 0, 0]),
    (
        "euclidean norm",
        "SK402",
        tf.math.reduce_euclidean_norm,
        [0, 0, 0],
        [0],
        [0, 0, 0],
    ),
    (
        "pairwise distance",
        "SK402",
        pairwise,
        [1, 1, 3],
        [0, 0, 2, 0, 0, 2, 2, 2, 0],
        [-2, -2, 4],
    ),
    (
        "standard deviation",
        "SK403",
        tf.math.reduce_std,
        [3, 3, 3],
        [0],
        [0, 0, 0],
    ),
    (
        "root by power",
        "SK406",
        lambda x: x**0.5,
        [0, 1, 4],
        [0, 1, 2],
        [0, 0.5, 0.25],
    ),
    ("empty mask", "SK503", masked_mean, [1, 2, 3], [0], [0, 0, 0]),
    (
        "mask with entries",
        "SK503",
        masked_mean,
        [1, 200, 3],
        [40000],
        [0, 400, 0],
    ),
    (
        "weights all zero",
        "SK503",
        lambda x: tf.reduce_sum(NONE * x) / tf.reduce_sum(NONE),
        [1, 2, 3],
        [0],
        [0, 0, 0],
    ),
    (
        "nothing picked",
        "SK504",
        lambda x: tf.reduce_mean(tf.boolean_mask(x, x > 100)),
        [1, 2, 3],
        [0],
        [0, 0, 0],
    ),
    (
        "fully masked softmax",
        "SK505",
        masked_softmax,
        [1, 2, 3],
        [0, 0, 0],
        [0, 0, 0],
    ),
    (
        "partly masked softmax",
        "SK505",
        masked_softmax,
        [101, 2, 101],
        [0.5, 0, 0.5],
        [0, 0, 0],
    ),
    (
        "fully masked hand softmax",
        "SK306",
        hand_masked_softmax,
        [150, 2, 3],
        [0, 0, 0],
        [0, 0, 0],
    ),
    (
        "partly masked hand softmax",
        "SK306",
        hand_masked_softmax,
        [600, 2, 600],
        [0.5, 0, 0.5],
        [0, 0, 0],
    ),
]
IDS = [guard[0] for guard in GUARDS]


@pytest.mark.parametrize(
    ("name", "code", "fn", "xs", "value", "slope"), GUARDS, ids=IDS
)
def test_what_is_left_out_reaches_nothing(name, code, fn, xs, value, slope):
    """Value and derivative are those of what is kept."""
    stable = stablekeras.stabilize(fn)
    got, gradient = value_and_gradient(stable, np.array(xs, np.float32))
    np.testing.assert_allclose(got, value, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6)
    assert code in {found.code for found in stable.rewrites}


@pytest.mark.parametrize(
    "guard",
    [g for g in GUARDS if "empty" not in g[0] and "all zero" not in g[0]],
    ids=lambda g: g[0],
)
def test_a_guard_changes_nothing_elsewhere(guard):
    """Where the original is finite, value and gradient are the same."""
    verdict = verify(guard[2], tf.constant([0.3, 0.7, 0.9]))
    assert verdict.value_error <= 1e-6
    assert verdict.gradient_error <= 1e-6


@pytest.mark.parametrize(
    ("fn", "x"),
    [
        (lambda x: x * log(x), -1.0),
        (log, -1.0),
        (lambda x: log(tf.exp(x) - tf.exp(x + 1)), 1.0),
        (lambda x: log(1 - tf.exp(x)), 1.0),
        (lambda x: log(tf.reduce_prod(tf.stack([x, -x]))), 2.0),
        (tf.sqrt, -1.0),
        (lambda x: where(x < 0, log(x), 0.0), -1.0),
        (lambda x: tf.cast(x < 0, tf.float32) * log(x), -1.0),
        (lambda x: log(tf.sigmoid(x)), NAN),
        (lambda x: tf.exp(x) / tf.exp(x - 1), NAN),
        (lambda x: 0.0 * x / x, 0.0),
    ],
)
def test_nothing_is_invented(fn, x):
    """Where no finite answer exists the result stays NaN."""
    assert np.isnan(stablekeras.stabilize(fn)(tf.constant(x)).numpy())


def half(*xs):
    return tf.constant(xs, tf.float16)


@pytest.mark.parametrize(
    ("fn", "x", "value", "slope"),
    [
        (
            lambda x: tf.reduce_mean(x**2),
            half(300, 100, 2, 4),
            25005.0,
            [150, 50, 1, 2],
        ),
        (
            lambda x: tf.sqrt(tf.reduce_sum(x * x)),
            half(300, 400),
            500.0,
            [0.6, 0.8],
        ),
        (tf.norm, half(300, 400), 500.0, [0.6, 0.8]),
        (
            lambda x: tf.reduce_mean(tf.math.squared_difference(x, half(0, 0))),
            half(300, 40),
            45800.0,
            [300, 40],
        ),
        (
            lambda x: tf.reduce_sum(x) / 4096,
            tf.ones(4096, tf.bfloat16),
            1.0,
            [1 / 4096] * 4096,
        ),
    ],
)
def test_16_bit_sums_are_computed_in_float32(fn, x, value, slope):
    """Sums and squares overflow no more than their result does."""
    stable = stablekeras.stabilize(fn)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = stable(x)
    gradient = tf.cast(tape.gradient(y, x), tf.float32)
    assert y.dtype == x.dtype
    np.testing.assert_allclose(tf.cast(y, tf.float32), value, rtol=1e-3)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3)
    assert "SK314" in {found.code for found in stable.rewrites}
