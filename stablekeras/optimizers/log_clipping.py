"""What a `ClippedOptimizer` does, in the logs of a training."""

from typing import Any

import keras

from stablekeras.optimizers.clipped_optimizer import ClippedOptimizer

__all__ = ["LogClipping", "clipping_logs", "find_clipped_optimizer"]


def find_clipped_optimizer(optimizer):
    """Returns the `ClippedOptimizer` in a chain of wrappers, or `None`."""
    while optimizer is not None and not isinstance(optimizer, ClippedOptimizer):
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return optimizer


def clipping_logs(optimizer):
    """Returns what a training's logs say about clipping.

    Args:
        optimizer: The optimizer of a model, with wrappers if it has any.

    Returns:
        Dictionary of floats: `grad_norm`, the norm of the last committed
        gradient before clipping; `clip_rate`, the share of updates clipped so
        far; `skipped_steps`, their number so far. Empty if there is no
        `ClippedOptimizer`.
    """
    optimizer = find_clipped_optimizer(optimizer)
    if optimizer is None:
        return {}
    report = optimizer.report()
    return {
        "grad_norm": report["grad_norm"],
        "clip_rate": report["clip_rate"],
        "skipped_steps": float(report["skipped"]),
    }


@keras.saving.register_keras_serializable(package="stablekeras")
class LogClipping(keras.callbacks.Callback):
    """Shows what a `ClippedOptimizer` does, while a training runs.

    Adds `grad_norm`, `clip_rate` and `skipped_steps` to the logs, and so to
    the progress bar and to `History`; also to `CSVLogger` and `TensorBoard`,
    if these come after it in the list of callbacks. After each batch it
    raises what a compiled step could not raise itself. A `LossScaleOptimizer`,
    which `compile` puts around the optimizer under mixed precision, keeps the
    loss to itself; with this callback `SpikeSkip` sees it all the same. What
    a `LossScaleOptimizer` skips itself is not among `skipped_steps`.

    Raises:
        NonFiniteError: In `fit`, see `nonfinite` of `ClippedOptimizer`.
        TooManySkipsError: In `fit`, see `max_consecutive_skips` there.

    Example:
    >>> import keras, numpy, stablekeras
    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> model.compile(
    ...     stablekeras.optimizers.ClippedOptimizer(
    ...         keras.optimizers.SGD(), global_clipnorm=1.0
    ...     ),
    ...     "mse",
    ... )
    >>> history = model.fit(
    ...     numpy.ones((4, 2)), numpy.ones((4, 1)), verbose=0,
    ...     callbacks=[stablekeras.optimizers.LogClipping()],
    ... )
    >>> history.history["skipped_steps"]
    [0.0]
    """

    def set_model(self, model):
        """Takes the model; shows its losses to the optimizer."""
        super().set_model(model)
        outer: Any = getattr(model, "optimizer", None)
        clipped = find_clipped_optimizer(outer)
        if clipped is not None and clipped is not outer:
            scale = type(outer).scale_loss

            def scale_loss(loss):
                clipped.see_loss(loss)
                return scale(outer, loss)

            outer.scale_loss = scale_loss

    def on_train_batch_end(self, batch, logs=None):
        """Adds to the logs of a batch; raises what is to be raised."""
        optimizer = find_clipped_optimizer(self.model.optimizer)
        if optimizer is not None:
            optimizer.check()
        self._add(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Adds to the logs of an epoch."""
        self._add(logs)

    def _add(self, logs):
        if logs is None:
            return
        # A NaNWatch before us has counted more: what the optimizer never saw.
        for name, value in clipping_logs(self.model.optimizer).items():
            logs.setdefault(name, value)

    def get_config(self):
        """Returns the arguments of the constructor: none."""
        return {}
