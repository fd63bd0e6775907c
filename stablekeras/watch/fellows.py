"""The other callbacks of a training, and what the watch owes to them."""

import inspect
import json
import logging
import os
import pathlib

import keras

__all__ = ["Fellows"]

# Beside Keras' backup of the training, and removed with it.
_COUNTS = "nan_watch.json"

_log = logging.getLogger("stablekeras")


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

    def _backups(self):
        for fellow in self._callbacks:
            if isinstance(fellow, keras.callbacks.BackupAndRestore):
                yield fellow

    def keep_backups(self):
        """Keeps the backup of a training that did not end well."""
        for fellow in self._backups():
            self._kept.append((fellow, fellow.delete_checkpoint))
            fellow.delete_checkpoint = False

    def save_counts(self, epoch, counts):
        """Keeps what was counted before `epoch` beside Keras' backup.

        Args:
            epoch: The epoch that comes next.
            counts: Dictionary of numbers.
        """
        for fellow in self._backups():
            path = pathlib.Path(fellow.backup_dir) / _COUNTS
            # Keras' own backup may be that of this epoch or of the last one.
            last = list(_read(path).items())[-1:]
            text = json.dumps(dict([*last, (str(epoch), counts)]))
            partial = path.with_suffix(f".{os.getpid()}")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                partial.write_text(text, encoding="utf-8")
                os.replace(partial, path)
            except OSError as error:
                _log.warning(
                    "The backup's folder must be writable. Received: %s. "
                    "A resumed training will count skips from 0.",
                    error,
                )

    def saved_counts(self):
        """Returns the counts that belong to Keras' backup, if there is one."""
        for fellow in self._backups():
            folder = pathlib.Path(fellow.backup_dir)
            counts = _read(folder / _COUNTS)
            epoch = _read(folder / "training_metadata.json").get("epoch")
            found = counts.get(str(epoch))
            if isinstance(found, dict):
                return found
        return {}

    def give_back(self):
        """Makes every callback what it was."""
        for fellow, value in self._kept:
            fellow.delete_checkpoint = value
        self._kept = []


def _read(path):
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
