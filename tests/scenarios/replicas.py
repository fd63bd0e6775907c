"""Run by the replica tests in processes of their own; prints one JSON line.

python -m tests.scenarios.replicas mirrored [--chunk] [--eager] [--plain]
python -m tests.scenarios.replicas workers INDEX PORT PORT
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

GLOBAL_BATCH = 8
BAD_STEP = 2
STEPS = 5


def _strategy(arguments):
    import tensorflow as tf

    if arguments[0] == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    index, *ports = arguments[1:4]
    os.environ["TF_CONFIG"] = json.dumps(
        {
            "cluster": {"worker": [f"127.0.0.1:{p}" for p in ports]},
            "task": {"type": "worker", "index": int(index)},
        }
    )
    return tf.distribute.MultiWorkerMirroredStrategy()


def main(arguments):
    """Trains on two replicas; the second one's rows hold a NaN at one step."""
    import keras
    import numpy as np

    from stablekeras import NaNWatch

    strategy = _strategy(arguments)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(GLOBAL_BATCH * STEPS, 4)).astype("float32")
    y = x[:, :1] * 2.0
    bad = "--clean" not in arguments
    rows = slice(GLOBAL_BATCH * BAD_STEP, GLOBAL_BATCH * (BAD_STEP + 1))
    if bad:
        x[rows.stop - 1, 1] = np.nan  # A row of the second replica.
    else:
        x, y = np.delete(x, rows, 0), np.delete(y, rows, 0)
    steps = 3 if "--chunk" in arguments else 1
    keras.utils.set_random_seed(0)
    with strategy.scope():
        optimizer = keras.optimizers.Adam(1e-2)
        if "--float16" in arguments:
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, initial_scale=8.0
            )
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(4, activation="tanh"),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(1),
            ]
        )
        model.compile(
            optimizer,
            "mse",
            metrics=["mae"] if arguments[0] == "mirrored" else None,
            steps_per_execution=steps,
            run_eagerly="--eager" in arguments,
        )
        if arguments[0] == "workers":
            # Keras cannot reduce one worker's batch to a symbolic one; what
            # it would build from it is built here.
            model.optimizer.build(model.trainable_variables)
            model._maybe_symbolic_build = lambda **kwargs: None
    watch = NaNWatch("skip", directory=None, verbose=0, diagnose=False)
    callbacks = [] if "--plain" in arguments else [watch]
    history = model.fit(
        x,
        y,
        batch_size=GLOBAL_BATCH,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )

    def values(variable):
        components = getattr(variable.value, "values", (variable.value,))
        return [v.numpy().tobytes().hex() for v in components]

    variables = [*model.variables, *model.optimizer.variables]
    result = {
        "incidents": [
            (i.epoch, i.step, i.replica, list(i.tripped))
            for i in watch.incidents
        ],
        "loss": history.history["loss"],
        "iterations": int(model.optimizer.iterations.numpy()),
        "finite": all(
            bool(np.isfinite(np.asarray(w, "float64")).all())
            for w in model.get_weights()
        ),
        "values": [values(v) for v in variables],
        # What all workers must agree on; BatchNorm statistics are each's own.
        "shared": [
            values(v)
            for v in [*model.trainable_variables, *model.optimizer.variables]
        ],
    }
    print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
