"""Broken programs: known formulas in other clothes, harmless ones beside."""

import keras
import numpy as np
import tensorflow as tf

from tests.scenarios.broken import Table, plain, rows

DISGUISES = Table()
_SPREAD = rows(r2=[0, 200, 0, 0], r5=[300, 0, 1, 2])
_ZERO = rows(r4=[0, 0, 0, 0])
_EPSILON = 1e-10


@DISGUISES.add("SK101", "Log", (2, 5), _SPREAD)
def softmax_turned_over(z):
    return -tf.reduce_mean(tf.math.log(tf.transpose(tf.nn.softmax(z))))  # root


@DISGUISES.add("SK101", "Log", (2, 5), _SPREAD)
def softmax_scaled(z):
    p = tf.nn.softmax(z) * 0.5
    return -tf.reduce_mean(tf.math.log(p))  # root


@DISGUISES.add("SK104", "Log", (2, 5), _SPREAD, says="is 0 in float16")
def clip_of_nothing_in_half(z):
    p = keras.ops.cast(keras.ops.softmax(z), "float16")
    p = keras.ops.clip(p, 1e-9, 1.0)
    return -keras.ops.mean(keras.ops.log(p))  # root


@DISGUISES.add("SK104", "Log", (1,), rows(r1=[30, 1, 1, 1]), says="absorbed")
def epsilon_by_name(z):
    return -tf.reduce_mean(
        tf.math.log(1 + _EPSILON - tf.sigmoid(z))  # root
    )


@DISGUISES.add("SK105", "Log", (2, 5), _SPREAD)
def dropped_where(z):
    p = tf.nn.softmax(z)
    tf.where(p < 1e-7, 1e-7, p)
    return -tf.reduce_mean(tf.math.log(p))  # root


@DISGUISES.add("SK102", "Log", (1,), rows(r1=[-200, 1, 1, 1]))
def sigmoid_as_a_power(z):
    p = tf.pow(1.0 + tf.exp(-z), -1.0)
    return -tf.reduce_mean(tf.math.log(p))  # root


@DISGUISES.add("SK212", "RealDiv", (2, 5), _SPREAD)
def ratio_of_softmaxes(z):
    p, q = tf.nn.softmax(z), tf.nn.softmax(-z)
    return tf.reduce_mean(p * tf.math.log(p / q))  # root


@DISGUISES.add("SK303", "Exp", (2, 5), _SPREAD)
def masked_softmax_by_hand(z):
    e = tf.exp(z) * tf.cast(z > 0.6, z.dtype)  # root
    return tf.reduce_mean(e / tf.reduce_sum(e, axis=1, keepdims=True))


@DISGUISES.add("SK304", "Exp", (2, 5), _SPREAD)
def cosh_by_hand(z):
    return tf.reduce_mean(
        tf.math.log((tf.exp(z) + tf.exp(-z)) / 2)  # root
    )


@DISGUISES.add("SK306", "Exp", (5,), _SPREAD)
def importance_weight(z):
    new = tf.nn.log_softmax(z)[:, 0]
    old = tf.nn.log_softmax(-z)[:, 0]
    return tf.reduce_mean(tf.exp(new - old))  # root


@DISGUISES.add("SK505", "Softmax", (4,), _ZERO)
def log_of_a_mask(z):
    mask = tf.cast(z > 0, tf.float32)
    return tf.reduce_mean(tf.nn.softmax(z + tf.math.log(mask)) * z)  # root


@DISGUISES.add("SK503", "RealDiv", (4,), _ZERO)
def count_of_nothing(z):
    count = tf.math.count_nonzero(z, axis=1)
    total = tf.reduce_sum(z, axis=1)
    return tf.reduce_mean(total / tf.cast(count, tf.float32))  # root


@DISGUISES.add("SK208", "RealDiv", (4,), _ZERO, says="1e-12 is 0 in float16")
def layer_norm_in_half(z):
    h = tf.cast(z, tf.float16)
    mean = tf.reduce_mean(h, axis=1, keepdims=True)
    var = tf.reduce_mean(tf.square(h - mean), axis=1, keepdims=True)
    return tf.reduce_mean((h - mean) / tf.sqrt(var + 1e-12))  # root


@DISGUISES.add("SK402", "Sqrt", tuple(range(8)), plain(), phase="backward")
def pairwise_distances(z):
    gap = z[:, None] - z[None]
    return tf.reduce_mean(tf.sqrt(tf.reduce_sum(gap**2, axis=-1)))  # root


@DISGUISES.add("SK402", "Sqrt", (4,), _ZERO, phase="backward")
def root_mean_square(z):
    return tf.reduce_mean(tf.sqrt(tf.reduce_mean(z * z, axis=1)))  # root


@DISGUISES.add("SK404", "RealDiv", (4,), _ZERO, phase="backward")
def guarded_unit_vector(z):
    square = tf.reduce_sum(z * z, axis=1, keepdims=True)
    return tf.reduce_mean(tf.where(square > 0, z / square, 0.0))  # root


@DISGUISES.add("SK401", "Sqrt", (), _ZERO, phase="backward")
def root_in_a_map(z):
    return tf.reduce_mean(tf.map_fn(lambda row: tf.sqrt(row), z))  # root


@DISGUISES.add("SK402", "Sqrt", (4,), _ZERO, phase="backward")
def harmless_ones_beside(z):
    gate = tf.stop_gradient(1.0 / (1.0 + tf.exp(1000.0 * z)))
    mask = tf.constant([[0.0, -np.inf, 0.0, 0.0]])
    weights = tf.nn.softmax(z + mask) * gate
    return tf.reduce_mean(weights) + tf.reduce_mean(
        tf.norm(z, axis=1)  # root
    )
