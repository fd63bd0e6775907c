"""Broken programs: divisions, roots, overflow, half precision."""

import keras
import numpy as np
import tensorflow as tf

from tests.scenarios.broken import Table, plain, rows

RATIOS = Table()
_ZERO = rows(r4=[0, 0, 0, 0])
_BIG = rows(r3=[100, 1, 1, 1], r7=[1, 1, 1, 2000])
_TARGETS = plain(1)
_TARGETS[[2, 6], 1] = 0.0


@RATIOS.add("SK201", "RealDiv", (2,), rows(r2=[1, 1, 1, 1]))
def division_by_zero(z):
    return tf.reduce_mean(1.0 / (z[:, 0] - z[:, 1]))  # root


@RATIOS.add("SK202", "RealDiv", (4,), _ZERO, says="no direction")
def unit_vector(z):
    return tf.reduce_mean(z / tf.norm(z, axis=1, keepdims=True))  # root


@RATIOS.add("SK202", "RealDiv", (4,), _ZERO)
def cosine_by_hand(z):
    a, b = z[:, :2], z[:, 2:]
    lengths = tf.sqrt(tf.reduce_sum(a * a, 1)) * tf.sqrt(
        tf.reduce_sum(b * b, 1)
    )
    return tf.reduce_mean(tf.reduce_sum(a * b, 1) / lengths)  # root


@RATIOS.add("SK203", "RealDiv", (4,), _ZERO + 1, says="all equal")
def standardise(z):
    mean = tf.reduce_mean(z, axis=1, keepdims=True)
    std = tf.math.reduce_std(z, axis=1, keepdims=True)
    return tf.reduce_mean((z - mean) / std)  # root


@RATIOS.add("SK203", "RealDiv", (4,), _ZERO)
def scale_to_unit_range(z):
    low = tf.reduce_min(z, axis=1, keepdims=True)
    high = tf.reduce_max(z, axis=1, keepdims=True)
    return tf.reduce_mean((z - low) / (high - low))  # root


@RATIOS.add("SK204", "RealDiv", (1,), rows(r1=[-200, -300, -150, -120]))
def softmax_underflow(z):
    e = tf.exp(z)
    return tf.reduce_mean(e / tf.reduce_sum(e, 1, keepdims=True))  # root


@RATIOS.add("SK205", "RealDiv", (2, 6), y=_TARGETS, says='the array "y"')
def percentage_error(z, y):
    return tf.reduce_mean(tf.abs((y - z) / y))  # root


@RATIOS.add("SK207", "RealDiv", (2,), rows(r2=[1e-30, 1, 1, 1]))
def quotient_overflow(z):
    return tf.reduce_mean(1e10 / z)  # root


@RATIOS.add("SK208", "RealDiv", (4,), _ZERO, says="1e-12 is 0 in float16")
def epsilon_vanishes(z):
    h = tf.cast(z, tf.float16)
    total = tf.reduce_sum(h, 1, keepdims=True)
    return tf.reduce_mean(h / (total + 1e-12))  # root


@RATIOS.add("SK209", "Sqrt", (5,), rows(r5=[-1, 1, 1, 1]))
def root_of_negative(z):
    return tf.reduce_mean(tf.sqrt(z))  # root


@RATIOS.add("SK210", "Rsqrt", (4,), _ZERO)
def rsqrt_of_variance(z):
    mean, variance = tf.nn.moments(z, axes=[1], keepdims=True)
    return tf.reduce_mean((z - mean) * tf.math.rsqrt(variance))  # root


@RATIOS.add("SK211", "Acos", (3,), rows(r3=[2.0002, 0, 0, 0]))
def angle_beyond_one(z):
    return tf.reduce_mean(tf.acos(z / 2.0))  # root


@RATIOS.add("SK301", "Exp", (3, 7), _BIG, says="up to 2000")
def exp_overflow(z):
    return tf.reduce_mean(tf.exp(z))  # root


@RATIOS.add("SK302", "Exp", (3, 7), _BIG)
def softplus_by_hand(z):
    return tf.reduce_mean(tf.math.log(1.0 + tf.exp(z)))  # root


@RATIOS.add("SK303", "Exp", (3, 7), _BIG)
def softmax_by_hand(z):
    e = tf.exp(z)  # root
    return tf.reduce_mean(e / tf.reduce_sum(e, 1, keepdims=True))


@RATIOS.add("SK303", "Exp", (3, 7), _BIG)
def softmax_by_hand_twice(z):
    return tf.reduce_mean(
        tf.exp(z)  # root
        / tf.reduce_sum(tf.exp(z), 1, keepdims=True)
    )


@RATIOS.add("SK304", "Exp", (3, 7), _BIG)
def logsumexp_by_hand(z):
    return tf.reduce_mean(tf.math.log(tf.reduce_sum(tf.exp(z), 1)))  # root


@RATIOS.add("SK305", "Exp", (3, 7), _BIG)
def sigmoid_by_hand(z):
    e = tf.exp(z)  # root
    return tf.reduce_mean(e / (1.0 + e))


@RATIOS.add("SK306", "Exp", (5,), rows(r5=[200, 1, 1, 1]))
def density_ratio(z):
    log_p = tf.reduce_sum(z, 1)
    log_q = tf.reduce_sum(z * 0.1, 1)
    return tf.reduce_mean(tf.exp(log_p - log_q))  # root


@RATIOS.add("SK307", "Exp", (3, 7), _BIG, y=plain(1))
def poisson_by_hand(z, y):
    return tf.reduce_mean(tf.exp(z) - y * z)  # root


@RATIOS.add("SK308", "Exp", (3, 7), _BIG)
def root_of_exp(z):
    return tf.reduce_mean(tf.sqrt(tf.exp(z)))  # root


@RATIOS.add("SK309", "Cosh", (3, 7), _BIG)
def log_cosh_by_hand(z):
    return tf.reduce_mean(tf.math.log(tf.cosh(z)))  # root


@RATIOS.add("SK310", "Square", (6,), rows(r6=[1e25, 1, 1, 1]))
def square_overflow(z):
    return tf.reduce_mean(tf.square(z))  # root


@RATIOS.add("SK310", "Pow", (6,), rows(r6=[1e10, 1, 1, 1]))
def power_overflow(z):
    return tf.reduce_mean(z**5)  # root


@RATIOS.add("SK311", "Pow", (6,), rows(r6=[-2, 1, 1, 1]))
def power_of_negative(z):
    return tf.reduce_mean(z**0.3)  # root


@RATIOS.add("SK312", "Prod", (6,), rows(r6=[1e20] * 4))
def product_overflow(z):
    return tf.reduce_mean(tf.reduce_prod(z, 1))  # root


@RATIOS.add("SK313", "Sum", (6,), rows(r6=[3e38] * 4))
def sum_overflow(z):
    return tf.reduce_mean(tf.reduce_sum(z, 1) * 1e-30)  # root


@RATIOS.add("SK314", "Sum", (6,), rows(r6=[60000, 60000, 1, 1]))
def half_sum(z):
    h = tf.cast(z, tf.float16)
    return tf.reduce_mean(tf.cast(tf.reduce_sum(h, 1), tf.float32))  # root


@RATIOS.add("SK315", "Square", (6,), rows(r6=[400, 1, 1, 1]))
def half_square(z):
    h = tf.cast(z, tf.float16)
    return tf.cast(tf.reduce_mean(tf.square(h)), tf.float32)  # root


@RATIOS.add("SK316", "Cast", (6,), rows(r6=[1e6, 1, 1, 1]))
def half_cast(z):
    return tf.reduce_mean(tf.cast(z, tf.float16))  # root


@RATIOS.add("SK317", "Lgamma", (6,), rows(r6=[0, 1, 1, 1]))
def pole_of_lgamma(z):
    return tf.reduce_mean(tf.math.lgamma(z))  # root


@RATIOS.add("SK503", "RealDiv", (), says="empty")
def empty_mask(z):
    mask = tf.cast(z > 100.0, tf.float32)
    return tf.reduce_sum(z * mask) / tf.reduce_sum(mask)  # root


@RATIOS.add(
    "SK503",
    "RealDiv",
    (5,),
    y=np.delete(np.ones((9, 4)), 8, 0).astype("float32")
    * (np.arange(8) != 5)[:, None].astype("float32"),
)
def empty_row_mask(z, y):
    total = tf.reduce_sum(z * y, axis=1)
    return tf.reduce_mean(total / tf.reduce_sum(y, axis=1))  # root


@RATIOS.add("SK504", "Mean", ())
def mean_of_nothing(z):
    return tf.reduce_mean(tf.boolean_mask(z, z > 100.0))  # root


@RATIOS.add("SK505", "Softmax", (4,), _ZERO)
def masked_softmax(z):
    scores = tf.where(z > 0.1, z, -np.inf)
    return tf.reduce_mean(tf.nn.softmax(scores) * z)  # root


@RATIOS.add("SK304", "Exp", (3, 7), _BIG)
def in_keras_ops(z):
    total = keras.ops.sum(keras.ops.exp(z), axis=1)  # root
    return keras.ops.mean(keras.ops.log(total))
