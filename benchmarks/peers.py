"""What guards cost in PyTorch and JAX, beside ours: each by its own bare step.

    .venv-peers/bin/python benchmarks/peers.py [--rounds 15] [--seconds 0.3]
        [--models small large] [--write]

Needs torch, jax and optax: `make bench-peers` makes such an environment. The
same MLP, Adam, cross-entropy from logits, float32, one thread. All variants of
a model live in one process and take turns; each round gives one ratio to the
bare step of the same framework. Absolute times of different frameworks are not
comparable here, and are not compared: Keras runs `fit` with its logs, the
others a bare loop. Times are processor time, which does not count what other
programs take.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
)

import jax
import keras
import numpy as np
import optax
import page
import tensorflow as tf
import torch
from jax import numpy as jnp

import stablekeras

torch.set_num_threads(1)

INPUTS, CLASSES, RATE = 64, 10, 1e-4
# name: width of the two hidden layers, batch
MODELS = {"small": (256, 128), "large": (640, 512)}


def data(batch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, INPUTS)).astype("float32")
    return x, rng.integers(0, CLASSES, batch)


def keras_steps(width, batch, guard):
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((INPUTS,)),
            layers.Dense(width, activation="relu"),
            layers.Dense(width, activation="relu"),
            layers.Dense(CLASSES),
        ]
    )
    optimizer = keras.optimizers.Adam(RATE)
    callbacks = []
    if guard == "clip":
        optimizer = keras.optimizers.Adam(RATE, global_clipnorm=1.0)
    if guard in ("watch", "watch and clip"):
        callbacks = [stablekeras.NaNWatch("skip", directory=None, verbose=0)]
    if guard == "watch and clip":
        optimizer = stablekeras.optimizers.ClippedOptimizer(
            optimizer, global_clipnorm=1.0
        )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
    batches = tf.data.Dataset.from_tensors(data(batch)).repeat()

    def run(steps):
        model.fit(
            batches,
            steps_per_epoch=steps,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )

    return run


def torch_steps(width, batch, guard):
    nn = torch.nn
    model = nn.Sequential(
        nn.Linear(INPUTS, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, CLASSES),
    )
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    x, y = map(torch.from_numpy, data(batch))
    cross_entropy = nn.functional.cross_entropy

    def run(steps):
        with torch.autograd.set_detect_anomaly(guard == "anomaly"):
            for _ in range(steps):
                optimizer.zero_grad()
                loss = cross_entropy(model(x), y)
                loss.backward()
                if guard == "clip":
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
        loss.item()

    return run


def jax_steps(width, batch, guard):
    sizes = (INPUTS, width, width, CLASSES)
    keys = jax.random.split(jax.random.key(0), 3)
    weights = [
        (jax.random.normal(key, (m, n)) / np.sqrt(m), jnp.zeros(n))
        for key, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    optimizer = optax.adam(RATE)
    if "clip" in guard:
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optimizer)
    if "finite" in guard:
        optimizer = optax.apply_if_finite(optimizer, max_consecutive_errors=5)
    x, y = map(jnp.asarray, data(batch))

    def loss_of(weights):
        z = x
        for w, b in weights[:-1]:
            z = jax.nn.relu(z @ w + b)
        w, b = weights[-1]
        losses = optax.softmax_cross_entropy_with_integer_labels(z @ w + b, y)
        return losses.mean()

    @jax.jit
    def step(weights, state):
        loss, slopes = jax.value_and_grad(loss_of)(weights)
        updates, state = optimizer.update(slopes, state, weights)
        return optax.apply_updates(weights, updates), state, loss

    held = [weights, optimizer.init(weights)]

    def run(steps):
        with jax.debug_nans(guard == "debug_nans"):
            for _ in range(steps):
                *held[:], loss = step(*held)
        float(loss)

    return run


# framework: how to make its steps, the guards by their names on the page
PEERS = {
    "Keras on TensorFlow": (
        keras_steps,
        {
            "watch": "`NaNWatch`",
            "watch and clip": "`NaNWatch` + `ClippedOptimizer`",
            "clip": "`global_clipnorm`",
        },
    ),
    "PyTorch": (
        torch_steps,
        {
            "anomaly": "`autograd.set_detect_anomaly`",
            "clip": "`clip_grad_norm_`",
        },
    ),
    "JAX and optax": (
        jax_steps,
        {
            "finite": "`apply_if_finite`",
            "finite and clip": "`apply_if_finite`, `clip_by_global_norm`",
            "clip": "`clip_by_global_norm`",
            "debug_nans": "`jax_debug_nans`",
        },
    ),
}


def timed(run, steps):
    start = time.process_time()
    run(steps)
    return (time.process_time() - start) / steps


def compare(make, guards, size, rounds, seconds):
    """The bare step's median seconds, and quartiles of each guard's ratio."""
    runs = {guard: make(*size, guard) for guard in ("bare", *guards)}
    for run in runs.values():
        timed(run, 10)
    steps = max(5, int(seconds / timed(runs["bare"], 20)))
    times = {guard: [] for guard in runs}
    for round_ in range(rounds):
        order = list(runs)
        shift = round_ % len(order)
        for guard in order[shift:] + order[:shift]:
            times[guard].append(timed(runs[guard], steps))
    bare = np.asarray(times["bare"])
    return np.median(bare), {
        guard: np.quantile(np.asarray(times[guard]) / bare, [0.25, 0.5, 0.75])
        for guard in guards
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    table = page.Table("framework", "guard", *(f"{m} MLP" for m in args.models))
    for framework, (make, guards) in PEERS.items():
        found = [
            compare(make, guards, MODELS[m], args.rounds, args.seconds)
            for m in args.models
        ]
        bare = (f"bare: {1e3 * seconds:.2f} ms" for seconds, _ in found)
        table.row(framework, "none", *bare)
        for guard, title in guards.items():
            quartiles = (ratios[guard] for _, ratios in found)
            table.row(
                "",
                title,
                *(
                    f"**{m:.2f}** [{lo:.2f}, {hi:.2f}]"
                    for lo, m, hi in quartiles
                ),
            )
    note = page.setting(
        f"{args.rounds} rounds of {args.seconds:g} s",
        "medians, quartiles in brackets",
        packages=("keras", "tensorflow", "torch", "jax", "optax"),
    )
    print(note)
    if args.write:
        page.write("peers", table, note)


if __name__ == "__main__":
    main()
