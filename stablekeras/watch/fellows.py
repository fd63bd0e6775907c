"""The other callbacks of a training, and what the watch owes to them."""

import inspect

import keras

__all__ = ["Fellows"]


class Fellows:
    """The callbacks that run beside a watch.

    Args:
        callback: The watch, inside its `on_train_begin`; `None` for a
            hand-written loop, which has no callbacks.
    """

    def __init__(self, callback):
        self._callbacks = [] if callback is None else _beside(callback)
        params = getattr(callback, "params", None) or {}
        # 0 is silent, 2 is a line an epoch.
        self._shows_batches = params.get("verbose", 0) not in (0, 2) or any(
            isinstance(c, keras.callbacks.TensorBoard) for c in self._callbacks
        )
        self._kept = []

    def read_batches(self):
        """Returns whether anyone shows the logs of single batches."""
        return self._shows_batches

    def keep_backups(self):
        """Keeps the backup of a training that did not end well."""
        for fellow in self._callbacks:
            if isinstance(fellow, keras.callbacks.BackupAndRestore):
                self._kept.append((fellow, fellow.delete_checkpoint))
                fellow.delete_checkpoint = False

    def give_back(self):
        """Makes every callback what it was."""
        for fellow, value in self._kept:
            fellow.delete_checkpoint = value
        self._kept = []


def _beside(callback):
    """Returns the callbacks of the same training, from the caller's list."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList) and any(
            c is callback for c in owner.callbacks
        ):
            return owner.callbacks
        frame = frame.f_back
    return []
