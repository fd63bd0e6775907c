"""What our losses cost, against Keras' of the same name.

    python benchmarks/losses.py [--rounds 15] [--jit no yes]
        [--sizes 4096x1000] [--only crossentropy] [--dtype float32]
        [--no-time] [--no-memory] [--write]

Value and gradient by the predictions, in one process: the two take turns on
the same tensors, each round gives one ratio, and the median of the ratios is
printed with its quartiles. Of the largest size there are half as many rounds.
Memory is the growth of the peak of a process of its own, for the cross-
entropies from logits and some others. `--write` puts the tables into the docs.
"""

import argparse
import functools
import os
import pathlib
import re
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import page
import tensorflow as tf

from stablekeras import losses

SIZES = ("64x10", "4096x1000", "512x50257")
BITS, SHARES, VALUES, CLASSES = "bits", "shares", "values", "classes"
LOGITS = {"from_logits": True}
# name: function, labels, predictions, arguments
CASES = {
    "binary from logits": ("binary_crossentropy", BITS, VALUES, LOGITS),
    "categorical from logits": (
        "categorical_crossentropy",
        SHARES,
        VALUES,
        LOGITS,
    ),
    "sparse from logits": (
        "sparse_categorical_crossentropy",
        CLASSES,
        VALUES,
        LOGITS,
    ),
    "binary": ("binary_crossentropy", BITS, SHARES, {}),
    "categorical": ("categorical_crossentropy", SHARES, SHARES, {}),
    "sparse": ("sparse_categorical_crossentropy", CLASSES, SHARES, {}),
    "binary focal": ("binary_focal_crossentropy", BITS, SHARES, {}),
    "binary focal from logits": (
        "binary_focal_crossentropy",
        BITS,
        VALUES,
        LOGITS,
    ),
    "categorical focal": (
        "categorical_focal_crossentropy",
        SHARES,
        SHARES,
        {},
    ),
    "categorical focal from logits": (
        "categorical_focal_crossentropy",
        SHARES,
        VALUES,
        LOGITS,
    ),
    "generalized": (
        "categorical_generalized_cross_entropy",
        CLASSES,
        SHARES,
        {"q": 0.5},
    ),
    "kl divergence": ("kl_divergence", SHARES, SHARES, {}),
    "poisson": ("poisson", BITS, SHARES, {}),
    "squared": ("mean_squared_error", VALUES, VALUES, {}),
    "absolute": ("mean_absolute_error", VALUES, VALUES, {}),
    "percentage": ("mean_absolute_percentage_error", VALUES, VALUES, {}),
    "logarithmic": ("mean_squared_logarithmic_error", SHARES, SHARES, {}),
    "cosine": ("cosine_similarity", VALUES, VALUES, {}),
    "huber": ("huber", VALUES, VALUES, {}),
    "log-cosh": ("log_cosh", VALUES, VALUES, {}),
    "hinge": ("hinge", BITS, VALUES, {}),
    "squared hinge": ("squared_hinge", BITS, VALUES, {}),
    "categorical hinge": ("categorical_hinge", BITS, VALUES, {}),
    "dice": ("dice", BITS, SHARES, {"axis": 1}),
    "tversky": ("tversky", BITS, SHARES, {"axis": 1}),
}

# Whose memory is measured.
IN_MEMORY = (
    "binary from logits",
    "categorical from logits",
    "sparse from logits",
    "categorical",
    "kl divergence",
    "log-cosh",
)


@functools.lru_cache(maxsize=6)
def tensor(kind, rows, columns, seed, dtype="float32"):
    rng = np.random.default_rng(seed)
    if kind == CLASSES:
        return tf.constant(rng.integers(0, columns, rows))
    x = rng.standard_normal((rows, columns), "float32")
    if kind == BITS:
        x = (x > 0).astype("float32")
    if kind == SHARES:
        np.exp(x, out=x)
        x /= x.sum(axis=1, keepdims=True)
    return tf.cast(x, dtype)


def step_of(module, case, size, jit, dtype="float32"):
    name, labels, predictions, arguments = CASES[case]
    rows, columns = map(int, size.split("x"))
    y = tensor(labels, rows, columns, 0, dtype)
    x = tensor(predictions, rows, columns, 1, dtype)
    function = getattr(module, name)

    @tf.function(jit_compile=jit, autograph=False)
    def step(y, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(function(y, x, **arguments))
        return value, tape.gradient(value, x)

    return lambda: step(y, x)


def ctc_step(module, jit):
    x = tensor(VALUES, 16 * 64, 32, 1)
    x = tf.reshape(x, (16, 64, 32))
    y = tf.constant(np.random.default_rng(0).integers(1, 32, (16, 12)))

    @tf.function(jit_compile=jit, autograph=False)
    def step(y, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(module.ctc(y, x))
        return value, tape.gradient(value, x)

    return lambda: step(y, x)


def timed(step, count):
    start = time.perf_counter()
    for _ in range(count):
        value, slope = step()
    value.numpy(), slope[0].numpy()
    return (time.perf_counter() - start) / count


def compare(ours, theirs, rounds):
    """Median and quartiles of the ratios, and the median times."""
    for step in (ours, theirs):
        timed(step, 2)
    count = max(1, int(0.05 / timed(theirs, 1)))
    pairs = []
    for k in range(rounds):
        order = [ours, theirs] if k % 2 else [theirs, ours]
        times = {step: timed(step, count) for step in order}
        pairs.append((times[ours], times[theirs]))
    pairs = np.asarray(pairs)
    ratios = np.quantile(pairs[:, 0] / pairs[:, 1], [0.5, 0.25, 0.75])
    return ratios, np.median(pairs, axis=0)


def memory_of(who, case, size, jit):
    """Growth of the peak in MiB, in a process of its own."""
    command = [sys.executable, __file__, "--peak", who, case, "--sizes", size]
    command += ["--jit", "yes" if jit else "no"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def peak(who, case, size, jit):
    module = losses if who == "ours" else keras.losses
    step_of(module, case, "8x8", jit)()
    step = step_of(module, case, size, jit)
    # Making the inputs has a peak of its own: forget it.
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident("VmRSS")
    step()
    print((resident("VmHWM") - before) / 1024)


def resident(field):
    """Resident memory in KiB, now (VmRSS) or at its peak (VmHWM): Linux."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1])


def measure_time(jit, options):
    table = page.Table("loss", "size", "ratio", "ours", "Keras")

    def line(case, size, ours, theirs):
        large = size == SIZES[-1]
        rounds = (options.rounds + 1) // 2 if large else options.rounds
        (mid, low, high), (a, b) = compare(ours, theirs, rounds)
        table.row(
            case,
            size,
            f"**{mid:.2f}** [{low:.2f}, {high:.2f}]",
            f"{1e3 * a:.2f} ms",
            f"{1e3 * b:.2f} ms",
        )

    modules = (losses, keras.losses)
    for size in options.sizes:
        for case in CASES:
            if options.only in case:
                steps = (
                    step_of(m, case, size, jit, options.dtype) for m in modules
                )
                line(case, size, *steps)
    if options.only in "ctc":
        line("ctc", "16x64x32", *(ctc_step(m, jit) for m in modules))
    return table


def measure_memory(size, options):
    table = page.Table("loss", "size", "XLA", "peak, ours", "peak, Keras")
    for case in IN_MEMORY:
        if options.only in case:
            for jit in options.jit:
                ours, theirs = (
                    memory_of(who, case, size, jit == "yes")
                    for who in ("ours", "keras")
                )
                table.row(
                    case, size, jit, f"{ours:.0f} MiB", f"{theirs:.0f} MiB"
                )
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--jit", nargs="+", default=["no", "yes"])
    parser.add_argument("--sizes", nargs="*", default=SIZES)
    parser.add_argument("--only", default="")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--no-time", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.peak:
        peak(*options.peak, options.sizes[0], options.jit == ["yes"])
        return
    note = page.setting(
        f"{options.rounds} rounds", "medians, quartiles in brackets"
    )
    tables = {}
    if not options.no_time:
        for jit in options.jit:
            name = "losses.xla" if jit == "yes" else "losses"
            tables[name] = measure_time(jit == "yes", options)
    if not options.no_memory:
        tables["losses.memory"] = measure_memory(options.sizes[-1], options)
    print(note)
    if options.write:
        for name, table in tables.items():
            page.write(name, table, note)


if __name__ == "__main__":
    main()
