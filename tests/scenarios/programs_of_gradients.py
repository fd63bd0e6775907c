"""Broken programs whose value is finite and whose gradient is not."""

import keras
import tensorflow as tf

from tests.scenarios.broken import Table, rows

GRADIENTS = Table()
_ZERO = rows(r4=[0, 0, 0, 0])
_DOT = rows(r1=[0, 1, 1, 1], r4=[1, 1, 0, 1])
_BIG = rows(r3=[100, 1, 1, 1], r7=[1, 1, 1, 2000])


def back(*args, **kwargs):
    return GRADIENTS.add(*args, phase="backward", **kwargs)


@back("SK401", "Sqrt", (1, 4), _DOT)
def root_at_zero(z):
    return tf.reduce_mean(tf.sqrt(z))  # root


@back("SK402", "Sqrt", (4,), _ZERO)
def norm_at_zero(z):
    return tf.reduce_mean(tf.norm(z, axis=1))  # root


@back("SK402", "Sqrt", (4,), _ZERO + 1)
def distance_of_equals(z):
    a, b = z[:, :2], z[:, 2:]
    square = tf.reduce_sum(tf.math.squared_difference(a, b), axis=1)
    return tf.reduce_mean(tf.sqrt(square))  # root


@back("SK403", "Sqrt", (4,), _ZERO + 1)
def spread_of_constant(z):
    return tf.reduce_mean(tf.math.reduce_std(z, axis=1))  # root


@back("SK403", "Sqrt", (4,), _ZERO + 1)
def spread_in_keras(z):
    return keras.ops.mean(keras.ops.std(z, axis=1))  # root


@back("SK404", "Log", (1, 4), _DOT)
def trap_of_log(z):
    return tf.reduce_mean(tf.where(z > 0, tf.math.log(z), 0.0))  # root


@back("SK404", "Exp", (3, 7), _BIG)
def trap_of_exp(z):
    return tf.reduce_mean(tf.where(z < 50, tf.exp(z), z))  # root


@back("SK404", "RealDiv", (1, 4), _DOT)
def trap_of_division(z):
    return tf.reduce_mean(tf.where(z > 0, 1.0 / z, 0.0))  # root


@back("SK305", "Exp", (3, 7), _BIG)
def sigmoid_recovers(z):
    return tf.reduce_mean(1.0 / (1.0 + tf.exp(z)))  # root


@back("SK406", "Pow", (1, 4), _DOT)
def power_at_zero(z):
    return tf.reduce_mean(z**0.5)  # root


@back("SK407", "Acos", (1, 4), rows(r1=[2, 1, 1, 1], r4=[1, 1, -2, 1]) / 2)
def angle_at_edge(z):
    return tf.reduce_mean(tf.acos(z))  # root


@back("SK408", "RealDiv", (1,), rows(r1=[1e-25, 1, 1, 1]))
def division_by_tiny(z):
    return tf.reduce_mean(1.0 / z)  # root


@back("SK411", "Qr", (4,), _ZERO)
def basis_of_nothing(z):
    q, _ = tf.linalg.qr(tf.reshape(z, (-1, 2, 2)))  # root
    return tf.reduce_mean(q)


@back("SK413", "Atan2", (4,), _ZERO)
def angle_of_nothing(z):
    return tf.reduce_mean(tf.atan2(z[:, 0], z[:, 1]))  # root


@back("SK401", "Sqrt", (1, 4), _DOT)
def root_in_a_function(z):
    @tf.function
    def inner(a):
        return tf.sqrt(a)  # root

    return tf.reduce_mean(inner(z))


@back("SK401", "Sqrt", (1, 4), _DOT)
def root_in_a_loop(z):
    def body(i, total):
        return i + 1, total + tf.sqrt(z)  # root

    _, total = tf.while_loop(
        lambda i, total: i < 2, body, (tf.constant(0), tf.zeros_like(z))
    )
    return tf.reduce_mean(total)


@back("SK401", "Sqrt", (1, 4), _DOT)
def root_beside_harmless(z):
    gate = tf.stop_gradient(1.0 / (1.0 + tf.exp(1000.0 * z)))
    return tf.reduce_mean(gate) + tf.reduce_mean(tf.sqrt(z))  # root


@back("SK405", "Exp", (3, 7), _BIG)
def exp_of_minus_exp(z):
    return tf.reduce_mean(tf.exp(-tf.exp(z)))  # root
