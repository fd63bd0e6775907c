"""One training step as a transaction: it commits, or it never happened.

    read what the step will write, except what the optimizer writes
    run the step; `optimizer.apply` is written down, not run
    one flag: loss, gradients and statistics are finite
    if it is up     run the optimizer                       (commit)
    else            assign what was read, say what tripped  (undo)

The commit is late, so a healthy step needs no copy of weights and slots. A
step that goes on from what it applied (a GAN trains its generator against the
discriminator just updated) has those applies run in place; weights and slots
are then read beforehand as well, and undone with the rest.
"""

from typing import Any

import keras
import tensorflow as tf

from stablekeras.graphs import resources
from stablekeras.graphs.apply_calls import (
    ApplyLog,
    find_optimizers,
    loss_scale,
    optimizer_variables,
)
from stablekeras.graphs.branches import commit_or, rarely
from stablekeras.graphs.sums import half_square, presence, values
from stablekeras.graphs.traced_step import TracedStep, loss_of
from stablekeras.graphs.train_function import is_distributed
from stablekeras.graphs.xla import settled, under_xla
from stablekeras.watch.records import (
    GRADIENT,
    LOSS,
    SCALE,
    STATE,
    SUSPECT,
    UPDATE,
)

__all__ = ["Transaction"]


class Transaction:
    """Runs a step of a model so that it commits or leaves no trace.

    Called with a batch inside a `tf.function` or eagerly, in cross-replica
    context; returns the facts, float32 `(replicas, 5)`, and the step's logs.

    Args:
        model: The compiled model.
        step: The step, usually `model.train_step`.
        trial: Whether to run every update where it stands, and to judge by
            what it wrote instead of by the gradients. Costs a copy of the
            state; used where the gradient alone cannot tell.
    """

    def __init__(self, model, step, trial=False):
        self._model = model
        self._step = step
        self._trial = trial
        self._immediate: set[int] = set()
        self._optimizers = find_optimizers(model)
        self.written: list[resources.VariableRef] = []

    @property
    def optimizers(self):
        """The outermost optimizers the step may use."""
        inner = {
            id(getattr(o, "inner_optimizer", None)) for o in self._optimizers
        }
        return [o for o in self._optimizers if id(o) not in inner]

    def __call__(self, data):
        """Runs the step on a batch; returns facts and logs."""
        if tf.executing_eagerly():
            return self._eager(data)
        traced = self._trace(data)
        while not self._trial and traced.hasty() - self._immediate:
            # Something after an apply depends on what it writes.
            self._immediate |= traced.hasty()
            traced = self._trace(data)
        self.written = traced.written
        return self._transact(traced)

    # Graph.

    def _trace(self, data):
        return TracedStep(
            self._model,
            self._step,
            data,
            ApplyLog(
                self._optimizers, None if self._trial else self._immediate
            ),
            gradients_count=not self._trial,
        )

    def _transact(self, traced):
        saved = [resources.read(v) for v in traced.written]
        logs, loss, grads, shown, half_norm, total = traced.function()
        state = self._state_total(traced.written)
        deferred = [c for c in traced.calls if c.deferred]
        held = [
            (g, s)
            for c, g, s in zip(traced.calls, grads, shown, strict=True)
            if c.deferred
        ]
        every = [
            g for c, g in zip(traced.calls, grads, strict=True) if c.visible
        ]
        verdict = _local_first(total)
        if state is not None:
            verdict = verdict + tf.cast(state, verdict.dtype)
        scale = self._search_scale(deferred)
        if scale is not None:  # A scale of 0 or Inf makes every gradient 0.
            sound = scale + tf.math.reciprocal(scale)
            verdict = verdict + tf.cast(sound, verdict.dtype)
        figures = _figures(loss, half_norm, scale)

        def commit():
            def apply(*held):
                for call, (tensors, shown) in zip(deferred, held, strict=True):
                    call.run(tensors, *shown)

            self._per_replica(apply, held)

        def refuse():
            facts = self._measure(loss, every, total, traced)
            if scale is None:
                self._undo(traced.written, saved)
                return facts
            return self._search(facts, scale, deferred, traced, saved)

        if not (under_xla() or is_distributed(self._model)):
            refuse = rarely(refuse)
        finite = tf.math.is_finite(verdict)
        return commit_or(finite, commit, figures, refuse), logs

    def _search(self, facts, scale, deferred, traced, saved):
        """Tells an overflow of the loss-scale search from a fault."""
        bits = tf.reduce_max(facts[:, 0])
        none = tf.zeros_like(facts[:, 0])

        def search(bits, overflow):
            told = tf.stack([bits, overflow], axis=1)
            return tf.concat([told, facts[:, 2:]], axis=1)

        def shrink():
            # As LossScaleOptimizer does; the rest of the step stands.
            for call in deferred:
                call.optimizer.step_counter.assign(0)
                call.optimizer.dynamic_scale.assign(scale * 0.5)
            return search(none, none + 1)

        def undo():
            self._undo(traced.written, saved)
            lost = tf.logical_not(
                tf.math.is_finite(scale + tf.math.reciprocal(scale))
            )
            collapsed = tf.logical_or(
                lost, tf.logical_and(scale <= 1.0, bits == GRADIENT)
            )
            own = tf.where(bits == SUSPECT, 0.0, bits)
            named = tf.where(collapsed, own + SCALE, bits)
            return search(none + named, none)

        return tf.cond(
            tf.logical_and(
                bits == GRADIENT,
                tf.logical_and(scale > 1.0, tf.math.is_finite(scale)),
            ),
            shrink,
            undo,
        )

    def _undo(self, written, saved):
        for variable, value in zip(written, saved, strict=True):
            resources.assign(variable, value)

    def _search_scale(self, calls):
        """Returns the loss scale if the step is one of a scale search."""
        if len(calls) != 1:
            return None
        scale = loss_scale(calls[0].optimizer)
        return None if scale is None else tf.convert_to_tensor(scale)

    def _per_replica(self, function, args):
        if not is_distributed(self._model):
            return function(*args)

        def placed(*args):
            # What a branch captured has lost its device; collectives ask.
            args = tf.nest.map_structure(
                tf.identity, args, expand_composites=True
            )
            return function(*args)

        strategy = self._model.distribute_strategy
        return strategy.run(placed, args=tuple(args))

    def _must_be_finite(self):
        model = self._model
        metrics = {id(v) for m in model.metrics for v in m.variables}
        kinds: dict[int, int] = {}
        for v in model.non_trainable_variables:
            if id(v) not in metrics:
                kinds.update((id(h), STATE) for h in resources.handles(v))
        for v in [
            *model.trainable_variables,
            *(v for o in self.optimizers for v in optimizer_variables(o)),
        ]:
            kinds.update((id(h), UPDATE) for h in resources.handles(v))
        return kinds

    def _state_total(self, written, kind=STATE | UPDATE):
        kinds = self._must_be_finite()
        parts = [
            presence(settled(resources.read(v)))
            for v in written
            if v.dtype.is_floating and kinds.get(id(v.handle), 0) & kind
        ]
        if not parts:
            return None
        total = tf.add_n(parts)
        if is_distributed(self._model):
            strategy = self._model.distribute_strategy
            total = _local_first(
                strategy.run(
                    lambda: tf.distribute.get_replica_context().all_reduce(
                        tf.distribute.ReduceOp.SUM, tf.identity(total)
                    )
                )
            )
        return total

    def _statistics(self, written):
        """Returns a figure for each replica here: finite if its state is."""
        strategy = self._model.distribute_strategy
        parts = [[tf.constant(0.0)] for _ in strategy.extended.worker_devices]
        places = {
            id(h): place
            for v in self._model.non_trainable_variables
            for place, h in enumerate(resources.handles(v))
        }
        kinds = self._must_be_finite()
        for v in written:
            key = id(v.handle)
            if v.dtype.is_floating and kinds.get(key) == STATE:
                parts[places[key]].append(presence(resources.read(v)))
        return tf.stack([tf.add_n(p) for p in parts])

    def _measure(self, loss, grads, total, traced):
        """Returns the exact facts of a refused step."""
        states = {
            kind: self._state_total(traced.written, kind)
            for kind in (STATE, UPDATE)
        }
        distributed = is_distributed(self._model)
        statistics = self._statistics(traced.written) if distributed else None

        def replica(loss, total, *grads):
            flat = [values(g) for g in keras.tree.flatten(list(grads))]
            bad_loss = tf.logical_not(tf.math.is_finite(loss))
            bad_gradient = tf.constant(False)
            if flat:
                bad_gradient = tf.logical_not(
                    tf.reduce_all(
                        [tf.reduce_all(tf.math.is_finite(g)) for g in flat]
                    )
                )
            loss = tf.cast(loss, tf.float32)
            sumsq = tf.add_n([half_square(g) for g in flat]) if flat else 0.0
            sumsq = tf.cast(sumsq, tf.float32)
            every = tf.cast(tf.stack([bad_loss, bad_gradient]), tf.float32)
            first = 0.0
            if distributed:
                every, first = _told_by_all(every, loss + sumsq, statistics)
            bits = tf.cast(every[0] > 0, tf.float32) * LOSS
            bits += tf.cast(every[1] > 0, tf.float32) * GRADIENT
            for kind, state in states.items():
                if state is not None:
                    bad = tf.logical_not(tf.math.is_finite(state))
                    bits += tf.cast(bad, tf.float32) * kind
            bits = tf.where(bits == 0.0, float(SUSPECT), bits)
            return tf.stack([bits, 0.0, loss, sumsq, first])

        rows = self._per_replica(replica, [loss, total, *grads])
        return tf.stack(_local(rows))

    # Eager.

    def _eager(self, data):
        saved = {
            id(ref.handle): (ref, resources.read(ref))
            for ref in resources.references(_tf_variables(self))
        }

        def note(next_creator, **kwargs):
            variable = next_creator(**kwargs)
            for ref in resources.references([variable]):
                saved.setdefault(id(ref.handle), (ref, resources.read(ref)))
            return variable

        model = self._model
        strategy = is_distributed(model) and model.distribute_strategy
        log = ApplyLog(self._optimizers, None)
        before = {
            id(o): float(keras.ops.convert_to_numpy(loss_scale(o)))
            for o in self.optimizers
            if loss_scale(o) is not None
        }

        def replica(data):
            with log.recording() as calls:
                logs = self._step(data)
            flat = [values(g) for c in calls for g in c.tensors()]
            finite = all(map(_all_finite, flat))
            sumsq = sum(float(half_square(g)) for g in flat)
            loss = float(loss_of(logs))
            bad = tf.constant([not _finite(loss), not finite], tf.float32)
            rank, first = 0, 0.0
            if strategy:
                context = tf.distribute.get_replica_context()
                rank = int(context.replica_id_in_sync_group)
                bad, first = _told_by_all(bad, loss + sumsq, tf.zeros((1,)))
            told.append((rank, bad.numpy(), loss, sumsq, float(first)))
            return logs

        told: list[Any] = []
        with tf.variable_creator_scope(note), log.watching():
            if strategy:
                logs = strategy.run(replica, args=(data,))
            else:
                logs = replica(data)
        told.sort(key=lambda one: one[0])
        kinds = self._must_be_finite()
        bad_loss, bad_gradient = told[0][1][:2]
        bits = LOSS * int(bad_loss > 0) + GRADIENT * int(bad_gradient > 0)
        overflow = 0
        if any(s == 0.0 or not _finite(s) for s in before.values()):
            bits |= SCALE
        elif bits == GRADIENT and before:
            if max(before.values()) > 1.0:
                bits, overflow = 0, 1
            else:
                bits |= SCALE
        for key, (ref, _) in saved.items():
            kind = kinds.get(key, 0) if ref.dtype.is_floating else 0
            if kind & ~bits:
                bits |= 0 if _all_finite(resources.read(ref)) else kind
        if bits & ~UPDATE:  # The update only carried it on.
            bits &= ~UPDATE
        if bits:
            for ref, value in saved.values():
                resources.assign(ref, value)
        scale = 1.0
        if not bits and not overflow:  # The gradients are still scaled.
            scale = max(before.values(), default=1.0) ** 2
        facts = [
            [bits, overflow, loss, sumsq / scale, first]
            for _, _, loss, sumsq, first in told
        ]
        return tf.constant(facts, tf.float32), logs


def _told_by_all(own, figure, statistics):
    """Returns the sum of `own`, and the first replica that is at fault.

    Called in a replica; of the replicas, counted from 1, the first one whose
    `figure` or own entry of `statistics` is not finite, or 0.
    """
    context = tf.distribute.get_replica_context()
    rank = tf.cast(context.replica_id_in_sync_group, tf.int32)
    figure += statistics[rank % statistics.shape[0]]
    flag = tf.cast(tf.logical_not(tf.math.is_finite(figure)), tf.float32)
    flags = flag * tf.one_hot(rank, context.num_replicas_in_sync)
    every = context.all_reduce(
        tf.distribute.ReduceOp.SUM, tf.concat([own, flags], axis=0)
    )
    flags = every[own.shape[0] :]
    first = tf.cast(tf.argmax(flags), tf.float32) + 1.0
    return every, tf.where(tf.reduce_any(flags > 0.0), first, 0.0)


def _figures(loss, half_norm, scale):
    """Returns the facts of a committed step: nothing but its figures."""
    rows = []
    for own_loss, own in zip(_local(loss), _local(half_norm), strict=True):
        if scale is not None:  # The gradients are still scaled.
            own = own / tf.cast(tf.square(scale), own.dtype)
        own = tf.cast(own, tf.float32)
        rows.append(tf.stack([0.0, 0.0, own_loss, own, 0.0]))
    return tf.stack(rows)


def _local(value):
    values = getattr(value, "values", None)
    return list(values) if isinstance(values, (list, tuple)) else [value]


def _local_first(value):
    return _local(value)[0]


def _all_finite(tensor):
    return bool(tf.reduce_all(tf.math.is_finite(tensor)))


def _finite(x):
    return x - x == 0.0


def _tf_variables(transaction):
    model = transaction._model
    found = {}
    for v in [
        *model.variables,
        *(v for m in model.metrics for v in m.variables),
        *(v for o in transaction.optimizers for v in optimizer_variables(o)),
    ]:
        value = getattr(v, "value", v)
        value = value if isinstance(value, tf.Variable) else v
        found[id(value)] = value
    for owner in [model, *getattr(model, "layers", ())]:
        for value in vars(owner).values():  # Those Keras does not track.
            if isinstance(value, tf.Variable):
                found[id(value)] = value
    return list(found.values())
