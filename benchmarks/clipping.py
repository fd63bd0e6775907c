"""What ClippedOptimizer costs, and what each of its rules is for.

    python benchmarks/clipping.py [--cost] [--training] [--rounds 100]
        [--models mlp cnn] [--write]

Both parts by default. `--write` puts the tables and `docs/assets/clipping.png`
into the docs.

Cost: the same model with no clipping, with `global_clipnorm` of Keras and with
`ClippedOptimizer(global_clipnorm=…)`, interleaved step by step in one process;
the figure is the median of the ratios of neighbouring measurements. Each is
made twice, in opposite order: where its memory lies is worth 1% of a step.
The batch is chosen on the spot, so that on any machine a step without clipping
takes 1.5 ms (MLP) and 15 ms (CNN).

Training: a regression with heavy-tailed targets, a few batches of which are
corrupted: some make huge gradients, some NaN. A step is damaged if the loss on
clean data is 10 times as high after it as before it, or not finite.
"""

import argparse
import os
import pathlib
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import numpy as np
import page
import tensorflow as tf

from stablekeras import optimizers

PICTURE = pathlib.Path(__file__).parents[1] / "docs/assets/clipping.png"


def mlp(batch):
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((256,)),
            layers.Dense(256, "relu"),
            layers.Dense(256, "relu"),
            layers.Dense(10),
        ]
    )
    return model, (batch, 256)


def cnn(batch):
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, "relu"),
            layers.Dense(10),
        ]
    )
    return model, (batch, 28, 28, 1)


# How long a step without clipping is to take, in seconds.
DURATIONS = {mlp: 1.5e-3, cnn: 15e-3}


def measure_cost(rounds, models):
    adam = keras.optimizers.Adam
    variants = {
        "none": lambda: adam(1e-4),
        "Keras": lambda: adam(1e-4, global_clipnorm=1.0),
        "ours": lambda: optimizers.ClippedOptimizer(
            adam(1e-4), global_clipnorm=1.0
        ),
    }
    table = page.Table(
        "model",
        "XLA",
        "batch",
        "no clipping",
        "Keras `global_clipnorm`",
        "`ClippedOptimizer`",
        "ratio of the last two",
    )
    order = np.random.default_rng(0)
    for build, steps in ((mlp, 4 * rounds), (cnn, rounds)):
        if build.__name__ not in models:
            continue
        for jit_compile in (True, False):
            names = list(variants)
            batch = fitting_batch(build, variants["none"], jit_compile)
            runs = [
                (name, *prepared(build, batch, variants[name](), jit_compile))
                for name in [*names, *reversed(names)]
            ]
            seconds = {name: np.zeros(steps) for name in names}
            for i in range(steps):
                # Whoever comes after a given one is another each round.
                for place in order.permutation(len(runs)):
                    name, *run = runs[place]
                    seconds[name][i] += timed(*run) / 2
            medians = [
                f"{1e3 * statistics.median(x):.2f} ms" for x in seconds.values()
            ]
            ratios = np.divide(seconds["ours"], seconds["Keras"])
            low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
            table.row(
                build.__name__.upper(),
                "yes" if jit_compile else "no",
                batch,
                *medians,
                f"**{middle:.2f}** [{low:.2f}, {high:.2f}]",
            )
    return table


def fitting_batch(build, make_optimizer, jit_compile):
    """Returns the batch whose step takes about the duration wanted."""
    batch = 64
    for _ in range(3):
        run = prepared(build, batch, make_optimizer(), jit_compile)
        seconds = statistics.median(timed(*run) for _ in range(25))
        batch = max(8, round(batch * DURATIONS[build] / seconds / 8) * 8)
    return batch


def prepared(build, batch, optimizer, jit_compile):
    keras.utils.set_random_seed(0)
    model, shape = build(batch)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit_compile)
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    data = tf.data.Dataset.from_tensors((x, np.arange(shape[0]) % 10)).repeat()
    iterator = iter(data.prefetch(2))
    model.make_train_function()
    for _ in range(10):
        model.train_function(iterator)
    return model.train_function, iterator


def timed(function, iterator, repeats=4):
    start = time.perf_counter()
    for _ in range(repeats):
        logs = function(iterator)
    float(logs["loss"])
    return (time.perf_counter() - start) / repeats


STEPS, BATCH = 600, 32
BAD_STEPS = {150: "nan", 220: 1e3, 300: 1e6, 301: 1e6, 420: 1e12, 500: "nan"}


def training_data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS * BATCH, 16)).astype("float32")
    truth = np.tanh(x @ rng.standard_normal((16, 1))) * 2
    # Student's t with 2 degrees of freedom: no finite variance.
    y = (truth + 0.1 * rng.standard_t(2, truth.shape)).astype("float32")
    for step, kind in BAD_STEPS.items():
        rows = slice(step * BATCH, step * BATCH + 4)
        if kind == "nan":
            x[rows] = np.nan
        else:
            y[rows] *= kind
    clean = rng.standard_normal((2000, 16)).astype("float32")
    weights = np.random.default_rng(0)
    weights.standard_normal((STEPS * BATCH, 16))
    target = np.tanh(clean @ weights.standard_normal((16, 1))) * 2
    return x, y, clean, target.astype("float32")


def compare_rules():
    sgd = lambda: keras.optimizers.SGD(0.05, momentum=0.9)  # noqa: E731
    wrapped = lambda clip: optimizers.ClippedOptimizer(sgd(), clip)  # noqa: E731
    variants = {
        "none, Keras": sgd,
        "`global_clipnorm=1.0`, Keras": lambda: keras.optimizers.SGD(
            0.05, momentum=0.9, global_clipnorm=1.0
        ),
        "none, bad steps skipped": lambda: wrapped(None),
        "`GlobalNorm(1.0)`": lambda: wrapped(optimizers.GlobalNorm(1.0)),
        "`Percentile(10)`": lambda: wrapped(optimizers.Percentile(10)),
        "`ZScore()`": lambda: wrapped(optimizers.ZScore()),
        "`AdaGC()`": lambda: wrapped(optimizers.AdaGC()),
        "`SpikeSkip()`": lambda: wrapped(optimizers.SpikeSkip()),
    }
    data = training_data()
    curves = {}
    table = page.Table(
        "rule", "final loss", "damaged steps", "skipped", "clip rate"
    )
    for name, make in variants.items():
        curve, report = train(make(), *data)
        curves[name] = curve
        before, after = curve[:-1], curve[1:]
        damaged = int(np.sum(~(after <= 10 * before)))
        rate = report.get("clip_rate")
        table.row(
            name,
            f"{curve[-1]:.3g}",
            damaged,
            report.get("skipped", "–"),
            "–" if rate is None else f"{rate:.2f}",
        )
    return table, curves


def train(optimizer, x, y, clean, target):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((16,)),
            keras.layers.Dense(32, "tanh"),
            keras.layers.Dense(1),
        ]
    )
    variables = model.trainable_variables
    optimizer.build(variables)

    def mse(inputs, wanted):
        error = tf.square(model(inputs, training=True) - wanted)
        return tf.reduce_mean(error)

    @tf.function
    def step(inputs, wanted):
        with tf.GradientTape() as tape:
            loss = mse(inputs, wanted)
            scaled = optimizer.scale_loss(loss)
        optimizer.apply(tape.gradient(scaled, variables), variables)
        return mse(clean, target)

    curve = [
        float(step(x[i : i + BATCH], y[i : i + BATCH]))
        for i in range(0, len(x), BATCH)
    ]
    report = getattr(optimizer, "report", dict)()
    return np.array(curve), report


def draw(curves):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, curve in curves.items():
        axes.plot(
            np.where(np.isfinite(curve), curve, np.nan),
            label=name.replace("`", ""),
            lw=1,
        )
    for step in BAD_STEPS:
        axes.axvline(step, color="0.8", zorder=0)
    axes.set(
        yscale="log",
        ylim=(1e-3, 1e6),
        xlabel="step; corrupted batches are grey",
        ylabel="loss on clean data",
        title="Heavy-tailed regression with corrupted batches",
    )
    axes.legend(fontsize=8)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--models", nargs="+", default=["mlp", "cnn"])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    both = arguments.cost == arguments.training
    if arguments.cost or both:
        table = measure_cost(arguments.rounds, arguments.models)
        note = page.setting(
            f"{4 * arguments.rounds} rounds (MLP), {arguments.rounds} (CNN)",
            "medians, quartiles of the ratios in brackets",
        )
        print(note, end="\n\n")
        if arguments.write:
            page.write("clipping.cost", table, note)
    if arguments.training or both:
        table, curves = compare_rules()
        note = page.setting()
        print(note)
        if arguments.write:
            draw(curves)
            page.write("clipping.training", table, note)


if __name__ == "__main__":
    main()
