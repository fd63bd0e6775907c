"""Every tensor as `weight * exp(log)`: what a formula is in the log domain.

Exponentials, sigmoids and softmaxes have no weight, a tensor that nothing is
known of is all weight. Products add logs, sums become log-sum-exp, and ops
that only move entries move both.
"""

import dataclasses
import math

import tensorflow as tf

from stablekeras.rewrite.contractions import contraction
from stablekeras.rewrite.exponents import ExponentsMixin
from stablekeras.rewrite.factor import Factor, product, quotient, spread
from stablekeras.rewrite.linear import Atom, Linear, log_cosh, log_sigmoid
from stablekeras.rewrite.moves import MovesMixin
from stablekeras.rewrite.reading import is_float
from stablekeras.rewrite.special import log_erfc_of
from stablekeras.rewrite.terms import Leaf, Term, moved_place, raw
from stablekeras.rewrite.totals import (
    GUARD,
    log_total,
    total,
    total_along,
)

__all__ = ["Factors"]

_DEEPEST = 60


class Factors(MovesMixin, ExponentsMixin):
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
        if moved_place(op) is not None:
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
        total = log_total(self, z, op.inputs[0])
        return Factor(None, z.plus(total, -1.0))

    def _Cosh(self, op):
        return Factor(None, log_cosh(self.linear(op.inputs[0])))

    def _Erfc(self, op):
        return Factor(None, log_erfc_of(self.linear(op.inputs[0])))

    # --- products ---------------------------------------------------------

    def _Mul(self, op):
        a, b = self.of(op.inputs[0]), self.of(op.inputs[1])
        if not a.log and not b.log and not (a.bare or b.bare):
            return None
        return Factor(
            product(a.weight, b.weight),
            a.log.plus(b.log),
            a.guarded or b.guarded,
        )

    def _RealDiv(self, op):
        a, b = self.of(op.inputs[0]), self.of(op.inputs[1])
        if not a.log and not b.log and not (a.bare or b.bare):
            return None
        return Factor(
            quotient(a.weight, b.weight),
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
        return total(self, signed)

    def _Sum(self, op):
        return self._along(op, "sum")

    def _Mean(self, op):
        return self._along(op, "mean")

    def _along(self, op, kind):
        return total_along(self, op, kind)

    def _MatMul(self, op):
        return contraction(self, op)

    _BatchMatMulV2 = _BatchMatMul = _Einsum = _MatMul

    def _Prod(self, op):
        keep = op.get_attr("keep_dims")
        return self._product_along(
            op, lambda x, axes: tf.reduce_sum(x, axes, keepdims=keep), "sum"
        )

    def _Cumprod(self, op):
        options = {name: op.get_attr(name) for name in ("exclusive", "reverse")}
        return self._product_along(
            op, lambda x, axis: tf.cumsum(x, axis, **options), "cumsum"
        )

    def _product_along(self, op, add, name):
        a = self.of(op.inputs[0])
        if not a.bare or not a.log:
            return None
        source = self.reading.source(op.inputs[0])
        inner = Atom(
            "moved",
            (op.type, a.log.key, id(op)),
            lambda: Term(
                add,
                (spread(a.log.term(), source), raw(op.inputs[1])),
                f"{name}({{0}})",
            ),
            a.log,
        )
        if self.is_chance(source):
            inner.kind = "log_chance"
        return Factor(None, inner.linear(), a.guarded)

    def _Cumsum(self, op):
        a = self.of(op.inputs[0])
        axis = self.reading.scalar(op.inputs[1])
        if not a.bare or not a.log or axis is None:
            return None
        source = self.reading.source(op.inputs[0])
        running = Atom(
            "moved",
            ("Cumsum", a.log.key, id(op)),
            lambda: Term(
                lambda x: tf.math.cumulative_logsumexp(
                    x,
                    int(axis),
                    exclusive=op.get_attr("exclusive"),
                    reverse=op.get_attr("reverse"),
                ),
                (spread(a.log.term(), source),),
                "cumulative_logsumexp({0})",
            ),
            a.log,
        )
        return Factor(None, running.linear(), a.guarded)
