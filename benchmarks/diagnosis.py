"""What an incident costs: from the failing step to the printed report.

    python benchmarks/diagnosis.py [--models transformer cnn] [--write]

Each model trains for some steps in a process of its own; then comes a bad
batch: its loss is 0/0, a mean over a class that the batch does not hold, or a
row of its data is NaN, after which next to nothing is finite. Timed by
the clock from the call of `fit` with that batch to its return: the failing
step, the replay, the diagnosis, the screen and the folder with its page.
Memory: the largest resident size meanwhile, and during healthy steps, above
what the process held before the model was made. `--write` puts the table into
the docs.
"""

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import page

TITLES = {
    "transformer": "transformer, 12 blocks of width 256, batch 16 x 64",
    "cnn": "CNN, 3 blocks with BatchNorm, batch 32 x 32 x 32",
}
FAULTS = {"loss": "0/0 in the loss", "data": "NaN in a row of the data"}
# The most that is allowed: seconds, and times the memory of a step.
LIMITS = {"transformer": 30, "cnn": 5}
MEMORY_LIMIT = 3


def transformer(blocks=12, width=256, length=64):
    import keras
    from keras import layers

    inputs = layers.Input((length, width))
    x = inputs
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, width // 4, dropout=0.1)(y, y)
        y = layers.LayerNormalization()(x)
        y = layers.Dense(4 * width, activation="gelu")(y)
        x = x + layers.Dense(width)(y)
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(10)(x))
    return model, (16, length, width)


def cnn():
    import watch_overhead

    model, shape, _ = watch_overhead.cnn()
    return model, shape


def rare_class_loss(y_true, y_pred):
    """The mean over class 0: 0/0 in a batch without it."""
    from keras import ops

    log_p = ops.log_softmax(y_pred)[:, 0]
    chosen = ops.cast(ops.equal(y_true[:, 0], 0), log_p.dtype)
    return -ops.sum(log_p * chosen) / ops.sum(chosen)


def resident(field):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def forget_peak():
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def incident(name, fault, jit):
    """Returns seconds and memory of one incident."""
    import keras
    import numpy as np

    import stablekeras

    keras.utils.set_random_seed(0)
    keras.ops.convert_to_numpy(keras.ops.ones((8, 8)) @ keras.ops.ones((8, 8)))
    before = resident("VmRSS")
    model, shape = {"transformer": transformer, "cnn": cnn}[name]()
    model.compile("adam", rare_class_loss, jit_compile=jit)
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype("float32")
    y = np.arange(len(x))[:, None] % 10
    bad_x, bad_y = x.copy(), y
    if fault == "data":
        bad_x[3] = np.nan
    else:
        bad_y = np.maximum(y, 1)

    def fit(x, y, repeats, **settings):
        model.fit(
            np.tile(x, (repeats,) + (1,) * (x.ndim - 1)),
            np.tile(y, (repeats, 1)),
            batch_size=len(x),
            shuffle=False,
            verbose=0,
            **settings,
        )

    with tempfile.TemporaryDirectory() as folder:
        watch = stablekeras.NaNWatch("skip", directory=folder)
        fit(x, y, 3, callbacks=[watch])
        forget_peak()
        start = time.perf_counter()
        fit(x, y, 5, callbacks=[watch])
        step = (time.perf_counter() - start) / 5
        healthy = resident("VmHWM") - before
        forget_peak()
        start = time.perf_counter()
        fit(bad_x, bad_y, 1, callbacks=[watch])
        seconds = time.perf_counter() - start
        peak = resident("VmHWM") - before
    (found,) = watch.incidents
    return {
        "code": found.diagnosis.code,
        "step": step,
        "seconds": seconds,
        "healthy": healthy,
        "peak": peak,
    }


def child(*settings):
    environment = os.environ | {
        # What is freed goes back at once: the peak is of what is in use.
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    out = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(settings)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    ).stdout
    return json.loads(out.splitlines()[-1])


def main():
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(incident(*json.loads(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(TITLES))
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    table = page.Table(
        "model",
        "fault",
        "XLA",
        "found",
        "a step",
        "report after",
        "limit",
        "memory of a step",
        "of the incident",
        f"ratio (limit {MEMORY_LIMIT})",
    )
    for name in args.models:
        for fault, jit in itertools.product(FAULTS, (False, True)):
            one = child(name, fault, jit)
            table.row(
                TITLES[name],
                FAULTS[fault],
                "yes" if jit else "no",
                one["code"],
                f"{one['step'] * 1e3:.0f} ms",
                f"{one['seconds']:.1f} s",
                f"{LIMITS[name]} s",
                f"{one['healthy'] / 1e6:.0f} MB",
                f"{one['peak'] / 1e6:.0f} MB",
                f"{one['peak'] / one['healthy']:.2f}",
            )
    note = page.setting("one incident each")
    print(note)
    if args.write:
        page.write("diagnosis.cost", table, note)


if __name__ == "__main__":
    main()
