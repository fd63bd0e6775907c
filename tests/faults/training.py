"""Train one setting again and again, from a state and with data of a seed."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from stablekeras import optimizers
from tests.faults.draw import BATCH, EPOCHS, STEPS
from tests.faults.injection import HEALTHY, Sabotage, row
from tests.faults.kinds import KINDS

__all__ = [
    "Training",
    "batches",
    "differing",
    "infected",
    "nonfinite",
    "values",
    "variables",
]


def _optimizer(name):
    if name == "clipped":
        return optimizers.ClippedOptimizer(
            keras.optimizers.Adam(1e-2), global_clipnorm=1.0
        )
    if name == "sgd":
        return keras.optimizers.SGD(1e-2, momentum=0.9)
    optimizer = keras.optimizers.get(name)
    optimizer.learning_rate = 1e-2 if name != "lion" else 1e-3
    return optimizer


class Training:
    """A compiled model that can be put back to where a seed begins.

    Args:
        setting: The `Setting`.
        plain: Whether to make the peer that judges: Keras alone on one
            device, one step a call, and without a `ClippedOptimizer`, which
            would keep the fault from the weights.
    """

    def __init__(self, setting, plain=False):
        self.setting = setting
        self.kind = KINDS[setting.kind]
        scope = contextlib.nullcontext()
        if setting.replicas > 1 and not plain:
            scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
        name = setting.optimizer
        if plain and name == "clipped":
            name = "adam"
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(setting.precision)
        try:
            with scope:
                keras.utils.set_random_seed(0)
                self.model = self.kind.build()
                optimizer = _optimizer(name)
                if setting.precision == "mixed_float16":
                    optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
                self.model.compile(
                    optimizer,
                    self.kind.loss,
                    jit_compile=setting.jit,
                    steps_per_execution=1 if plain else setting.steps,
                )
                optimizer.build(self.model.trainable_variables)
        finally:
            keras.config.set_dtype_policy(before)
        self._start = [np.array(v.numpy()) for v in variables(self.model)]

    def reset(self, seed, scale):
        """Goes back to the beginning: weights of the seed, fresh slots."""
        rng = np.random.default_rng([*seed, 1])
        trainable = {id(v) for v in self.model.trainable_variables}
        for v, start in zip(variables(self.model), self._start, strict=True):
            if id(v) in trainable:
                noise = rng.normal(size=start.shape)
                start = start * (1.0 + 0.1 * noise).astype(start.dtype)
            v.assign(start)
        if self.setting.precision == "mixed_float16":
            self.model.optimizer.dynamic_scale.assign(scale)

    def fit(self, epochs, callbacks=(), first=0):
        """Trains on epochs that are lists of batches; returns History."""
        feed = _Feed(epochs, first)
        return self.model.fit(
            feed.dataset(),
            initial_epoch=first,
            epochs=first + len(epochs),
            shuffle=False,
            verbose=0,
            callbacks=[feed, *callbacks],
        ).history

    def sabotage(self, fault):
        """Returns the callback that writes the fault into a variable."""
        return Sabotage(
            lambda model: _write(model, fault), fault.epoch, fault.step
        )


class _Feed(keras.callbacks.Callback):
    """Gives `fit` other batches in every epoch."""

    def __init__(self, epochs, first):
        super().__init__()
        self._epochs = epochs
        self._first = self._epoch = first

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def dataset(self):
        def batches():
            yield from self._epochs[self._epoch - self._first]

        signature = tf.nest.map_structure(
            lambda a: tf.TensorSpec(a.shape, a.dtype),
            next(epoch[0] for epoch in self._epochs if epoch),
        )
        # Of an unknown number the last call, which finds no batch, may still
        # draw from a seed.
        return tf.data.Dataset.from_generator(
            batches, output_signature=signature
        ).apply(tf.data.experimental.assert_cardinality(len(self._epochs[0])))


def _write(model, fault):
    targets = model.trainable_variables
    if fault.place == "statistic":
        targets = [v for v in model.variables if "moving" in v.name]
    target = targets[fault.point % len(targets)]
    value = np.array(target.numpy())
    value.reshape(-1)[fault.unit % value.size] = float(fault.value)
    target.assign(value)


def batches(fault, places, healthy=False):
    """Returns the epochs of a fault: lists of batches.

    Args:
        fault: The `Fault`.
        places: Number of disturbances of the model.
        healthy: Whether to leave the fault out.
    """
    kind = KINDS[fault.setting.kind]
    rng = np.random.default_rng([*fault.seed, 2])
    epochs = []
    for _ in range(EPOCHS):
        epoch = []
        for _ in range(STEPS):
            x, y, weight = kind.rows(rng, BATCH)
            codes = np.tile(np.array(HEALTHY, "float32"), (BATCH, 1))
            epoch.append(({"x": x, "fault": codes}, y, weight))
        epochs.append(epoch)
    if not healthy and not fault.is_between:
        _spoil(epochs[fault.epoch][fault.step], fault, places)
    return epochs


def _spoil(batch, fault, places):
    x, y, weight = batch
    if fault.place in ("activation", "gradient"):
        place = 2 * (fault.point % (places // 2)) + 1
        place += fault.place == "gradient"
        for r in fault.rows:
            x["fault"][r] = row(place, fault.unit % 64, fault.value)
        return
    arrays = {"input": x["x"], "label": y, "sample weight": weight}
    array = arrays[fault.place]
    if isinstance(array, dict):
        array = array[sorted(array)[fault.point % len(array)]]
    flat = array.reshape(BATCH, -1)
    for r in fault.rows:
        flat[r, fault.unit % flat.shape[1]] = float(fault.value)


def variables(model):
    """Returns all that a step may change but metrics, in a fixed order."""
    found = [*model.variables, *model.optimizer.variables]
    known = {id(v) for v in found}
    optimizer = model.optimizer
    while optimizer is not None:
        # Nadam has a variable that it does not list.
        for v in vars(optimizer).values():
            if isinstance(v, keras.Variable) and id(v) not in known:
                known.add(id(v))
                found.append(v)
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return found


def values(model, metrics=False):
    """Returns copies of the values of `variables`."""
    found = variables(model)
    if metrics:
        found = found + [v for m in model.metrics for v in m.variables]
    return [np.array(v.numpy()) for v in found]


def nonfinite(states):
    """Returns a mask for each value, `None` where all is finite."""
    masks = []
    for value in states:
        mask = None
        if value.dtype.kind not in "iub":
            mask = ~np.isfinite(value.astype("float64"))
            mask = mask if mask.any() else None
        masks.append(mask)
    return masks


def infected(masks, allowed):
    """Returns whether a mask has an entry that `allowed` has not."""
    for mask, before in zip(masks, allowed, strict=True):
        if mask is not None and (before is None or (mask & ~before).any()):
            return True
    return False


def differing(a, b):
    """Returns the positions at which two states differ in any bit."""
    return [
        i
        for i, (p, q) in enumerate(zip(a, b, strict=True))
        if p.tobytes() != q.tobytes()
    ]
