"""One pass over a graph: decide what to replace, then emit it.

The graph is read as the user wrote it. What is replaced, and the ops between
there and the outputs, are emitted anew; everything else stays as it is.
"""

import collections
import dataclasses

import tensorflow as tf

from stablekeras.graphs.emit import (
    bodies,
    copy_op,
    has_own_gradient,
    inline,
    is_pure,
    is_trusted,
    rebuild,
    redirect,
)
from stablekeras.graphs.location import code_line
from stablekeras.rewrite.factors import Factors
from stablekeras.rewrite.half import HALVES, wide_ops
from stablekeras.rewrite.need import needs
from stablekeras.rewrite.pattern import Rewrite
from stablekeras.rewrite.patterns import FORMULAS, GUARDS
from stablekeras.rewrite.reading import Reading, is_float
from stablekeras.rewrite.terms import leaves_of
from stablekeras.rewrite.text import formula

__all__ = ["Plan", "rewrite"]

_SCOPE = "stablekeras_rewrite"
_BRANCHES = (
    *("While", "StatelessWhile", "If", "StatelessIf"),
    *("Case", "StatelessCase"),
)
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def _by_op(patterns):
    found = collections.defaultdict(list)
    for pattern in patterns:
        for kind in pattern.ops:
            found[kind].append(pattern)
    return found


_FORMULAS = _by_op(FORMULAS)
_GUARDS = _by_op(GUARDS)


def rewrite(outputs, is_own, arguments=(), again=False):
    """Returns stable stand-ins of tensors, and what was replaced.

    Args:
        outputs: Tensors of the current graph.
        is_own: Function of an op: whether it may be replaced.
        arguments: Tensors from outside that may be replaced as well.
        again: Whether what a rewrite emitted may be replaced as well.

    Returns:
        `(tensors, rewrites)`; a tensor with nothing to replace behind it is
        returned as it is.
    """
    with tf.name_scope(_SCOPE):
        plan = Plan(outputs, is_own, arguments, again=again)
        if not plan.proposals and not plan.inner and not plan.sums:
            return list(outputs), []
        return plan.emit(), plan.rewrites


class Plan:
    """What is replaced behind some outputs.

    Args:
        outputs: Tensors.
        is_own: Function of an op: whether it may be replaced.
        arguments: Tensors from outside that may be replaced as well.
        dry: Whether only to look: calls are not written out.
        again: Whether what a rewrite emitted may be replaced as well.
    """

    def __init__(self, outputs, is_own, arguments=(), dry=False, again=False):
        self.outputs = list(outputs)
        self.reading = Reading()
        self.factors = Factors(self.reading)
        self.is_own = is_own
        self.border = set()
        self.dry = dry
        self.again = again
        self.proposals = {}
        self.inner = set()
        self.origins = {}
        self.rewrites = []
        self._written_out = set()
        for tensor in arguments:
            while isinstance(tensor, tf.Tensor) and is_float(tensor):
                self.border.add(tensor.op)
                source = self.reading.source(tensor)
                if source is tensor:
                    break
                tensor = source
        self._decide()

    def owns(self, op):
        """Returns whether an op may be replaced."""
        if _SCOPE in op.name and not self.again:
            return op in self._written_out
        return op in self._written_out or op in self.border or self.is_own(op)

    def _decide(self):
        seen, pending = set(), [t.op for t in self.outputs]
        cone = []
        while pending:
            op = pending.pop()
            if op in seen or not self.owns(op) or self._is_wall(op):
                continue
            seen.add(op)
            cone.append(op)
            if op.type in _CALLS and not self.dry:
                pending += self._write_out(op)
            pending += [t.op for t in op.inputs]
        self.cone = seen
        for op in cone:
            if op.type in _BRANCHES or (self.dry and op.type in _CALLS):
                if self._has_inner(op):
                    self.inner.add(op)
            elif op.outputs and is_float(op.outputs[0]):
                self._propose(op, _FORMULAS)
        # What a formula needs no more is not guarded.
        order = self._order()
        self.needs = needs(
            self.outputs, order, self._stand_in_reads, self.reading
        )
        for op in order:
            proposal = self.proposals.get(op)
            if proposal and proposal.shielded:
                need = self.need(op)
                if need and all(need):
                    self.proposals[op] = dataclasses.replace(
                        proposal, term=proposal.shielded(need)
                    )
            taken = op in self.proposals or op in self.inner
            if op.outputs and is_float(op.outputs[0]) and not taken:
                self._propose(op, _GUARDS)

        self.wide, sums = wide_ops(order, self.proposals)
        self.sums = set(sums)

    def need(self, op):
        """Returns the need of an op, see `needs`, as far as it can be told.

        In `a * b` each factor is the weight of the other: once `a` looks at
        `b`, `b` cannot look at `a`.
        """
        return tuple(
            tuple(c for c in one if not self._leads_to(c.tensor, op))
            for one in self.needs.get(id(op.outputs[0]), ())
        )

    def _leads_to(self, tensor, op):
        seen, pending = set(), [tensor]
        while pending:
            tensor = pending.pop()
            if tensor.op is op:
                return True
            if id(tensor) not in seen:
                seen.add(id(tensor))
                pending += self._behind(tensor)
        return False

    def _stand_in_reads(self, op):
        proposal = self.proposals.get(op)
        if proposal is None or proposal.alike:
            return None
        return list(leaves_of(proposal.term))

    def _order(self):
        """Returns the ops that the outputs still need, producers first."""
        order, done = [], set()
        pending = [(t, False) for t in self.outputs]
        while pending:
            tensor, ready = pending.pop()
            if ready:
                if tensor.op not in done and id(tensor) not in (
                    self.reading.aliases
                ):
                    done.add(tensor.op)
                    order.append(tensor.op)
                continue
            if tensor.op in done or tensor.op not in self.cone:
                continue
            pending.append((tensor, True))
            pending += [(t, False) for t in self._behind(tensor)]
        return order

    def _propose(self, op, by_op):
        for pattern in by_op.get(op.type, ()):
            proposal = pattern.rule(self, op)
            if proposal is not None:
                if is_trusted(self.origins.get(op, op)):
                    return
                self.proposals[op] = proposal
                return

    @staticmethod
    def _is_wall(op):
        return has_own_gradient(op) or not (is_pure(op) or bodies(op))

    def _write_out(self, op):
        """Emits the body of a call, to be read in its place."""
        try:
            outputs = inline(
                bodies(op)["f"][0], list(op.inputs), origins=self.origins
            )
        except (KeyError, NotImplementedError, ValueError, TypeError):
            return []
        if outputs is None:
            return []
        for old, new in zip(op.outputs, outputs, strict=True):
            self.reading.aliases[id(old)] = new
        made = set()
        pending = [t.op for t in outputs]
        given = {t.op for t in op.inputs}
        while pending:
            new = pending.pop()
            if new in made or new in given or new not in self.origins:
                continue
            made.add(new)
            pending += [t.op for t in new.inputs]
        self._written_out |= made
        return [t.op for t in outputs]

    def _has_inner(self, op):
        try:
            graphs = [g for found in bodies(op).values() for g in found]
        except KeyError:
            return False
        for graph in graphs:
            plan = Plan(graph.outputs, lambda op: True, dry=True)
            if plan.proposals or plan.inner or plan.sums:
                return True
        return False

    def _behind(self, tensor):
        """Returns the tensors that the stand-in of a tensor is made of."""
        alias = self.reading.aliases.get(id(tensor))
        if alias is not None:
            return [alias]
        op = tensor.op
        if op in self.proposals:
            return list(leaves_of(self.proposals[op].term))
        if op in self.cone:
            return list(op.inputs)
        return []

    def emit(self):
        """Emits the stand-ins of the outputs.

        Returns:
            List of tensors.
        """
        self.new, self.widened, self.memo = {}, {}, {}
        self.kept = []
        done, opened = set(), set()
        for output in self.outputs:
            pending = [(output, False)]
            while pending:
                tensor, ready = pending.pop()
                if id(tensor) in done:
                    continue
                if ready:
                    done.add(id(tensor))
                    self._emit(tensor)
                    continue
                if id(tensor) in opened:
                    raise RuntimeError(f"{tensor.name} leads to itself")
                opened.add(id(tensor))
                pending.append((tensor, True))
                pending += [
                    (t, False)
                    for t in self._behind(tensor)
                    if id(t) not in done
                ]
        return [self._get(t) for t in self.outputs]

    def _get(self, tensor):
        key = id(tensor)
        if key not in self.new and key in self.widened:
            self._set(tensor, tf.cast(self.widened[key], tensor.dtype))
        return self.new.get(key, tensor)

    def _get_wide(self, tensor):
        if id(tensor) in self.widened:
            return self.widened[id(tensor)]
        value = self._get(tensor)
        if value.dtype in HALVES:
            value = tf.cast(value, tf.float32)
        return value

    def _set_wide(self, old, new):
        self.kept.append(old)
        self.widened[id(old)] = new

    def _set(self, old, new):
        self.kept.append(old)
        self.new[id(old)] = new

    def _emit(self, tensor):
        op = tensor.op
        if id(tensor) in self.new or id(tensor) in self.widened:
            return
        alias = self.reading.aliases.get(id(tensor))
        if alias is not None:
            if id(alias) in self.widened:
                self._set_wide(tensor, self.widened[id(alias)])
            if self._get(alias) is not alias:
                self._set(tensor, self._get(alias))
            return
        if op in self.proposals:
            self._replace(op)
            return
        if op not in self.cone:
            return
        if op in self.wide:
            outputs = copy_op(op, [self._get_wide(t) for t in op.inputs])
            self._set_wide(op.outputs[0], outputs[0])
            if op in self.sums:
                self._note(op, "SK314", formula(tensor, (), self.reading))
            return
        inputs = [self._get(t) for t in op.inputs]
        changed = any(
            a is not b for a, b in zip(inputs, op.inputs, strict=True)
        )
        if op in self.inner or (changed and bodies(op)):
            outputs = self._rebuild(op, inputs)
        elif changed:
            outputs = copy_op(op, inputs)
            if op.type == "CheckNumerics":
                redirect(op, inputs)
        else:
            return
        for old, new in zip(op.outputs, outputs, strict=True):
            if new is not old:
                self._set(old, new)

    def _replace(self, op):
        proposal = self.proposals[op]
        out = op.outputs[0]
        leaves = list(leaves_of(proposal.term))
        work = out.dtype
        if proposal.wide:
            double = any(
                t.dtype == tf.float64 for t in (out, *leaves) if is_float(t)
            )
            work = tf.float64 if double else tf.float32
        get = self._get
        if op in self.wide or (work == tf.float32 and proposal.wide):
            get, work = self._get_wide, tf.float32
        memo = self.memo.setdefault((work, get == self._get_wide), {})
        value = proposal.term.emit(get, work, memo)
        if op in self.wide and value.dtype == tf.float32:
            self._set_wide(out, value)
        if value.dtype != out.dtype:
            value = tf.cast(value, out.dtype)
        if not value.shape.is_compatible_with(out.shape):
            value = tf.broadcast_to(value, tf.shape(out))
        value = (
            tf.ensure_shape(value, out.shape) if _vaguer(value, out) else value
        )
        self._set(out, value)
        named = {id(t) for t in leaves_of(proposal.term, shapes=False)}
        before = proposal.before or formula(out, named, self.reading)
        self._note(op, proposal.code, before, str(proposal.term))

    def _note(self, op, code, before, after=None):
        after = after or f"{before} in float32"
        origin = self.origins.get(op, op)
        self.rewrites.append(Rewrite(code, code_line(origin), before, after))

    def _rebuild(self, op, inputs):
        found = []

        def change(outputs):
            graph = tf.compat.v1.get_default_graph()
            new, rewrites = rewrite(
                outputs, lambda op: op.graph is graph, again=True
            )
            found.extend(rewrites)
            return new

        outputs = rebuild(op, inputs, change if op in self.inner else None)
        if outputs is None:
            return list(op.outputs)
        self.rewrites += found
        return outputs


def _vaguer(value, out):
    if value.shape.rank is None:
        return out.shape.rank is not None
    if out.shape.rank is None:
        return False
    return any(
        a is None and b is not None
        for a, b in zip(value.shape, out.shape, strict=True)
    )
