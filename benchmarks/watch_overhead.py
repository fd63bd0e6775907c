"""What a watched training step costs, against the same step unwatched.

    python benchmarks/watch_overhead.py [--rounds 15] [--seconds 0.3] [--wall]
        [--models mlp mlp_10ms cnn transformer lstm] [--jit no yes] [--write]

All variants of a model live in one process and take turns; each round gives
one ratio to the bare fit of that round, and the median of the ratios is
printed, with the quartiles. Each is made twice, in opposite order: where its
memory lies is worth 1% of a step. Times are the processor time of `model.fit`,
callbacks and logs included: with one thread that is the wall time of an idle
machine, and it does not count what other programs take. `--wall` measures wall
time instead. `--write` puts the tables into the docs.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import numpy as np
import page
import tensorflow as tf
from keras import layers

import stablekeras

clock = time.process_time


def mlp(width=256, batch=128):
    inputs = layers.Input((64,))
    x = layers.Dense(width, activation="relu")(inputs)
    x = layers.Dense(width, activation="relu")(x)
    outputs = layers.Dense(10)(x)
    return keras.Model(inputs, outputs), (batch, 64), (batch,)


def mlp_10ms():
    return mlp(width=640, batch=512)


def cnn():
    inputs = layers.Input((32, 32, 3))
    x = inputs
    for filters in (16, 32, 32):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x)), (32, 32, 32, 3), (32,)


def transformer(blocks=4, width=64):
    inputs = layers.Input((32, width))
    x = inputs
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, width // 4, dropout=0.1)(y, y)
        y = layers.LayerNormalization()(x)
        y = layers.Dense(2 * width, activation="gelu")(y)
        x = x + layers.Dense(width)(y)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(10)(x)), (16, 32, width), (16,)


def lstm():
    inputs = layers.Input((32, 16))
    x = layers.LSTM(48)(inputs)
    return keras.Model(inputs, layers.Dense(10)(x)), (32, 32, 16), (32,)


MODELS = {
    "mlp": mlp,
    "mlp_10ms": mlp_10ms,
    "cnn": cnn,
    "transformer": transformer,
    "lstm": lstm,
}

# Steps of many small operations vary most: more rounds for them.
MORE_ROUNDS = {"transformer": 2}

TITLES = {
    "mlp": "MLP",
    "mlp_10ms": "MLP",
    "cnn": "CNN with BatchNorm",
    "transformer": "transformer",
    "lstm": "LSTM",
}


def watch():
    return stablekeras.NaNWatch("skip", directory=None, verbose=0)


class Variant:
    """One way to train a model, ready to run for some steps."""

    def __init__(self, name, make_model, jit):
        keras.utils.set_random_seed(0)
        model, x_shape, y_shape = make_model()
        optimizer = keras.optimizers.Adam(1e-4)
        self.callbacks = []
        if name == "global_clipnorm":
            optimizer = keras.optimizers.Adam(1e-4, global_clipnorm=1.0)
        if name == "watch+clipped":
            optimizer = stablekeras.optimizers.ClippedOptimizer(
                optimizer, global_clipnorm=1.0
            )
        if name.startswith("watch"):
            self.callbacks = [watch()]
        if name == "terminate_on_nan":
            self.callbacks = [keras.callbacks.TerminateOnNaN()]
        model.compile(
            optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit,
        )
        rng = np.random.default_rng(0)
        x = rng.normal(size=x_shape).astype("float32")
        y = rng.integers(0, 10, size=y_shape)
        self.data = tf.data.Dataset.from_tensors((x, y)).repeat()
        self.model = model
        if name == "check_numerics":
            tf.debugging.enable_check_numerics()
        try:
            self.run(3)
        finally:
            if name == "check_numerics":
                tf.debugging.disable_check_numerics()

    def run(self, steps):
        """Trains for `steps` steps; returns seconds a step."""
        start = clock()
        self.model.fit(
            self.data,
            steps_per_epoch=steps,
            epochs=1,
            shuffle=False,
            verbose=0,
            callbacks=self.callbacks,
        )
        return (clock() - start) / steps


VARIANTS = {
    "terminate_on_nan": "`TerminateOnNaN`",
    "watch": "`NaNWatch`",
    "watch+clipped": "`NaNWatch` + `ClippedOptimizer`",
    "global_clipnorm": "Keras `global_clipnorm`",
    "check_numerics": "`enable_check_numerics`",
}


def measure(make_model, jit, names, rounds, seconds):
    runs = []
    for name in [*names, *reversed(names)]:
        try:
            runs.append((name, Variant(name, make_model, jit)))
        except Exception as error:
            print(f"    {name}: cannot run ({type(error).__name__})")
    steps = max(5, int(seconds / 2 / runs[0][1].run(20)))
    times = {name: np.zeros(rounds) for name, _ in runs}
    order = np.random.default_rng(0)
    for round_ in range(rounds):
        # Whoever comes after a given one is another each round.
        for place in order.permutation(len(runs)):
            name, variant = runs[place]
            times[name][round_] += variant.run(steps) / 2
    return {
        name: (
            float(np.median(t)) * 1e3,
            np.quantile(t / times["bare"], [0.25, 0.5, 0.75]),
        )
        for name, t in times.items()
    }


def tabulate(jit, args):
    table = page.Table(
        "model (bare step)", *(VARIANTS[name] for name in args.variants)
    )
    for model in args.models:
        found = measure(
            MODELS[model],
            jit,
            ["bare", *args.variants],
            args.rounds * MORE_ROUNDS.get(model, 1),
            args.seconds,
        )
        cells = [f"{TITLES[model]} ({found['bare'][0]:.1f} ms)"]
        for name in args.variants:
            if name in found:
                low, middle, high = found[name][1]
                cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]")
            else:
                cells.append("does not run")
        table.row(*cells)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--jit", nargs="+", default=["no", "yes"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.wall:
        globals()["clock"] = time.perf_counter
    for jit in args.jit:
        print(f"\nXLA: {jit}")
        table = tabulate(jit == "yes", args)
        note = page.setting(
            f"{args.rounds} rounds of {args.seconds:g} s, twice as many of "
            "the transformer",
            "medians, quartiles in brackets",
        )
        print(note)
        if args.write:
            name = "watch_overhead.xla" if jit == "yes" else "watch_overhead"
            page.write(name, table, note)


if __name__ == "__main__":
    main()
