"""Guard `train_on_batch` and hand-written loops.

In a hand-written loop nobody says where a step begins. Here it ends with
`optimizer.apply`: the update is made only if gradients and statistics are
finite, and a copy of the statistics (BatchNorm, seeds) as they were after the
last good update undoes what the forward pass of a refused step did to them.

A `tf.function` that is traced inside of a block holds the guard for good. So
the guard of a model lives on for its next block, and is at rest in between.
"""

import contextlib
import warnings

import keras
import numpy as np
import tensorflow as tf

from stablekeras.graphs import resources
from stablekeras.graphs.apply_calls import (
    ensure_built,
    loss_scale,
    optimizer_variables,
)
from stablekeras.graphs.replaced import replaced_attribute
from stablekeras.graphs.sums import (
    half_square,
    presence,
    total_of,
    values,
)
from stablekeras.graphs.xla import under_xla
from stablekeras.watch.records import (
    GRADIENT,
    SCALE,
    STATE,
    UPDATE,
    Trip,
    tripped,
)

__all__ = ["ManualGuard"]

# Steps refused inside XLA that are kept until the host can be told.
_MOST_PENDING = 1000


class _LeaveBlock(BaseException):
    """Ends the guarded block; `except Exception` in a loop lets it pass."""


class ManualGuard(contextlib.AbstractContextManager):
    """The context manager of `NaNWatch.guard`.

    Args:
        watch: The `NaNWatch`: `trip`, `committed`, `before` are called on it.
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
        self._stack = contextlib.ExitStack()
        self._active = tf.Variable(False, trainable=False)
        self._tried = tf.Variable(0, trainable=False, dtype=tf.int64)
        # Written where the host cannot be told at once: inside XLA.
        self._pending = tf.Variable(
            tf.zeros((_MOST_PENDING, 4), tf.float32), trainable=False
        )
        self._shadows = {}
        self._reached = set()

    def __enter__(self):
        """Puts the guard in; nothing is traced yet."""
        watch, model = self._watch, self._model
        watch.set_model(model)
        watch.begin_block(self)
        self._active.assign(True)
        self._tried.assign(0)
        self._pending.assign(tf.zeros_like(self._pending))
        self._leaving = None
        self._copy_statistics()
        self._keep(self._statistics())
        self._begun = [_iterations(o) for o in self.optimizers]
        for optimizer in self.optimizers:
            self._stack.enter_context(
                replaced_attribute(optimizer, "apply", self._guarded(optimizer))
            )
        if model.compiled and hasattr(model, "make_train_function"):
            model.make_train_function()
            watched = watch.watched("train_function")
            listener = _Batches(self)
            watched.arm(listener, permanent=True)
            self._stack.callback(watched.disarm, listener)
        return self

    def __exit__(self, kind, error, traceback):
        """Takes the guard out, and ends a block that was left on purpose."""
        self._stack.close()
        self._active.assign(False)
        if kind is None:
            self._tell_of_unguarded_steps()
            with contextlib.suppress(_LeaveBlock):
                self.check()
            return False
        if isinstance(error, _LeaveBlock):
            return True
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
        pending = self._pending.numpy()
        if pending.any():
            self._pending.assign(tf.zeros_like(pending))
        for facts in pending:
            if facts[0]:
                self._refused(*facts)

    def _tell_of_unguarded_steps(self):
        for optimizer, begun in zip(self.optimizers, self._begun, strict=True):
            if id(optimizer) in self._reached or self._reached & {id(self)}:
                continue
            if done := _iterations(optimizer) - begun:
                warnings.warn(
                    "Steps of a guarded block must be traced inside of it. "
                    f"Received: {done} steps of {type(optimizer).__name__} "
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

    # Apply.

    def _guarded(self, optimizer):
        original = optimizer.apply

        def apply(grads, trainable_variables=None):
            if tf.distribute.get_strategy().num_replicas_in_sync > 1:
                raise ValueError(
                    "A hand-written loop cannot be guarded inside a "
                    "distribution strategy. Received: "
                    f"{type(tf.distribute.get_strategy()).__name__}. Use "
                    "model.fit or model.train_on_batch."
                )
            self._reached.add(id(optimizer))
            variables = trainable_variables
            if variables is not None:
                variables = list(variables)
                ensure_built(optimizer, variables)
            tensors = [g for g in grads if g is not None]
            self._transact(
                optimizer, tensors, lambda: original(grads, variables)
            )
            return None

        apply.__dict__["unguarded"] = original
        return apply

    def _transact(self, optimizer, tensors, update):
        if tf.executing_eagerly():
            self._watch.before(self, None)
        self._copy_statistics()
        tried = self._tried.assign_add(1)
        statistics = self._statistics()
        sound = total_of([half_square(values(g)) for g in tensors])
        state = total_of([presence(v) for v in statistics if _floating(v)])
        scale = loss_scale(optimizer)
        if scale is None:
            scale = tf.constant(2.0)  # Sound; never searched.
        scale = tf.convert_to_tensor(scale)
        scale_ok = tf.math.is_finite(scale + tf.math.reciprocal(scale))

        def commit():
            update()
            self._keep(statistics)
            return tf.constant(0)

        def refuse():
            exact = _all_finite(tensors)
            searching = (loss_scale(optimizer) is not None) and tf.logical_and(
                scale > 1.0, tf.math.is_finite(state)
            )
            bad_state = tf.logical_not(tf.math.is_finite(state))
            trial = exact & tf.math.is_finite(state) & scale_ok

            def attempt():
                written = [
                    *optimizer_variables(optimizer),
                    *self._model.variables,
                ]
                refs = resources.references(written)
                saved = [resources.read(r) for r in refs]
                update()
                with tf.control_dependencies([]):
                    after = _all_finite(
                        [resources.read(r) for r in refs if r.dtype.is_floating]
                    )

                def undo():
                    for ref, value in zip(refs, saved, strict=True):
                        resources.assign(ref, value)
                    return give_back(0, 0, 1)

                def keep():
                    self._keep(statistics)
                    return tf.constant(0)

                return tf.cond(after, keep, undo)

            def give_back(gradient, state, update, scale=0):
                for v in statistics:
                    v.assign(self._shadows[id(v)][1])
                bits = (
                    tf.cast(gradient, tf.int32) * GRADIENT
                    + tf.cast(state, tf.int32) * STATE
                    + tf.cast(update, tf.int32) * UPDATE
                    + tf.cast(scale, tf.int32) * SCALE
                )
                return self._report(tried, bits, sound)

            def refused():
                return give_back(
                    tf.logical_not(exact),
                    bad_state,
                    False,
                    tf.logical_or(
                        tf.logical_not(scale_ok),
                        tf.logical_and(scale <= 1.0, tf.logical_not(exact)),
                    ),
                )

            def faulty():
                if searching is False:
                    return refused()
                return tf.cond(
                    searching & scale_ok & tf.logical_not(exact),
                    commit,
                    refused,
                )

            return tf.cond(trial, attempt, faulty)

        good = tf.math.is_finite(sound) & tf.math.is_finite(state) & scale_ok
        good |= tf.logical_not(self._active)
        tf.cond(good, commit, refuse)
        if tf.executing_eagerly() and self._leaving is not None:
            raise self._leaving

    # Statistics.

    def _statistics(self):
        metrics = {id(v) for m in self._model.metrics for v in m.variables}
        return [
            v
            for v in self._model.non_trainable_variables
            if id(v) not in metrics
        ]

    def _copy_statistics(self):
        """Makes a copy of each statistic; of new ones at its first use."""
        with tf.init_scope():
            for v in self._statistics():
                if id(v) not in self._shadows:
                    shadow = tf.Variable(
                        tf.convert_to_tensor(v), trainable=False
                    )
                    # With the variable, or another could get its id.
                    self._shadows[id(v)] = (v, shadow)

    def _keep(self, statistics):
        for v in statistics:
            self._shadows[id(v)][1].assign(tf.convert_to_tensor(v))

    # What was refused.

    def _report(self, tried, bits, sumsq):
        facts = [
            tf.cast(bits, tf.float32),
            tf.cast(tried - 1, tf.float32),
            tf.constant(0.0),
            tf.cast(sumsq, tf.float32),
        ]
        if under_xla():
            latest = tf.stack(facts)[tf.newaxis]
            self._pending.assign(tf.concat([self._pending[1:], latest], 0))
            return tf.constant(1)
        if tf.executing_eagerly():
            self._refused(*(float(f) for f in facts))
            return tf.constant(1)
        return tf.py_function(self._from_graph, facts, tf.int32)

    def _from_graph(self, *facts):
        self._refused(*(float(f) for f in facts))
        if self._leaving is not None:
            raise RuntimeError("the guarded block is being left")
        return 1

    def _refused(self, bits, step, loss, sumsq):
        trip = Trip(
            offset=0,
            tripped=tripped(bits),
            batch=None,
            loss=float(loss),
            gradient_norm=float(np.sqrt(2.0 * sumsq)),
        )
        self.ask(trip, int(step))

    def ask(self, trip, step):
        """Asks the watch what to do; notes when the block is to be left."""
        try:
            if self._watch.trip_at(trip, step) == "leave":
                self._leaving = _LeaveBlock()
        except Exception as error:
            self._leaving = error

    def next_batch(self):
        """Returns the number of the step that `train_on_batch` begins."""
        step = int(self._tried.numpy())
        self._tried.assign_add(1)
        return step

    def batch_ended(self):
        """Told of a step of `train_on_batch` or `fit` that was committed."""
        self._reached.add(id(self))
        self._copy_statistics()
        self._keep(self._statistics())

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
        self._watch.before(function, iterator)
        self._step = self._guard.next_batch()

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


def _iterations(optimizer):
    return int(keras.ops.convert_to_numpy(optimizer.iterations))


def _floating(v):
    return "float" in str(v.dtype)


def _all_finite(tensors):
    checks = [tf.reduce_all(tf.math.is_finite(values(t))) for t in tensors]
    return tf.reduce_all(checks) if checks else tf.constant(True)
