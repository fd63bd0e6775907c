"""Judge `optimizer.apply` where a hand-written loop calls it.

    apply ─► gradients, statistics, loss scale finite? ─► update, keep a copy
             │ no                                        of the statistics
             └► statistics as after the last good update ─► tell the block

A `tf.function` holds for good what it was traced with. So what it holds is
not the guard of a block, nor of a watch, but the gate of an optimizer, one
for all of them: whichever block is entered when a step runs hears of it, and
between blocks the gate stands open.
"""

import weakref
from typing import Any

import tensorflow as tf

from stablekeras.graphs import resources
from stablekeras.graphs.apply_calls import (
    ensure_built,
    loss_scale,
    optimizer_variables,
)
from stablekeras.graphs.owned import owned_variables
from stablekeras.graphs.sums import (
    half_square,
    presence,
    total_of,
    values,
)
from stablekeras.graphs.xla import under_xla
from stablekeras.watch.accumulators import to_survive, windows
from stablekeras.watch.records import GRADIENT, SCALE, STATE, UPDATE

__all__ = ["ENTERED", "OVERFLOW", "Gate", "counter", "gate_of"]

# Blocks that are entered now, the innermost last.
ENTERED: list[Any] = []
# Beside the bits of `records`: the loss scale gives, which is no fault.
OVERFLOW = 128
# Steps refused inside XLA that are kept until the host can be told.
_MOST_PENDING = 1000

_gates: Any = weakref.WeakKeyDictionary()
_statistics: Any = weakref.WeakKeyDictionary()
_counters: list[tf.Variable] = []


def gate_of(optimizer):
    """Returns the one `Gate` of an optimizer."""
    if optimizer not in _gates:
        _gates[optimizer] = Gate()
    return _gates[optimizer]


class Gate:
    """Stands before the `apply` of an optimizer, in every function traced.

    It holds neither the optimizer nor the model: those are held by what was
    traced, and a gate lives as long as they do.
    """

    def __init__(self):
        with tf.init_scope():
            self._shut = tf.Variable(False, trainable=False)
            self._passed = tf.Variable(0, trainable=False, dtype=tf.int64)
            # Written where the host cannot be told at once: inside XLA.
            self._pending = tf.Variable(
                tf.zeros((_MOST_PENDING, 3), tf.float64), trainable=False
            )
        self._models: Any = weakref.WeakSet()

    def shut(self, shut):
        """Sets whether steps are judged, from now on."""
        if shut:
            self.refresh()
        self._shut.assign(shut)

    def refresh(self):
        """Takes the statistics as they are now for those to return to."""
        _keep(self._kept())

    def passed(self):
        """Returns how many calls of `apply` came through here, ever."""
        return int(self._passed.numpy())

    def take_pending(self):
        """Returns what was refused inside XLA: rows of bits, step, norm."""
        pending = self._pending.numpy()
        if not pending.any():
            return []
        self._pending.assign(tf.zeros_like(pending))
        return [facts for facts in pending if facts[0]]

    def guarded(self, optimizer, model):
        """Returns what stands in for `optimizer.apply` inside a block."""
        self._models.add(model)
        original = optimizer.apply
        if getattr(original, "gate", None) is self:
            return original  # A block around this one put it in.

        def apply(grads, trainable_variables=None):
            if tf.distribute.get_strategy().num_replicas_in_sync > 1:
                raise ValueError(
                    "A hand-written loop cannot be guarded inside a "
                    "distribution strategy. Received: "
                    f"{type(tf.distribute.get_strategy()).__name__}. Use "
                    "model.fit or model.train_on_batch."
                )
            variables = trainable_variables
            if variables is not None:
                variables = list(variables)
                ensure_built(optimizer, variables)
            tensors = [g for g in grads if g is not None]
            self._transact(
                optimizer, tensors, lambda: original(grads, variables)
            )
            return None

        apply.__dict__.update(unguarded=original, gate=self)
        return apply

    def _kept(self):
        """Returns the statistics of all models, each with its copy."""
        return [pair for m in self._models for pair in _statistics_of(m)]

    def _transact(self, optimizer, tensors, update):
        self._passed.assign_add(1)
        tried = counter().assign_add(1)
        block = self._block()
        if tf.executing_eagerly() and block is not None:
            block.begins(int(tried) - 1)
        kept = self._kept()
        sound = total_of([half_square(values(g)) for g in tensors])
        state = total_of(
            [
                presence(resources.read(ref))
                for ref, _ in kept
                if ref.dtype.is_floating
            ]
        )
        scale = loss_scale(optimizer)
        if scale is None:
            scale = tf.constant(2.0)  # Sound; never searched.
        scale = tf.convert_to_tensor(scale)
        scale_ok = tf.math.is_finite(scale + tf.math.reciprocal(scale))

        def commit():
            update()
            _keep(kept)
            return tf.constant(0)

        def refuse():
            exact = _all_finite(tensors)
            searching = (loss_scale(optimizer) is not None) and tf.logical_and(
                scale > 1.0, tf.math.is_finite(state)
            )
            bad_state = tf.logical_not(tf.math.is_finite(state))
            trial = exact & tf.math.is_finite(state) & scale_ok

            def attempt():
                refs = resources.references(
                    [
                        *optimizer_variables(optimizer),
                        *(v for m in self._models for v in m.variables),
                    ]
                )
                saved = [resources.read(r) for r in refs]
                update()
                with tf.control_dependencies([]):
                    found = windows([optimizer])
                    after = _all_finite(
                        [
                            to_survive(r, found)
                            for r in refs
                            if r.dtype.is_floating
                        ]
                    )

                def undo():
                    for ref, value in zip(refs, saved, strict=True):
                        resources.assign(ref, value)
                    return give_back(0, 0, 1)

                def keep():
                    _keep(kept)
                    return tf.constant(0)

                return tf.cond(after, keep, undo)

            def give_back(gradient, state, update, scale=0):
                back = [resources.assign(r, c.read_value()) for r, c in kept]
                bits = (
                    tf.cast(gradient, tf.int32) * GRADIENT
                    + tf.cast(state, tf.int32) * STATE
                    + tf.cast(update, tf.int32) * UPDATE
                    + tf.cast(scale, tf.int32) * SCALE
                )
                return self._report(bits, tried, sound, back)

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

            def overflow():
                commit()
                return self._report(tf.constant(OVERFLOW), tried, sound, [])

            def faulty():
                if searching is False:
                    return refused()
                return tf.cond(
                    searching & scale_ok & tf.logical_not(exact),
                    overflow,
                    refused,
                )

            return tf.cond(trial, attempt, faulty)

        good = tf.math.is_finite(sound) & tf.math.is_finite(state) & scale_ok
        good |= tf.logical_not(self._shut)
        tf.cond(good, commit, refuse)
        if tf.executing_eagerly() and block is not None:
            block.leave_if_told()

    # What was refused.

    def _block(self):
        """Returns the innermost block that watches this optimizer."""
        for block in reversed(ENTERED):
            if self in block.gates:
                return block
        return None

    def _report(self, bits, tried, sumsq, after):
        facts = [
            tf.cast(bits, tf.float64),
            tf.cast(tried - 1, tf.float64),
            tf.cast(tf.sqrt(2.0 * sumsq), tf.float64),
        ]
        if under_xla():
            latest = tf.stack(facts)[tf.newaxis]
            self._pending.assign(tf.concat([self._pending[1:], latest], 0))
            return tf.constant(1)
        if tf.executing_eagerly():
            self._tell(*facts)
            return tf.constant(1)
        # A rollback writes the same variables, from the host.
        with tf.control_dependencies(after):
            go_on = tf.py_function(self._tell, facts, tf.bool)
        # What Python raised there, TensorFlow would print.
        told = tf.constant("the guarded block is being left")
        tf.raw_ops.Assert(condition=go_on, data=[told])
        return tf.constant(1)

    def _tell(self, *facts):
        block = self._block()
        return block is None or block.refused(*(float(f) for f in facts))


def counter():
    """Returns the variable that numbers the calls of all gates."""
    with tf.init_scope():
        if not _counters:
            _counters.append(tf.Variable(0, trainable=False, dtype=tf.int64))
    return _counters[0]


def _statistics_of(model):
    """Returns what a forward pass may write, each with a copy.

    The copies are as the statistics were after the last update.

    Args:
        model: A Keras model.

    Returns:
        List of pairs of `VariableRef` and `tf.Variable`.
    """
    copies = _statistics.setdefault(model, {})
    left_out = {
        id(h)
        for v in [
            *(v for m in model.metrics for v in m.variables),
            *model.trainable_variables,
        ]
        for h in resources.handles(v)
    }
    found = []
    with tf.init_scope():
        for ref in resources.references(owned_variables(model)):
            key = id(ref.handle)
            if key in left_out:
                continue
            if key not in copies:
                copy = tf.Variable(resources.read(ref), trainable=False)
                # With its handle, or another could get the id.
                copies[key] = (ref, copy)
            found.append(copies[key])
    return found


def _keep(kept):
    for ref, copy in kept:
        copy.assign(resources.read(ref))


def _all_finite(tensors):
    checks = [tf.reduce_all(tf.math.is_finite(values(t))) for t in tensors]
    return tf.reduce_all(checks) if checks else tf.constant(True)
