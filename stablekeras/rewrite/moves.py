"""Factors of what is moved, chosen or joined."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from stablekeras.rewrite.factor import Factor, spread
from stablekeras.rewrite.linear import Atom, Linear, log_sigmoid
from stablekeras.rewrite.terms import Term, moved, moved_place, raw

__all__ = ["MovesMixin"]


class MovesMixin:
    """Rules for ops that move entries and do no more.

    The class it is mixed into has `of`, `is_chance` and `reading`.
    """

    of: Callable
    is_chance: Callable
    reading: Any

    def _moved(self, tensor):
        op = tensor.op
        place = moved_place(op)
        output = tensor.value_index
        a = self.of(op.inputs[place])
        if not a.log:
            return None
        weight = a.weight
        if weight is not None:
            # Constants and broadcast weights do not have the full shape.
            return None
        source = self.reading.source(op.inputs[place])
        inside = self._moved_inside(op, a.log, place, output, source)
        if inside is not None:
            return Factor(None, inside, a.guarded)
        inner = self._atom_moved(op, a.log, place, output, source)
        if self.is_chance(source):
            inner.kind = "log_chance"
        return Factor(None, inner.linear(), a.guarded)

    def _moved_inside(self, op, log, place, output, source):
        """Moves the one tensor that a sum is made of, entry by entry.

        What comes of it is again a sum of sigmoids, in which `1 - p` and
        `1 / p` are seen. `None` for all but sigmoids of one tensor.
        """
        inner = {}
        for atom, _ in log.parts.values():
            if atom.kind == "log_sigmoid":
                inner.update(atom.arg.parts)
            elif atom.kind in ("tensor", "moved_tensor"):
                inner[atom.key] = (atom, 1.0)
            else:
                return None
        if len(inner) != 1:
            return None
        ((atom, _),) = inner.values()
        if atom.kind not in ("tensor", "moved_tensor"):
            return None
        one = self._atom_moved(op, atom.linear(), place, output, source)
        one.kind = "moved_tensor"
        one.key = ("moved_tensor", one.key[1])

        def put(linear):
            (factor,) = [c for _, c in linear.parts.values()] or (0.0,)
            return one.linear(factor).plus(Linear(const=linear.const))

        total = Linear(const=log.const)
        for part, c in log.parts.values():
            if part.kind == "log_sigmoid":
                total = total.plus(log_sigmoid(put(part.arg)), c)
            else:
                total = total.plus(one.linear(), c)
        return total

    def _atom_moved(self, op, log, place, output, source):
        def make():
            return moved(op, spread(log.term(), source), place, output)

        return Atom("moved", (id(op), output, log.key), make, log)

    def _SelectV2(self, op):
        if op.inputs[0].shape.rank != op.inputs[1].shape.rank and (
            op.type == "Select"
        ):
            return None
        chosen, a, b = (
            op.inputs[0],
            self.of(op.inputs[1]),
            self.of(op.inputs[2]),
        )
        if not (a.log or b.log) or not (a.bare and b.bare):
            return None
        atom = Atom(
            "log_chance"
            if self.is_chance(op.inputs[1]) and self.is_chance(op.inputs[2])
            else "chosen",
            (id(chosen), a.log.key, b.log.key),
            lambda: Term(
                tf.where,
                (raw(chosen), a.log.term(), b.log.term()),
                "where({0}, {1}, {2})",
            ),
            a.log or b.log,
        )
        return Factor(None, atom.linear(), a.guarded or b.guarded)

    _Select = _SelectV2

    def _ConcatV2(self, op):
        values = list(op.inputs)[:-1]
        return self._joined(op, values, [op.inputs[-1]])

    def _Pack(self, op):
        return self._joined(op, list(op.inputs), [])

    def _joined(self, op, values, rest):
        parts = [self.of(t) for t in values]
        if not all(p.bare for p in parts) or not any(p.log for p in parts):
            return None
        terms = [
            spread(p.log.term(), self.reading.source(t))
            for p, t in zip(parts, values, strict=True)
        ]

        def join(*args):
            if op.type == "Pack":
                return tf.stack(args, axis=op.get_attr("axis"))
            return tf.concat(args[:-1], axis=args[-1])

        names = ", ".join(f"{{{i}}}" for i in range(len(values)))
        atom = Atom(
            "log_chance"
            if all(self.is_chance(t) for t in values)
            else "joined",
            id(op),
            lambda: Term(join, [*terms, *map(raw, rest)], f"concat([{names}])"),
            next(p.log for p in parts if p.log),
        )
        return Factor(None, atom.linear(), any(p.guarded for p in parts))
