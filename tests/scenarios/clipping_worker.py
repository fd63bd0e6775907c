"""Trains as one device, as two replicas or as one of two workers.

Run by `test_clipping_replicas.py`: path of the result, cases, number of a bad
row, mode. A process of its own, as TensorFlow fixes its devices at the start.
"""

import contextlib
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

BATCH = 12
PATH, NAMES, BAD_ROW, MODE = sys.argv[1:]


def make_strategy():
    if MODE == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if MODE == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return None


STRATEGY = make_strategy()

import keras  # noqa: E402

from stablekeras import optimizers  # noqa: E402
from stablekeras.optimizers import ClippedOptimizer  # noqa: E402

K = keras.optimizers
CASES = {
    "global_norm": lambda: ClippedOptimizer(
        K.SGD(0.1, momentum=0.9), global_clipnorm=0.5
    ),
    "ada_gc_embedding": lambda: ClippedOptimizer(
        K.Adam(0.01), [optimizers.AdaGC(warmup=2), optimizers.ZScore(warmup=2)]
    ),
    "adam_agc": lambda: ClippedOptimizer(
        K.AdamW(0.01, use_ema=True),
        [optimizers.AdaptiveGradient(), optimizers.SpikeSkip(window=4)],
    ),
    "mixed_float16": lambda: K.LossScaleOptimizer(
        ClippedOptimizer(K.Adam(0.01), global_clipnorm=0.5), initial_scale=8.0
    ),
}


def train(name):
    keras.config.set_dtype_policy(
        "mixed_float16" if name == "mixed_float16" else "float32"
    )
    rng = np.random.default_rng(0)
    x = rng.integers(0, 7, (3 * BATCH, 4)).astype("int32")
    y = rng.standard_normal((3 * BATCH, 1)).astype("float32") * 10
    y[int(BAD_ROW)] = np.nan
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    scope = STRATEGY.scope() if STRATEGY else contextlib.nullcontext()
    with scope:
        keras.utils.set_random_seed(0)
        inputs = keras.layers.Input((4,), dtype="int32")
        z = keras.layers.Embedding(7, 3)(inputs)
        z = keras.layers.Dense(5, "tanh")(keras.layers.Flatten()(z))
        model = keras.Model(inputs, keras.layers.Dense(1, dtype="float32")(z))
        optimizer = CASES[name]()
        optimizer.build(model.trainable_variables)
    variables = model.trainable_variables

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x, training=True) - y)) / BATCH
            loss = optimizer.scale_loss(loss)
        optimizer.apply(tape.gradient(loss, variables), variables)

    @tf.function
    def step_on_all(x, y):
        if STRATEGY:
            STRATEGY.run(step, args=(x, y))
        else:
            step(x, y)

    if STRATEGY:
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        data = STRATEGY.experimental_distribute_dataset(
            data.with_options(options)
        )
    for _ in range(2):
        for x, y in data:
            step_on_all(x, y)
    clipped = optimizer
    if name == "mixed_float16":
        clipped = optimizer.inner_optimizer
    report = clipped.report()
    yield "skipped", report["skipped"]
    yield "grad_norm", np.float32(report["grad_norm"] / 10)
    yield "update_norm", np.float32(report["update_norm"] / 10)
    for i, w in enumerate(model.get_weights()):
        yield f"weight{i}", w


np.savez(
    PATH,
    **{
        f"{name}/{key}": value
        for name in NAMES.split(",")
        for key, value in train(name)
    },
)
