"""Guard `train_on_batch` and hand-written loops.

In a hand-written loop nobody says where a step begins. Here it ends with
`optimizer.apply`: the update is made only if gradients and statistics are
finite, and a copy of the statistics (BatchNorm, seeds) as they were after the
last good update undoes what the forward pass of a refused step did to them.

The judging is done by the `Gate` of each optimizer; what is here is told of
what it refused, and asks the watch what to do.
"""

import contextlib
import warnings

import keras
import numpy as np
import tensorflow as tf

from stablekeras.graphs import learning_rate
from stablekeras.graphs.replaced import replaced_attribute
from stablekeras.watch.gate import ENTERED, OVERFLOW, counter, gate_of
from stablekeras.watch.records import Trip, tripped

__all__ = ["ManualGuard"]


class _LeaveBlock(BaseException):
    """Ends the guarded block; `except Exception` in a loop lets it pass."""


class ManualGuard(contextlib.AbstractContextManager):
    """The context manager of `NaNWatch.guard`.

    Args:
        watch: The `NaNWatch`: `trip_at`, `step_begins`, `steps_committed`
            and others are called on it.
        model: The Keras model.
        optimizer: An optimizer, a list of them, or `None` for the model's.

    Raises:
        ValueError: If there is no optimizer to watch.
    """

    def __init__(self, watch, model, optimizer=None):
        found = keras.tree.flatten(optimizer) if optimizer is not None else []
        if not found and getattr(model, "optimizer", None) is not None:
            found = [model.optimizer]
        if not found or not all(
            isinstance(o, keras.optimizers.Optimizer) for o in found
        ):
            raise ValueError(
                "guard needs a Keras optimizer to watch. Received: "
                f"optimizer={optimizer!r}. Pass the optimizer whose `apply` "
                "the loop calls, or compile the model with one."
            )
        self._watch = watch
        self._model = model
        self.optimizers = found
        self.gates = [gate_of(o) for o in found]
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        """Puts the guard in; nothing is traced yet."""
        if self in ENTERED:
            raise RuntimeError(
                "A guarded block must be left before it is entered again. "
                "Received: the same guard twice. Call watch.guard for each "
                "`with`."
            )
        for block in ENTERED:
            block.check()  # What is theirs is told before this one begins.
        watch, model = self._watch, self._model
        watch.set_model(model)
        watch.begin_block(self)
        if watch.action == "rollback":
            learning_rate.make_scalable(self.optimizers)
        self._leaving = None
        self._batches = 0
        self._first = int(counter().numpy())
        self._told = 0  # Steps of which the watch has heard.
        with contextlib.ExitStack() as stack:
            for optimizer, gate in zip(
                self.optimizers, self.gates, strict=True
            ):
                apply = gate.guarded(optimizer, model)
                stack.enter_context(
                    replaced_attribute(optimizer, "apply", apply)
                )
                gate.shut(True)
            stack.callback(self._open_gates)
            if model.compiled and hasattr(model, "make_train_function"):
                model.make_train_function()
                watched = watch.watched("train_function")
                listener = _Batches(self)
                watched.arm(listener, permanent=True)
                stack.callback(watched.disarm, listener)
            self._begun = self._done()
            watch.step_begins(self, 0)
            ENTERED.append(self)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, traceback):
        """Takes the guard out, and ends a block that was left on purpose."""
        ENTERED.remove(self)
        self._stack.close()
        if kind is None:
            self._tell_of_unguarded_steps()
            with contextlib.suppress(_LeaveBlock):
                self._hear_late(may_roll_back=False)
            return False
        if isinstance(error, _LeaveBlock):
            return error is self._leaving
        if self._leaving is not None and isinstance(error, tf.errors.OpError):
            # What was raised inside a graph comes out as TensorFlow's own.
            if isinstance(self._leaving, _LeaveBlock):
                return True
            raise self._leaving from None
        return False

    def check(self):
        """Handles steps that were refused inside a jit-compiled function.

        XLA cannot call the host; such steps are refused at once but reported
        only here: at the next call of `check`, or when the block ends.
        """
        self._hear_late(may_roll_back=True)
        step = int(counter().numpy()) - self._first
        self._committed_until(step)
        # To return to, from here on.
        self._watch.step_begins(self, step, as_epoch=True)

    def _hear_late(self, may_roll_back):
        late = [facts for gate in self.gates for facts in gate.take_pending()]
        for bits, number, norm in sorted(late, key=lambda facts: facts[1]):
            self.refused(bits, number, norm, may_roll_back)
        if late:
            self.leave_if_told()

    def _open_gates(self):
        for gate in self.gates:
            gate.shut(any(gate in block.gates for block in ENTERED))

    def _done(self):
        return [
            (int(keras.ops.convert_to_numpy(o.iterations)), gate.passed())
            for o, gate in zip(self.optimizers, self.gates, strict=True)
        ]

    def _tell_of_unguarded_steps(self):
        if self._batches:  # Steps of `train_on_batch` pass no gate.
            return
        for optimizer, begun, now in zip(
            self.optimizers, self._begun, self._done(), strict=True
        ):
            bare = now[0] - begun[0] - (now[1] - begun[1])
            if bare > 0:
                warnings.warn(
                    "Steps of a guarded block must be traced inside of it. "
                    f"Received: {bare} steps of {type(optimizer).__name__} "
                    "that were not guarded. Call the tf.function for the "
                    "first time in the block, or make it anew there.",
                    stacklevel=3,
                )

    # The interface of a transaction that a snapshot asks for.

    @property
    def transaction(self):
        """Stands for the transaction where a whole step is traced."""
        return self

    @property
    def written(self):
        """Further variables a step writes: not known in a loop."""
        return []

    def prepare(self, iterator):
        """Nothing can be traced ahead in a hand-written loop."""

    # What a gate tells.

    def begins(self, number):
        """Told that an eager step is tried, and its number of all."""
        step = number - self._first
        self._committed_until(step)
        self._watch.step_begins(self, step)

    def refused(self, bits, number, norm, may_roll_back=True):
        """Told of a refused step; returns whether the loop may go on."""
        step = int(number) - self._first
        self._committed_until(step)
        if int(bits) == OVERFLOW:
            self._watch.overflows += 1
            return True
        self._told = step + 1
        trip = Trip(
            offset=0,
            tripped=tripped(bits),
            batch=None,
            loss=0.0,
            gradient_norm=float(norm),
        )
        self.ask(trip, step, may_roll_back)
        return self._leaving is None

    def _committed_until(self, step):
        if step > self._told:
            self._watch.steps_committed(step - self._told)
            self._told = step

    def ask(self, trip, step, may_roll_back=True):
        """Asks the watch what to do; notes when the block is to be left."""
        try:
            answer = self._watch.trip_at(trip, step, may_roll_back)
            if answer == "leave":
                self._leaving = _LeaveBlock()
        except Exception as error:
            self._leaving = error

    # What `train_on_batch` tells.

    def next_batch(self):
        """Returns the number of the step that `train_on_batch` begins."""
        number = int(counter().numpy())
        if ENTERED[-1] is self:  # Of nested blocks one counts.
            counter().assign_add(1)
        step = number - self._first
        self._committed_until(step)
        self._told = step + 1
        self._batches += 1
        return step

    def batch_ended(self):
        """Told of a step of `train_on_batch` or `fit` that was committed."""
        for gate in self.gates:
            gate.refresh()

    def leave_if_told(self):
        """Leaves the block where the watch said so."""
        if self._leaving is not None:
            raise self._leaving


class _Batches:
    """Listens to `train_on_batch`."""

    def __init__(self, guard):
        self._guard = guard
        self._watch = guard._watch
        self._step = 0

    def before(self, function, iterator):
        self._step = self._guard.next_batch()
        self._watch.step_begins(function, self._step, iterator=iterator)

    def committed(self, steps, logs, overflows, gradient_norm=None):
        self._watch.committed(steps, logs, overflows, gradient_norm)
        self._guard.batch_ended()

    def fallback(self):
        # Keras begins its means anew for each batch; that of none is not 0.
        return dict.fromkeys(self._watch.fallback(), np.nan)

    def trip(self, trip):
        self._guard.ask(trip, self._step)
        self._guard.leave_if_told()
        return "go on"
