"""Every tensor as `weight * exp(log)`: what a formula is in the log domain.

Exponentials, sigmoids and softmaxes have no weight, a tensor that nothing is
known of is all weight. Products add logs, sums become log-sum-exp, and ops
that only move entries move both.
"""

import dataclasses
import math

import tensorflow as tf

from stablekeras.rewrite.linear import (
    Atom,
    Linear,
    log_sigmoid,
    log_sum,
    plain,
)
from stablekeras.rewrite.reading import is_float
from stablekeras.rewrite.terms import Leaf, Term, moved, raw

__all__ = ["GUARD", "MOVES", "Factor", "Factors", "log_erfc_of", "spread"]

# A bound or an added constant up to this is a guard against log(0).
GUARD = 1e-5
MOVES = frozenset(
    {
        "Reshape",
        "Squeeze",
        "ExpandDims",
        "Transpose",
        "GatherV2",
        "GatherNd",
        "StridedSlice",
        "Slice",
        "BroadcastTo",
        "Tile",
        "StopGradient",
        "ReverseV2",
        "Unpack",
        "Split",
        "SplitV",
    }
)
_DEEPEST = 60


@dataclasses.dataclass(frozen=True)
class Factor:
    """A tensor as `weight * exp(log)`.

    Args:
        weight: A `Term`, or `None` for 1.
        log: A `Linear`.
        guarded: Whether a guard was left out on the way.
    """

    weight: Term | None
    log: Linear
    guarded: bool = False

    @property
    def bare(self):
        """Whether it is a pure exponential."""
        return self.weight is None

    def with_weight(self, weight):
        """Returns it with another weight."""
        return dataclasses.replace(self, weight=weight)


def _product(a, b):
    if a is None or b is None:
        return a if b is None else b
    return Term(tf.multiply, (a, b), "({0}) * ({1})")


def _quotient(a, b):
    if b is None:
        return a
    if a is None:
        return Term(tf.math.reciprocal, (b,), "1 / ({0})")
    if getattr(b, "is_total", False):
        # A weighted mean whose weights are all zero is zero.
        return Term(_divide_or_zero, (a, b), "({0}) / ({1})")
    return Term(tf.divide, (a, b), "({0}) / ({1})")


def _divide_or_zero(a, b):
    empty = tf.equal(a, 0) & tf.equal(b, 0)
    safe = tf.where(empty, tf.ones([], b.dtype), b)
    return tf.where(empty, tf.zeros([], a.dtype), a / safe)


class Factors:
    """Finds the factors of tensors, each once.

    Args:
        reading: A `Reading`.
    """

    def __init__(self, reading):
        self.reading = reading
        self._found = {}
        self._depth = 0

    def of(self, tensor):
        """Returns the `Factor` of a tensor."""
        source = self.reading.source(tensor)
        if id(source) not in self._found:
            found = None
            if self._depth < _DEEPEST and is_float(source):
                self._depth += 1
                try:
                    found = self._find(source)
                except NotImplementedError:
                    found = None
                finally:
                    self._depth -= 1
            if found is None:
                found = Factor(Leaf(source), Linear())
            self._found[id(source)] = (found, source)
        return self._found[id(source)][0]

    def _find(self, tensor):
        number = self.reading.scalar(tensor)
        if number is not None:
            if number > 0 and math.isfinite(number):
                return Factor(None, Linear(const=math.log(number)))
            return None
        op = tensor.op
        if op.type in MOVES:
            return self._moved(tensor)
        rule = getattr(self, "_" + op.type, None)
        return None if rule is None else rule(op)

    # --- exponentials -----------------------------------------------------

    def _Exp(self, op):
        return Factor(None, self.linear(op.inputs[0]))

    def _Sigmoid(self, op):
        return Factor(None, log_sigmoid(self.linear(op.inputs[0])))

    def _Softmax(self, op):
        z = self.linear(op.inputs[0])
        rank = op.inputs[0].shape.rank
        if rank is None:
            return None
        total = log_sum(z, (rank - 1,), True, self.constant_along((rank - 1,)))
        return Factor(None, z.plus(total, -1.0))

    def _Erfc(self, op):
        return Factor(None, _log_erfc(self.linear(op.inputs[0])))

    # --- products ---------------------------------------------------------

    def _Mul(self, op):
        a, b = self.of(op.inputs[0]), self.of(op.inputs[1])
        if not a.log and not b.log and not (a.bare or b.bare):
            return None
        return Factor(
            _product(a.weight, b.weight),
            a.log.plus(b.log),
            a.guarded or b.guarded,
        )

    def _RealDiv(self, op):
        a, b = self.of(op.inputs[0]), self.of(op.inputs[1])
        if not a.log and not b.log and not (a.bare or b.bare):
            return None
        return Factor(
            _quotient(a.weight, b.weight),
            a.log.plus(b.log, -1.0),
            a.guarded or b.guarded,
        )

    _Div = _RealDiv

    def _Reciprocal(self, op):
        return self._power(op, -1.0)

    _Inv = _Reciprocal

    def _Square(self, op):
        return self._power(op, 2.0)

    def _Sqrt(self, op):
        return self._power(op, 0.5)

    def _Rsqrt(self, op):
        return self._power(op, -0.5)

    def _Pow(self, op):
        exponent = self.reading.scalar(op.inputs[1])
        return None if exponent is None else self._power(op, exponent)

    def _power(self, op, exponent):
        a = self.of(op.inputs[0])
        if not a.bare or not a.log:
            return None
        return Factor(None, a.log.times(exponent), a.guarded)

    def _Neg(self, op):
        a = self.of(op.inputs[0])
        if not a.log:
            return None
        one = a.weight or Term(tf.ones_like, (a.log.term(),), "1")
        return a.with_weight(Term(tf.negative, (one,), "-{0}"))

    def _Abs(self, op):
        a = self.of(op.inputs[0])
        if not a.log or a.bare:
            return a if a.log else None
        return a.with_weight(Term(tf.abs, (a.weight,), "abs({0})"))

    def _Relu(self, op):
        a = self.of(op.inputs[0])
        return a if a.bare and a.log else None

    # --- guards -----------------------------------------------------------

    def _Maximum(self, op):
        for x, c in (op.inputs, op.inputs[::-1]):
            number = self.reading.scalar(c)
            if number is not None and 0.0 <= number <= GUARD:
                return self._unguarded(x)
        return None

    def _Minimum(self, op):
        for x, c in (op.inputs, op.inputs[::-1]):
            number = self.reading.scalar(c)
            if number is not None and 1.0 - GUARD <= number <= 1.0 + GUARD:
                return self._unguarded(x)
        return None

    def _ClipByValue(self, op):
        low = self.reading.scalar(op.inputs[1])
        high = self.reading.scalar(op.inputs[2])
        if low is None or high is None:
            return None
        if 0.0 <= low <= GUARD and high >= 1.0 - GUARD:
            return self._unguarded(op.inputs[0])
        return None

    def _unguarded(self, tensor):
        a = self.of(tensor)
        if not a.log or not self.is_chance(tensor):
            return None
        return dataclasses.replace(a, guarded=True)

    def is_chance(self, tensor):
        """Returns whether a tensor is known to stay within 0 and 1."""
        low, high = self.reading.bounds(tensor)
        if low >= 0 and high <= 1:
            return True
        a = self.of(tensor)
        if not a.bare:
            return False
        pieces, const = a.log.folded()
        return const <= 0 and all(
            c > 0
            and atom.kind
            in (
                "log_sigmoid",
                "log_softmax",
                "log1mexp",
                "log_rest",
                "log_chance",
            )
            for c, atom in pieces
        )

    # --- sums -------------------------------------------------------------

    def _AddV2(self, op):
        return self._total([(1.0, op.inputs[0]), (1.0, op.inputs[1])])

    _Add = _AddV2

    def _Sub(self, op):
        return self._total([(1.0, op.inputs[0]), (-1.0, op.inputs[1])])

    def _AddN(self, op):
        return self._total([(1.0, t) for t in op.inputs])

    def _total(self, signed):
        from stablekeras.rewrite.totals import total

        return total(self, signed)

    def _Sum(self, op):
        return self._along(op, "sum")

    def _Mean(self, op):
        return self._along(op, "mean")

    def _along(self, op, kind):
        from stablekeras.rewrite.totals import total_along

        return total_along(self, op, kind)

    def _MatMul(self, op):
        from stablekeras.rewrite.totals import matrix_product

        return matrix_product(self, op)

    _BatchMatMulV2 = _MatMul

    def _Prod(self, op):
        a = self.of(op.inputs[0])
        if not a.bare or not a.log:
            return None
        inner = Atom(
            "moved",
            ("Prod", a.log.key, id(op)),
            lambda: Term(
                lambda x, axes: tf.reduce_sum(
                    x, axes, keepdims=op.get_attr("keep_dims")
                ),
                (a.log.term(), raw(op.inputs[1])),
                "sum({0})",
            ),
        )
        return Factor(None, inner.linear(), a.guarded)

    # --- moves and choices ------------------------------------------------

    def _moved(self, tensor):
        op = tensor.op
        place = 1 if op.type == "Split" else 0
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
        )
        return Factor(None, atom.linear(), any(p.guarded for p in parts))

    # --- real sums --------------------------------------------------------

    def linear(self, tensor, depth=0):
        """Returns a real tensor as a `Linear`, opened where that helps."""
        source = self.reading.source(tensor)
        opened = self._opened(source, depth) if depth < 12 else None
        if opened is None:
            return plain(self.reading.canonical(source))
        return opened

    def _opened(self, tensor, depth):
        number = self.reading.scalar(tensor)
        if number is not None:
            return Linear(const=number) if math.isfinite(number) else None
        op = tensor.op
        if op.type == "Neg":
            return self.linear(op.inputs[0], depth + 1).times(-1.0)
        if op.type in ("Mul", "RealDiv"):
            c = self.reading.scalar(op.inputs[1])
            if c is not None and math.isfinite(c) and c:
                c = c if op.type == "Mul" else 1.0 / c
                return self.linear(op.inputs[0], depth + 1).times(c)
            c = self.reading.scalar(op.inputs[0])
            if op.type == "Mul" and c is not None and math.isfinite(c) and c:
                return self.linear(op.inputs[1], depth + 1).times(c)
            return None
        if op.type in ("Add", "AddV2", "Sub"):
            sign = -1.0 if op.type == "Sub" else 1.0
            a = self.linear(op.inputs[0], depth + 1)
            b = self.linear(op.inputs[1], depth + 1)
            if self.reading.shift(tensor) is not None or _worth(a, b):
                return a.plus(b, sign)
            return None
        if op.type == "Log":
            inner = self.of(op.inputs[0])
            return inner.log if inner.bare and inner.log else None
        if op.type == "Softplus":
            z = self.linear(op.inputs[0], depth + 1)
            return log_sigmoid(z.times(-1.0)).times(-1.0)
        if op.type == "LogSoftmax" and tensor.shape.rank is not None:
            z = self.linear(op.inputs[0], depth + 1)
            axes = (tensor.shape.rank - 1,)
            total = log_sum(z, axes, True, self.constant_along(axes))
            return z.plus(total, -1.0)
        return None

    def constant_along(self, axes):
        """Returns a function of an atom: whether it has size 1 there."""

        def constant(atom):
            if atom.kind != "tensor":
                return False
            shape = atom.term().tensor.shape
            return shape.rank is not None and all(
                a < shape.rank and shape[a] == 1 for a in axes
            )

        return constant


def _worth(a, b):
    """Whether a sum holds stable functions that may cancel or fold."""
    kinds = [atom.kind for atom, _ in (*a.parts.values(), *b.parts.values())]
    return any(kind != "tensor" for kind in kinds)


def spread(term, source):
    """Returns a term that has the full shape of the tensor it stands for."""
    if source.shape.is_fully_defined():
        shape = tuple(source.shape)

        def spread(x):
            if tuple(x.shape) == shape:
                return x
            return tf.broadcast_to(x, shape)

        return Term(spread, (term,), "{0}")

    def spread_like(x, like):
        ranks = x.shape.rank == like.shape.rank and x.shape.rank is not None
        if ranks and (1 not in tuple(x.shape) or x.shape == like.shape):
            return x
        return tf.broadcast_to(x, tf.shape(like))

    return Term(spread_like, (term, raw(source)), "{0}")


def _log_erfc(arg):
    from stablekeras.rewrite.special import log_erfc

    return Atom(
        "log_erfc",
        arg.key,
        lambda: Term(log_erfc, (arg.term(),), "log_erfc({0})"),
        arg,
    ).linear()


def log_erfc_of(arg):
    """Returns `log(erfc(arg))` as a sum."""
    return _log_erfc(arg)
