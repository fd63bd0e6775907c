"""What a stabilized loss costs, against the loss as it was written.

    python benchmarks/stabilize.py [--rounds 25] [--jit no yes] [--cpu]
        [--write]

A whole training step (forward, backward, Adam) in one process: the two take
turns, each round gives one ratio, and the median of the ratios is printed
with its quartiles. On a busy machine `--cpu` counts the time of the process
instead of that of the clock. `--write` puts the table into the docs.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import page
import tensorflow as tf

import stablekeras

log = tf.math.log


def hand_sigmoid(z):
    return 1.0 / (1.0 + tf.exp(-z))


def hand_softmax(z):
    return tf.exp(z) / tf.reduce_sum(tf.exp(z), -1, keepdims=True)


def binary(y, p):
    return -tf.reduce_mean(y * log(p) + (1 - y) * log(1 - p), -1)


def classes(y, p):
    return -tf.reduce_sum(y * log(p), -1)


def guarded(y, p):
    return -tf.reduce_sum(y * log(tf.clip_by_value(p, 1e-7, 1.0)), -1)


def focal(y, p):
    p = tf.reduce_sum(y * p, -1)
    return -((1 - p) ** 2) * log(p)


def masked(y, p):
    mask = tf.cast(y > 0, tf.float32)
    return tf.reduce_sum(mask * log(p)) / tf.reduce_sum(mask)


def distance(y, p):
    return tf.sqrt(tf.reduce_sum((y - p) ** 2, -1))


# name: loss, activation, units, hidden units, batch
CASES = {
    "binary, hand sigmoid": (binary, hand_sigmoid, 1, 256, 256),
    "binary, 512 outputs": (binary, "sigmoid", 512, 256, 256),
    "softmax, 10 classes": (classes, "softmax", 10, 256, 256),
    "hand softmax, 1000 classes": (classes, hand_softmax, 1000, 256, 128),
    "guarded softmax, 1000 classes": (guarded, "softmax", 1000, 256, 128),
    "focal, 100 classes": (focal, "softmax", 100, 256, 128),
    "masked mean": (masked, "softmax", 100, 256, 128),
    "distance": (distance, None, 100, 256, 128),
}


def step_of(loss, activation, units, hidden, batch, jit):
    """Returns a function that runs one training step."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input((128,)),
            keras.layers.Dense(hidden, activation="relu"),
            keras.layers.Dense(hidden, activation="relu"),
            keras.layers.Dense(units, activation=activation),
        ]
    )
    model.compile("adam", loss=loss, jit_compile=jit)
    x = tf.constant(rng.normal(size=(batch, 128)), tf.float32)
    y = rng.integers(0, max(units, 2), batch)
    y = np.eye(units)[y] if units > 1 else y[:, None]
    data = (x, tf.constant(y, tf.float32))
    model.make_train_function()
    stream = iter(tf.data.Dataset.from_tensors(data).repeat())
    return lambda: model.train_function(stream)


def seconds(step, times, clock=time.perf_counter):
    start = clock()
    for _ in range(times):
        step()
    return (clock() - start) / times


def compare(name, jit, rounds, clock):
    """Rewrites, the plain step's seconds, and the quartiles of the ratios."""
    loss, *rest = CASES[name]
    stable = stablekeras.stabilize(loss)
    plain = step_of(loss, *rest, jit)
    cured = step_of(stable, *rest, jit)
    for step in (plain, cured):
        seconds(step, 10)
    times = max(5, int(0.05 / seconds(plain, 10)))
    ratios, base = [], []
    for _ in range(rounds):
        base.append(seconds(plain, times, clock))
        ratios.append(seconds(cured, times, clock) / base[-1])
    quartiles = np.quantile(ratios, [0.25, 0.5, 0.75])
    return len(stable.rewrites), np.median(base), quartiles


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--jit", nargs="+", default=["no", "yes"])
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    clock = time.process_time if options.cpu else time.perf_counter
    table = page.Table("loss", "XLA", "as written", "ratio", "rewrites")
    for jit in options.jit:
        for name in CASES:
            rewrites, base, (low, middle, high) = compare(
                name, jit == "yes", options.rounds, clock
            )
            table.row(
                name,
                jit,
                f"{1e3 * base:.2f} ms",
                f"**{middle:.2f}** [{low:.2f}, {high:.2f}]",
                rewrites,
            )
    note = page.setting(
        f"{options.rounds} rounds", "medians, quartiles in brackets"
    )
    print(note)
    if options.write:
        page.write("stabilize", table, note)


if __name__ == "__main__":
    main()
