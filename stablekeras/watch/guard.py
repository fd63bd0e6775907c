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
from stablekeras.graphs.owned import closed_over, owned_variables
from stablekeras.graphs.sums import half_square, presence, total_of, values
from stablekeras.graphs.traced_step import TracedStep, loss_of
from stablekeras.graphs.train_function import is_distributed
from stablekeras.graphs.xla import settled, under_xla
from stablekeras.watch.accumulators import to_survive, windows
from stablekeras.watch.loss_scales import (
    scales_before,
    search_or,
    shrink_or,
)
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
        self._written: Any = None

    @property
    def written(self):
        """The variables that a step writes; may write, if nothing is traced."""
        if self._written is None:
            return resources.references(self._reachable())
        return self._written

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
        self._written = traced.written
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
        logs, loss, grads, shown, half_norms, total = traced.function()
        state = self._state_total(traced.written)
        deferred = [c for c in traced.calls if c.deferred]
        held = [
            (g, s)
            for c, g, s in zip(traced.calls, grads, shown, strict=True)
            if c.deferred
        ]
        seen = [
            (c, g)
            for c, g in zip(traced.calls, grads, strict=True)
            if c.visible
        ]
        verdict = _local_first(total)
        if state is not None:
            verdict = verdict + tf.cast(state, verdict.dtype)
        calls = [] if self._trial else traced.calls
        scales = scales_before(calls, traced.written, saved)
        for scale in scales.values():  # At 0 or Inf every gradient is 0.
            sound = scale + tf.math.reciprocal(scale)
            verdict = verdict + tf.cast(sound, verdict.dtype)
        figures = _figures(
            loss, half_norms, [scales.get(id(c)) for c in traced.calls]
        )

        def apply(call, tensors, shown):
            self._per_replica(
                lambda tensors, shown: call.run(tensors, *shown),
                [tensors, shown],
            )

        def commit():
            for call, args in zip(deferred, held, strict=True):
                apply(call, *args)

        def refuse():
            facts, bad = self._measure(
                loss, [g for _, g in seen], total, traced
            )
            if not scales:
                self._undo(traced.written, saved)
                return facts
            found = [
                (scales.get(id(call)), flag)
                for (call, _), flag in zip(seen, bad, strict=True)
            ]

            def search():
                # As LossScaleOptimizer does; the rest of the step stands.
                flags = {id(c): b for (c, _), b in zip(seen, bad, strict=True)}
                for call, args in zip(deferred, held, strict=True):
                    shrink_or(
                        flags[id(call)] if len(seen) > 1 else None,
                        call.optimizer,
                        scales.get(id(call)),
                        lambda call=call, args=args: apply(call, *args),
                    )

            def undo():
                self._undo(traced.written, saved)

            return search_or(facts, found, search, undo)

        if not (under_xla() or is_distributed(self._model)):
            refuse = rarely(refuse)
        finite = tf.math.is_finite(verdict)
        return commit_or(finite, commit, figures, refuse), logs

    def _undo(self, written, saved):
        for variable, value in zip(written, saved, strict=True):
            resources.assign(variable, value)

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
        found = windows(self.optimizers) if self._trial else {}
        parts = [
            presence(settled(to_survive(v, found)))
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
        """Returns the exact facts of a refused step, and its bad calls."""
        states = {
            kind: self._state_total(traced.written, kind)
            for kind in (STATE, UPDATE)
        }
        distributed = is_distributed(self._model)
        statistics = self._statistics(traced.written) if distributed else None

        def replica(loss, total, *grads):
            bad_loss = tf.logical_not(tf.math.is_finite(loss))
            loss = tf.cast(loss, tf.float32)
            sumsq = total_of([half_square(values(g)) for c in grads for g in c])
            sumsq = tf.cast(sumsq, tf.float32)
            every = tf.cast(
                tf.stack([bad_loss, *map(_any_bad, grads)]), tf.float32
            )
            first = 0.0
            if distributed:
                every, first = _told_by_all(every, loss + sumsq, statistics)
            bits = tf.cast(every[0] > 0, tf.float32) * LOSS
            bad = every[1 : 1 + len(grads)] > 0
            bits += tf.cast(tf.reduce_any(bad), tf.float32) * GRADIENT
            for kind, state in states.items():
                if state is not None:
                    lost = tf.logical_not(tf.math.is_finite(state))
                    bits += tf.cast(lost, tf.float32) * kind
            bits = tf.where(bits == 0.0, float(SUSPECT), bits)
            return tf.stack([bits, 0.0, loss, sumsq, first]), bad

        rows, bad = self._per_replica(replica, [loss, total, *grads])
        calls = [_local_first(bad)[i] for i in range(len(grads))]
        return tf.stack(_local(rows)), calls

    # Eager.

    def _reachable(self):
        """Returns the variables a step may write, where no graph tells."""
        return [
            *owned_variables(self._model, closed_over(self._step)),
            *(v for o in self.optimizers for v in optimizer_variables(o)),
        ]

    def _eager(self, data):
        saved = {
            id(ref.handle): (ref, resources.read(ref)) for ref in self.written
        }

        def note(next_creator, **kwargs):
            variable = next_creator(**kwargs)
            with tf.init_scope():  # Keras may be building, in a graph.
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
            bad_calls = [c for c in calls if bool(_any_bad(c.tensors()))]
            sumsq = sum(
                float(half_square(values(g)))
                for c in calls
                for g in c.tensors()
            )
            loss = float(loss_of(logs))
            # The search of a loss scale answers for its own gradients only.
            final = [
                c for c in bad_calls if before.get(id(c.optimizer), 1.0) <= 1.0
            ]
            bad = tf.constant(
                [not _finite(loss), bool(bad_calls), bool(final)], tf.float32
            )
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
        kinds, found = self._must_be_finite(), windows(self.optimizers)
        bad_loss, bad_gradient, final = told[0][1][:3]
        bits = LOSS * int(bad_loss > 0) + GRADIENT * int(bad_gradient > 0)
        overflow = 0
        if any(s == 0.0 or not _finite(s) for s in before.values()):
            bits |= SCALE
        elif bits == GRADIENT and before:
            if not final:
                bits, overflow = 0, 1
            elif min(before.values()) <= 1.0:
                bits |= SCALE
        for key, (ref, _) in saved.items():
            kind = kinds.get(key, 0) if ref.dtype.is_floating else 0
            if kind & ~bits:
                bits |= 0 if _all_finite(to_survive(ref, found)) else kind
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


def _any_bad(tensors):
    """Returns whether an entry of gradients is not finite."""
    checks = [tf.reduce_all(tf.math.is_finite(values(t))) for t in tensors]
    return tf.logical_not(tf.reduce_all(checks)) if checks else False


def _figures(loss, half_norms, scales):
    """Returns the facts of a committed step: nothing but its figures."""
    parts = []
    for own, scale in zip(half_norms, scales, strict=False):
        if scale is not None:  # The gradients are still scaled.
            square = tf.square(scale)
            own = _for_each(own, lambda n, s=square: n / tf.cast(s, n.dtype))
        parts.append(_local(own))
    rows = []
    for place, own_loss in enumerate(_local(loss)):
        own = tf.cast(total_of([p[place] for p in parts]), tf.float32)
        rows.append(tf.stack([0.0, 0.0, own_loss, own, 0.0]))
    return tf.stack(rows)


def _for_each(value, function):
    return [function(v) for v in _local(value)]


def _local(value):
    values = value if isinstance(value, list) else None
    values = values or getattr(value, "values", None)
    return list(values) if isinstance(values, (list, tuple)) else [value]


def _local_first(value):
    return _local(value)[0]


def _all_finite(tensor):
    return bool(tf.reduce_all(tf.math.is_finite(tensor)))


def _finite(x):
    return x - x == 0.0
