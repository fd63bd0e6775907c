"""How the cost and the memory of the guard grow.

    python benchmarks/scale.py [--parts growth large memory] [--rounds 5]
        [--small] [--write]

Every figure comes from a process of its own, so that no model sees what
another one left behind. Times: the variants of a point take turns in one
process, and the median of the ratios to the bare step of the same round is
given. Processor time with one thread; replicas are timed by the clock, as
their threads wait for each other. Memory: the largest resident size during
five steps, after five others have traced and compiled all there is, minus that
of the bare training. `--small` leaves out what takes 100M parameters.
`--write` puts tables and plot into the docs.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import page

DOCS = pathlib.Path(__file__).parents[1] / "docs"
NAMES = {
    "watch": "`NaNWatch`",
    "watch+clipped": "`NaNWatch` + `ClippedOptimizer`",
    "global_clipnorm": "Keras `global_clipnorm`",
}
# Of the plot: what is varied, over which values.
AXES = {
    "parameters": ("parameters", (10**5, 10**6, 10**7, 10**8)),
    "layers": ("dense layers of 64 units", (4, 8, 16, 32, 64)),
    "replicas": ("replicas (logical CPUs, 2 cores)", (1, 2, 4)),
}
LARGE = {
    "embedding": "Embedding 1.5M x 64 and Dense, sparse gradient",
    "regularized": "the same with an L2 regularizer, dense gradient",
}
MEMORY = {
    "mlp": "MLP, 0.1M",
    "cnn": "CNN with BatchNorm, 15k",
    "transformer": "transformer, 0.1M",
    "embedding": "Embedding 1.5M x 64 and Dense, 98M",
    "dense": "4 Dense of 5,000 x 5,000, 100M",
}


# In the process of one figure.


def chain(width, layers, batch=64):
    """Returns a function that makes `layers` Dense layers, square."""
    import keras

    def make():
        inputs = keras.Input((width,))
        x = inputs
        for _ in range(layers):
            x = keras.layers.Dense(width, activation="relu")(x)
        model = keras.Model(inputs, keras.layers.Dense(10)(x))
        return model, (batch, width), (batch,)

    return make


def embedding(regularizer=None, rows=1_500_000, width=64, batch=128):
    """Returns a function that makes a model of 100M parameters."""
    import keras

    def make():
        inputs = keras.Input((16,))
        # Normal numbers are what all benchmark models are fed.
        ids = keras.ops.cast(keras.ops.abs(inputs) * 1e5, "int32")
        x = keras.layers.Embedding(
            rows, width, embeddings_regularizer=regularizer
        )(ids)
        x = keras.layers.Flatten()(x)
        x = keras.layers.Dense(1024, activation="relu")(x)
        x = keras.layers.Dense(1024, activation="relu")(x)
        model = keras.Model(inputs, keras.layers.Dense(10)(x))
        return model, (batch, 16), (batch,)

    return make


def maker(kind, value):
    import watch_overhead

    if kind == "parameters":
        return chain(round((value / 4) ** 0.5), 4)
    if kind == "layers":
        return chain(64, value)
    if kind == "replicas":
        return chain(256, 4, batch=256)
    if kind == "embedding":
        return embedding()
    if kind == "regularized":
        return embedding("l2")
    if kind == "dense":
        return chain(5000, 4)
    return watch_overhead.MODELS[kind]


def scope(replicas):
    import tensorflow as tf

    if replicas == 1:
        return contextlib.nullcontext()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    devices = [f"CPU:{i}" for i in range(replicas)]
    return tf.distribute.MirroredStrategy(devices).scope()


def timed(kind, value, jit, rounds, seconds=0.2):
    """Returns milliseconds of the bare step, and the ratios of the others."""
    import numpy as np
    import watch_overhead

    replicas = value if kind == "replicas" else 1
    if kind == "replicas":
        watch_overhead.clock = time.perf_counter
    with scope(replicas):
        make = maker(kind, value)
        variants = {
            name: watch_overhead.Variant(name, make, jit)
            for name in ("bare", *NAMES)
        }
        steps = max(1, int(seconds / variants["bare"].run(1)))
        steps = max(1, int(seconds / variants["bare"].run(min(steps, 20))))
        times = {name: [] for name in variants}
        for turn in range(rounds):
            order = list(variants)
            shift = turn % len(order)
            for name in order[shift:] + order[:shift]:
                times[name].append(variants[name].run(steps))
    bare = np.asarray(times["bare"])
    return {
        "bare": float(np.median(bare)) * 1e3,
        **{
            name: np.quantile(times[name] / bare, [0.25, 0.5, 0.75]).tolist()
            for name in NAMES
        },
    }


def remembered(kind, variant, jit):
    """Returns the largest resident size of five steps, in bytes."""
    import watch_overhead

    made = watch_overhead.Variant(variant, maker(kind, None), jit)
    made.run(2)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    made.run(5)
    status = pathlib.Path("/proc/self/status").read_text()
    model = made.model
    return {
        "peak": int(status.split("VmHWM:")[1].split()[0]) * 1024,
        "weights": 4 * model.count_params(),
        "state": sum(
            v.value.numpy().nbytes
            for v in [
                *model.non_trainable_variables,
                *(v for m in model.metrics for v in m.variables),
            ]
        ),
        "batch": sum(
            leaf.numpy().nbytes for leaf in next(iter(made.data.take(1)))
        ),
    }


# In the process that asks for the figures.


def child(function, **settings):
    environment = os.environ | {
        # What is freed goes back at once: the peak is of what is in use.
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    if function == "timed":
        environment = dict(os.environ)
        # Replicas wait for each other: each needs a thread.
        if settings["kind"] == "replicas":
            environment["TF_NUM_INTEROP_THREADS"] = str(settings["value"] + 1)
    out = subprocess.run(
        [sys.executable, __file__, "--child", function, json.dumps(settings)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return json.loads(out.splitlines()[-1])


def ratio(quantiles):
    low, middle, high = quantiles
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def growth(args):
    """The cost over parameters, layers and replicas: table and plot."""
    table = page.Table("of", "value", "bare step", *NAMES.values())
    found = {}
    for kind, (title, values) in AXES.items():
        for value in values:
            if args.small and value == 10**8:
                continue
            # Replicas wait for each other, which is noisy.
            rounds = args.rounds + 2 * (kind == "replicas")
            rounds = 3 if value == 10**8 else rounds
            point = child(
                "timed", kind=kind, value=value, jit=False, rounds=rounds
            )
            found.setdefault(kind, {})[value] = point
            cells = [ratio(point[name]) for name in NAMES]
            table.row(title, f"{value:,}", f"{point['bare']:.2f} ms", *cells)
    note = f"{args.rounds} rounds a point, 3 of 100M parameters, "
    note += f"{args.rounds + 2} of replicas"
    finish(args, "scale.growth", table, note)
    if args.write:
        plot(found, DOCS / "assets" / "scale.png")


def large(args):
    """The cost of a step over 100M parameters, with XLA and without."""
    table = page.Table("model", "XLA", "bare step", *NAMES.values())
    for kind, title in LARGE.items():
        # Four dense copies do not fit into 24 GB under XLA.
        for jit in (False, True) if kind == "embedding" else (False,):
            point = child("timed", kind=kind, value=None, jit=jit, rounds=3)
            cells = [ratio(point[name]) for name in NAMES]
            ms = f"{point['bare']:.0f} ms"
            table.row(title, "yes" if jit else "no", ms, *cells)
    finish(args, "scale.large", table, "3 rounds")


def memory(args):
    """What a guarded training holds more than a bare one."""
    table = page.Table(
        "model, parameters",
        "weights",
        "its state and a batch",
        "bare training",
        *(f"{title}, more" for title in NAMES.values()),
    )
    for kind, title in MEMORY.items():
        if args.small and kind in ("embedding", "dense"):
            continue
        bare, *others = (
            child("remembered", kind=kind, variant=name, jit=False)
            for name in ("bare", *NAMES)
        )
        table.row(
            title,
            megabytes(bare["weights"]),
            megabytes(bare["state"] + bare["batch"]),
            megabytes(bare["peak"]),
            *(megabytes(o["peak"] - bare["peak"]) for o in others),
        )
    finish(args, "scale.memory", table, "one process each")


def megabytes(size):
    return f"{size / 1e6:,.1f} MB"


def finish(args, name, table, *notes):
    note = page.setting(*notes)
    print(note)
    if args.write:
        page.write(name, table, note)


def plot(found, path):
    """Draws the ratios of `growth`, one panel for each axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(AXES), figsize=(12, 4), sharey=True, constrained_layout=True
    )
    for panel, (kind, (title, _)) in zip(panels, AXES.items(), strict=True):
        points = found[kind]
        for (name, label), mark in zip(NAMES.items(), "osx", strict=True):
            low, middle, high = zip(
                *(point[name] for point in points.values()), strict=True
            )
            line = panel.plot(
                list(points), middle, marker=mark, label=label.replace("`", "")
            )
            panel.fill_between(
                list(points), low, high, alpha=0.15, color=line[0].get_color()
            )
        panel.axhline(1.0, color="black", linewidth=0.8)
        panel.set_xscale("log", base=10 if kind == "parameters" else 2)
        panel.set_xticks(list(points))
        if kind != "parameters":
            panel.set_xticklabels([str(value) for value in points])
        panel.minorticks_off()
        panel.set_xlabel(title)
        panel.grid(alpha=0.3)
    # Quartiles of a noisy point may leave the picture; the table has them.
    medians = [
        point[name][1]
        for points in found.values()
        for point in points.values()
        for name in NAMES
    ]
    panels[0].set_ylim(min(0.8, min(medians) - 0.1), max(medians) + 0.2)
    panels[0].set_ylabel("time of a step / bare step")
    panels[0].legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)


PARTS = {"growth": growth, "large": large, "memory": memory}


def main():
    if sys.argv[1:2] == ["--child"]:
        function = {"timed": timed, "remembered": remembered}[sys.argv[2]]
        print(json.dumps(function(**json.loads(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    for name in args.parts:
        if name == "large" and args.small:
            continue
        print(f"\n{name}")
        PARTS[name](args)


if __name__ == "__main__":
    main()
