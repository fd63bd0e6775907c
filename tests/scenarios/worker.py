"""One process of a training that `test_workers.py` starts; prints one line.

python -m tests.scenarios.worker '{"index": 1, "ports": [7000, 7001], ...}'

Without ports it is a training on one device, over the same global batches.
"""

import contextlib
import json
import os
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

GLOBAL_BATCH = 12
STEPS = 4


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _strategy(index, ports):
    import tensorflow as tf

    if not ports:
        return None
    os.environ["TF_CONFIG"] = json.dumps(
        {
            "cluster": {"worker": [f"127.0.0.1:{p}" for p in ports]},
            "task": {"type": "worker", "index": index},
        }
    )
    return tf.distribute.MultiWorkerMirroredStrategy()


def _product(y_true, y_pred):
    # Its gradient is y_true times what is finite, whatever y_true is.
    import keras

    return keras.ops.mean(y_true * y_pred, axis=-1)


def _model(steps_per_execution, norm, plain):
    import keras

    from stablekeras.optimizers import ClippedOptimizer, GlobalNorm, ZScore

    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(6, activation="tanh"),
        *([keras.layers.BatchNormalization()] if norm else []),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.Adam(1e-2)
    if not plain:
        optimizer = ClippedOptimizer(
            optimizer, [ZScore(warmup=2), GlobalNorm(0.5)]
        )
    model.compile(
        optimizer,
        _product if plain else "mse",
        steps_per_execution=steps_per_execution,
    )
    # Keras cannot reduce one worker's batch to a symbolic one; what it would
    # build from it is built here.
    model.optimizer.build(model.trainable_variables)
    model._maybe_symbolic_build = lambda **kwargs: None
    return model


def main(
    index=0,
    ports=(),
    bad=(),
    huge=(),
    epochs=2,
    directory=None,
    backup=None,
    kill=None,
    steps_per_execution=1,
    norm=False,
    plain=False,
    action="skip",
):
    """Trains; rows `bad` of the data are NaN; `kill` is (epoch, step)."""
    strategy = _strategy(index, ports)
    import keras
    import numpy as np

    from stablekeras import NaNWatch
    from stablekeras.watch import investigate

    rng = np.random.default_rng(0)
    x = rng.normal(size=(GLOBAL_BATCH * STEPS, 4)).astype("float32")
    y = x[:, :1] * 2.0
    for row in bad:
        x[row, 1] = np.nan
    for row in huge:
        y[row] = 1e21  # Its gradient is finite, the square of that is not.
    if kill == "explaining":
        investigate.replay.replay_step = lambda *args: _die()

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_begin(self, batch, logs=None):
            if [self.epoch, batch] == kill:
                _die()

    with strategy.scope() if strategy else contextlib.nullcontext():
        model = _model(steps_per_execution, norm, plain)
    watch = NaNWatch(action, directory=directory)
    callbacks = [watch, Kill()]
    if backup:
        callbacks.append(keras.callbacks.BackupAndRestore(backup))
    history = model.fit(
        x,
        y,
        batch_size=GLOBAL_BATCH,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    result = {
        "incidents": [
            {
                "epoch": i.epoch,
                "step": i.step,
                "replica": i.replica,
                "worker": i.worker,
                "tripped": i.tripped,
                "path": i.path,
                "rows": len(i.batch[0]) if i.batch else None,
                "code": i.diagnosis and i.diagnosis.code,
                "samples": i.diagnosis and i.diagnosis.samples,
            }
            for i in watch.incidents
        ],
        "skipped": watch.skipped,
        "loss": history.history["loss"],
        "iterations": int(model.optimizer.iterations.numpy()),
        "finite": all(bool(np.isfinite(w).all()) for w in model.get_weights()),
        "report": None if plain else model.optimizer.report(),
        "weights": [
            np.asarray(v.value, "float64").tolist()
            for v in [*model.trainable_variables, *model.optimizer.variables]
        ],
    }
    print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
