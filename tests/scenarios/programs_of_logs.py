"""Broken programs: logarithms."""

import keras
import numpy as np
import tensorflow as tf

from tests.scenarios.broken import Table, plain, rows

LOGS = Table()
_SPREAD = rows(r2=[0, 200, 0, 0], r5=[300, 0, 1, 2])
_ONE_HOT = np.eye(4, dtype="float32")[[0, 1, 2, 3, 0, 1, 2, 3]]
_LOW = rows(r1=[-300, 1, 1, 1], r6=[1, 1, -120, 1])
_HIGH = rows(r1=[300, 1, 1, 1], r6=[1, 1, 20, 1])


@LOGS.add("SK101", "Log", (2, 5), _SPREAD, says="softmax underflowed")
def log_of_softmax(z):
    p = tf.nn.softmax(z)
    return -tf.reduce_mean(tf.math.log(p))  # root


@LOGS.add("SK101", "Log", (2, 5), _SPREAD)
def log_of_keras_softmax(z):
    p = keras.ops.softmax(z, axis=-1)
    return -keras.ops.mean(keras.ops.log(p))  # root


@LOGS.add("SK101", "Log", (2,), rows(r2=[0, 200, 0, 0]), y=_ONE_HOT)
def crossentropy_by_hand(z, y):
    p = tf.nn.softmax(z)
    picked = tf.reduce_sum(p * y, axis=-1)
    return -tf.reduce_mean(tf.math.log(picked))  # root


@LOGS.add("SK101", "Log", (2, 5), _SPREAD, y=_ONE_HOT)
def textbook_crossentropy(z, y):
    p = tf.nn.softmax(z)
    return -tf.reduce_mean(
        tf.reduce_sum(y * tf.math.log(p), axis=1)  # root
    )


@LOGS.add("SK101", "Log", (2, 5), _SPREAD)
def log_of_softmax_by_hand(z):
    e = tf.exp(z - tf.reduce_max(z, axis=1, keepdims=True))
    p = e / tf.reduce_sum(e, axis=1, keepdims=True)
    return -tf.reduce_mean(tf.math.log(p))  # root


@LOGS.add("SK101", "Log", (2, 5), _SPREAD)
def log_of_reshaped_softmax(z):
    p = tf.reshape(tf.nn.relu(tf.nn.softmax(z)), (-1, 2, 2))
    return -tf.reduce_mean(tf.math.log(tf.abs(p)))  # root


@LOGS.add("SK101", "Log", (2, 5), _SPREAD)
def log_of_merged_softmax(z):
    p = tf.reshape(tf.nn.softmax(z), (-1,))
    return -tf.reduce_mean(tf.math.log(p))  # root


@LOGS.add("SK101", "Log", (2,), rows(r2=[0, 200, 0, 0]))
def log_of_gathered_softmax(z):
    p = tf.nn.softmax(z)
    mine = tf.gather(p, [0, 1, 0, 3, 0, 1, 2, 3], batch_dims=1)
    return -tf.reduce_mean(tf.math.log(mine))  # root


@LOGS.add("SK101", "Log", (2, 5), _SPREAD)
def entropy_of_softmax(z):
    p = tf.nn.softmax(z)
    return -tf.reduce_sum(p * tf.math.log(p))  # root


@LOGS.add("SK102", "Log", (1, 6), _LOW, says="sigmoid saturated")
def log_of_sigmoid(z):
    return -tf.reduce_mean(tf.math.log(tf.sigmoid(z)))  # root


@LOGS.add("SK102", "Log", (1, 6), _LOW)
def log_of_sigmoid_by_hand(z):
    p = 1.0 / (1.0 + tf.exp(-z))
    return -tf.reduce_mean(tf.math.log(p))  # root


@LOGS.add("SK102", "Log", (1, 6), _HIGH)
def log_of_one_minus_sigmoid(z):
    return -tf.reduce_mean(tf.math.log(1.0 - tf.sigmoid(z)))  # root


@LOGS.add("SK102", "Log1p", (1, 6), _HIGH)
def log1p_of_minus_sigmoid(z):
    return -tf.reduce_mean(tf.math.log1p(-tf.sigmoid(z)))  # root


@LOGS.add("SK102", "Log", (1,), rows(r1=[300, 1, 1, 1]), y=_ONE_HOT)
def binary_crossentropy_by_hand(z, y):
    p = tf.sigmoid(z)
    return -tf.reduce_mean(
        y * tf.math.log(p) + (1 - y) * tf.math.log(1 - p)  # root
    )


@LOGS.add("SK102", "Log", (1, 6), _LOW)
def log_of_tanh_form(z):
    p = 0.5 * (1.0 + tf.tanh(z / 2.0))
    return -tf.reduce_mean(tf.math.log(p))  # root


@LOGS.add("SK103", "Log", (2, 5), _SPREAD)
def log_of_one_minus_softmax(z):
    e = tf.exp(z - tf.reduce_max(z, axis=1, keepdims=True))
    p = e / tf.reduce_sum(e, axis=1, keepdims=True)
    return -tf.reduce_mean(tf.math.log(1.0 - p))  # root


@LOGS.add(
    "SK104", "Log", (1, 6), _HIGH, says="the epsilon 1e-10 is absorbed by 1.0"
)
def absorbed_epsilon(z):
    p = tf.sigmoid(z)
    return -tf.reduce_mean(tf.math.log(1e-10 + 1 - p))  # root


@LOGS.add("SK104", "Log", (1, 6), _HIGH, says="does nothing")
def one_sided_clip(z):
    p = tf.clip_by_value(tf.sigmoid(z), 1e-10, 1.0)
    return -tf.reduce_mean(tf.math.log(1.0 - p))  # root


@LOGS.add("SK104", "Log", (1, 6), _HIGH, says="rounds to 1.0")
def rounded_bound(z):
    p = tf.clip_by_value(tf.sigmoid(z), 1e-10, 1 - 1e-10)
    return -tf.reduce_mean(tf.math.log(1.0 - p))  # root


@LOGS.add(
    "SK104", "Log", (1,), rows(r1=[-300, 1, 1, 1]), says="is 0 in float16"
)
def epsilon_zero_in_half(z):
    p = tf.sigmoid(tf.cast(z, tf.float16))
    return -tf.reduce_mean(tf.math.log(p + 1e-12))  # root


@LOGS.add("SK105", "Log", (2, 5), _SPREAD, says="is never used")
def dropped_clip(z):
    p = tf.nn.softmax(z)
    tf.clip_by_value(p, 1e-7, 1.0)
    return -tf.reduce_mean(tf.math.log(p))  # root


@LOGS.add("SK105", "Log", (1, 6), _LOW, says="is never used")
def dropped_maximum(z):
    p = tf.sigmoid(z)
    safe = tf.maximum(p, 1e-7)  # noqa: F841
    return -tf.reduce_mean(tf.math.log(p))  # root


@LOGS.add("SK106", "Log", (4,), rows(r4=[-200, -300, -150, -190]))
def logsumexp_underflow(z):
    return tf.reduce_mean(
        tf.math.log(tf.reduce_sum(tf.exp(z), axis=1))  # root
    )


@LOGS.add("SK106", "Log", (4,), rows(r4=[-200, 1, 1, 1]))
def log_of_exp_underflow(z):
    return tf.reduce_mean(tf.math.log(tf.exp(z)))  # root


@LOGS.add("SK106", "Log", (3,), rows(r3=[-400, -500, 1, 1]))
def logaddexp_by_hand(z):
    a, b = z[:, 0], z[:, 1]
    return tf.reduce_mean(tf.math.log(tf.exp(a) + tf.exp(b)))  # root


@LOGS.add("SK107", "Log", (3,), rows(r3=[1e-20] * 4))
def log_of_product(z):
    return -tf.reduce_mean(tf.math.log(tf.reduce_prod(z, axis=1)))  # root


@LOGS.add("SK107", "Log", (3,), rows(r3=[1e-20] * 4))
def log_of_determinant(z):
    m = tf.linalg.diag(z)
    return -tf.reduce_mean(tf.math.log(tf.linalg.det(m)))  # root


@LOGS.add("SK108", "Log", (0, 7), rows(r0=[0, 1, 1, 1], r7=[0, 0, 0, 1]))
def entropy_at_zero(z):
    p = z / tf.reduce_sum(z, axis=1, keepdims=True)
    return -tf.reduce_mean(p * tf.math.log(p))  # root


@LOGS.add("SK108", "Log", (0,), rows(r0=[0, 1, 1, 1]))
def divergence_at_zero(z):
    q = tf.ones_like(z) / 4.0
    return tf.reduce_mean(z * tf.math.log(z / q))  # root


@LOGS.add("SK109", "Log", (2, 3), rows(r2=[-1, 1, 1, 1], r3=[1, -0.1, 1, 1]))
def log_of_negative(z):
    return tf.reduce_mean(tf.math.log(z))  # root


@LOGS.add("SK110", "Log", (2,), rows(r2=[0, 1, 1, 1]))
def log_of_zero(z):
    return tf.reduce_mean(tf.math.log(z))  # root


@LOGS.add(
    "SK412",
    "Log",
    (2,),
    y=1.0 - np.eye(8, 4, k=-2, dtype="float32")[:, :4],
    z=rows(r2=[0, 1, 1, 1]),
)
def mask_times_log(z, y):
    mask = tf.cast(y > 0.5, tf.float32)
    return -tf.reduce_sum(mask * tf.math.log(z))  # root


@LOGS.add("SK101", "Log", (2, 5), _SPREAD)
def harmless_infinity_beside(z):
    gate = 1.0 / (1.0 + tf.stop_gradient(tf.exp(-(z - 250.0) * 10)))
    p = tf.nn.softmax(z)
    return -tf.reduce_mean(tf.stop_gradient(gate) + tf.math.log(p))  # root


@LOGS.add("SK101", "Log", (2, 5), _SPREAD)
def harmless_mask_beside(z):
    causal = tf.where(plain() > 0.8, z, -np.inf)
    weights = tf.nn.softmax(tf.concat([causal, z], axis=1))
    p = tf.nn.softmax(z)
    return -tf.reduce_mean(weights) - tf.reduce_mean(tf.math.log(p))  # root


@LOGS.add("SK101", "Log", (2, 5), _SPREAD)
def inside_a_function(z):
    @tf.function
    def inner(a):
        p = tf.nn.softmax(a)
        return tf.math.log(p)  # root

    return -tf.reduce_mean(inner(z))


@LOGS.add("SK101", "Log", (2, 5), _SPREAD)
def inside_a_compiled_function(z):
    @tf.function(jit_compile=True)
    def inner(a):
        return tf.math.log(tf.nn.softmax(a))  # root

    return -tf.reduce_mean(inner(z))


@LOGS.add("SK102", "Log", (1, 6), _LOW)
def inside_a_loop(z):
    def body(i, total):
        return i + 1, total + tf.math.log(tf.sigmoid(z))  # root

    _, total = tf.while_loop(
        lambda i, total: i < 3, body, (tf.constant(0), tf.zeros_like(z))
    )
    return -tf.reduce_mean(total)


@LOGS.add("SK102", "Log", (1, 6), _LOW)
def inside_a_branch(z):
    return tf.cond(
        tf.reduce_sum(z) > 1e9,
        lambda: tf.reduce_mean(z),
        lambda: -tf.reduce_mean(tf.math.log(tf.sigmoid(z))),  # root
    )
