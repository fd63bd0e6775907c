"""Drive a watched train function: go on past a refused step, or leave.

chunk ran through ───────────────► its logs, as Keras' own function
a step was refused ─► suspect? ─► tried for real: it may be good after all
└► listeners ─► go on with the rest of the chunk, leave
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stablekeras.graphs import train_function
from stablekeras.watch.records import SUSPECT, Trip, tripped

__all__ = ["WatchedFunction"]


class WatchedFunction:
    """Stands in for `model.train_function` while it is armed.

    Args:
        model: The compiled model.
        transaction: Runs one step; returns facts and logs.
        trial: The same, judging by what the update wrote; `None` for a step
            that updates nothing.
        name: Attribute of the model that this stands in for.
    """

    def __init__(self, model, transaction, trial, name="train_function"):
        self._model = model
        self._name = name
        self._steps = model.steps_per_execution
        self.transaction = transaction
        self._step = train_function.compile_step(model, transaction)
        self._chunk, self._trace = train_function.run_chunk(
            model, self._step, self._steps
        )
        self._trial = trial and train_function.compile_step(model, trial)
        self._bare: Any = None
        self._armed_in = None
        self._listeners = []
        self._permanent = False

    def fits(self):
        """Returns whether the model still runs the steps compiled here."""
        return self._steps == self._model.steps_per_execution

    def arm(self, listener, permanent=False):
        """Installs this function for the next call, or until `disarm`.

        Args:
            listener: Told and asked: `before(function, iterator)`,
                `committed(steps, logs, overflows, gradient_norm)`, the norm
                that of the last step or `None`;
                `trip(trip) -> "go on" | "leave"`; `fallback() -> logs`.
            permanent: Whether to stay installed after a call.
        """
        if self._listeners:
            self._listeners.append(listener)
            return
        self._listeners = [listener]
        self._permanent = permanent
        self._armed_in = getattr(self._model, "history", None)
        self._bare = train_function.swap(self._model, self, self._name)

    def disarm(self, listener=None):
        """Gives the model its own train function back.

        Args:
            listener: The only one that lets go, unless it is the last.
        """
        self._listeners = [
            one
            for one in self._listeners
            if listener is not None and one is not listener
        ]
        if self._listeners:
            return
        if train_function.installed(self._model, self._name) is self:
            train_function.swap(self._model, self._bare, self._name)

    def __call__(self, iterator):
        """Runs a chunk of steps, as `model.train_function` does."""
        listeners = self._listeners
        stale = self._armed_in is not getattr(self._model, "history", None)
        if not self._permanent:
            # Armed for one call: whatever happens now leaves nothing behind.
            self.disarm()
            stale = stale or not train_function.is_iterator(iterator)
            if stale:  # That fit died before the call.
                return self._bare(iterator)
        if train_function.is_iterator(iterator):
            chunk = self._chunk
        else:
            chunk = self._python_chunk
        for listener in listeners:
            listener.before(self, iterator)
        return self._drive(chunk, iterator, listeners)

    def prepare(self, iterator):
        """Traces the step, which makes the variables it needs."""
        if train_function.is_iterator(iterator):
            self._trace(iterator)

    def _drive(self, chunk, iterator, listeners):
        done, logs = 0, None
        while done < self._steps:
            try:
                ran = chunk(iterator, self._steps - done)
            except (StopIteration, tf.errors.OutOfRangeError):
                if not done:
                    raise
                break
            refused = ran.facts[:, 0].any()
            done += ran.good
            if ran.good:
                logs = ran.logs
                norm = None if refused else _gradient_norm(ran.facts)
                for listener in listeners:
                    listener.committed(ran.good, logs, ran.overflows, norm)
            if not refused:
                break
            batch = ran.batch()
            facts = ran.facts
            if facts[:, 0].max() == SUSPECT:
                tried, tried_logs = self._trial(batch)
                facts = tried.numpy()
                if not facts[:, 0].any():
                    logs, done = tried_logs, done + 1
                    overflows = int(facts[:, 1].any())
                    for listener in listeners:
                        listener.committed(1, logs, overflows, None)
                    continue
                # A finite gradient whose update is not: the update is named.
                facts[:, 2:] = ran.facts[:, 2:]
            trip = _trip(done, facts, batch)
            answers = [listener.trip(trip) for listener in listeners]
            done += 1
            if "leave" in answers:
                break
        if logs is None:
            logs = listeners[0].fallback()
        return logs

    def _python_chunk(self, iterator, remaining):
        ran = train_function.Chunk(0, None, None, None, 0)
        for _ in range(remaining):
            try:
                data = next(iterator)
            except StopIteration:
                if ran.facts is None:
                    raise
                break
            facts, logs = self._step(data)
            ran.facts, ran.batch = facts.numpy(), lambda data=data: data
            if ran.facts[:, 0].any():
                break
            ran.logs = logs
            ran.good += 1
            ran.overflows += int(ran.facts[:, 1].any())
        return ran


def _gradient_norm(facts):
    # Replicas hold a share of the gradient each; its sum is not known here.
    norm = float(np.sqrt(2.0 * facts[0, 3])) if len(facts) == 1 else np.nan
    return norm if np.isfinite(norm) else None


def _trip(offset, facts, batch):
    bits = int(facts[:, 0].max())
    first = int(facts[0, 4])
    return Trip(
        offset=offset,
        tripped=tripped(bits),
        batch=keras.tree.map_structure(lambda x: x, batch),
        loss=float(facts[:, 2].mean()),
        gradient_norm=float(np.sqrt(2.0 * facts[:, 3].sum())),
        replica=first - 1 if first else None,
    )
