"""What a sum of squares costs: plainly, and as the guard adds it up.

    python benchmarks/sums.py [--rounds 31] [--write]

The guard asks of each gradient one number that is finite if all entries are.
Three ways to it take turns in one process; each round gives one ratio to
`reduce_sum(square(x))`, and the median is printed with its quartiles.
Processor time with one thread. `--write` puts the table into the docs.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np
import page
import tensorflow as tf

from stablekeras.graphs.sums import half_square

SHAPES = ((64, 64), (640, 640), (4096, 1000))
WAYS = {
    "plain": lambda x: tf.reduce_sum(tf.square(x)),
    "all finite": lambda x: tf.reduce_all(tf.math.is_finite(x)),
    "guard": half_square,
}


def seconds(function, x, repeats):
    start = time.process_time()
    for _ in range(repeats):
        function(x)
    return (time.process_time() - start) / repeats


def measure(shape, jit, rounds):
    x = tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)
    ways = {n: tf.function(f, jit_compile=jit) for n, f in WAYS.items()}
    for function in ways.values():
        function(x)
    repeats = max(5, int(0.02 / seconds(ways["plain"], x, 20)))
    times = {name: [] for name in ways}
    for round_ in range(rounds):
        order = list(ways)
        shift = round_ % len(order)
        for name in order[shift:] + order[:shift]:
            times[name].append(seconds(ways[name], x, repeats))
    return {name: np.asarray(t) for name, t in times.items()}


def ratio(times, plain):
    low, middle, high = np.quantile(times / plain, [0.25, 0.5, 0.75])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    table = page.Table(
        "entries", "XLA", "plain sum", "all `is_finite`", "the guard's"
    )
    for jit in (False, True):
        for shape in SHAPES:
            times = measure(shape, jit, args.rounds)
            plain = times["plain"]
            table.row(
                " x ".join(map(str, shape)),
                "yes" if jit else "no",
                f"{np.median(plain) * 1e3:.3f} ms",
                ratio(times["all finite"], plain),
                ratio(times["guard"], plain),
            )
    note = page.setting(f"{args.rounds} rounds", "medians, quartiles")
    print(note)
    if args.write:
        page.write("sums", table, note)


if __name__ == "__main__":
    main()
