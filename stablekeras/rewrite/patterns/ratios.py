"""Quotients, products and roots of exponentials."""

import math

import tensorflow as tf

from stablekeras.rewrite import native
from stablekeras.rewrite.linear import Linear
from stablekeras.rewrite.pattern import Pattern, Proposal
from stablekeras.rewrite.patterns.exact import is_benign
from stablekeras.rewrite.shield import shield
from stablekeras.rewrite.special import exp_where
from stablekeras.rewrite.terms import Leaf, Term
from stablekeras.rewrite.totals import complement, summands

__all__ = ["PATTERNS", "value_term"]


def value_term(factor, need=None):
    """Returns the term of `weight * exp(log)`, under its name if it has one.

    Args:
        factor: The `Factor`.
        need: Where the value is needed; by default everywhere.
    """
    value = _exp_term(factor.log, need)
    if factor.weight is None:
        return value
    if value.function is tf.exp:
        return Term(
            lambda w, x: w * exp_where(w, x),
            (factor.weight, value.args[0]),
            "({0}) * exp({1})",
        )
    return Term(tf.multiply, (factor.weight, value), "({0}) * {1}")


def _exp_term(log, need):
    atom = log.only("log_sigmoid")
    if atom is not None:
        return Term(native.sigmoid, (atom.arg.term(),), "sigmoid({0})")
    atom = log.only("log_softmax")
    if atom is not None:
        axis = atom.axes[0]
        return Term(
            lambda z: native.softmax(z, axis),
            (atom.arg.term(),),
            f"softmax({{0}}, axis={axis})",
        )
    atom = log.only("log_erfc")
    if atom is not None:
        return Term(tf.math.erfc, (atom.arg.term(),), "erfc({0})")
    pieces, const = log.folded()
    if const == 0.0 and len(pieces) == 1:
        ((c, atom),) = pieces
        if c == -1.0 and atom.kind == "log_sigmoid" and need is None:
            return Term(
                lambda u: 1.0 + tf.exp(u),
                (atom.arg.times(-1.0).term(),),
                "1 + exp({0})",
            )
    exponent = log.term()
    if need is not None:
        exponent = shield(need, exponent, 0.0, _overflows)
    return Term(tf.exp, (exponent,), "exp({0})")


def _code(factor, op):
    pieces, _ = factor.log.folded()
    kinds = {atom.kind for c, atom in pieces if c > 0}
    if op.type in ("Sqrt", "Rsqrt"):
        return "SK308"
    if kinds == {"log_softmax"}:
        return "SK303"
    if kinds == {"log_sigmoid"}:
        return "SK305"
    return "SK306"


def _signed_logs(factors, tensor):
    """Returns `{log.key: (sign, log)}` of a sum of exponentials, or `None`."""
    const, parts = summands(factors, [(1.0, tensor)])
    found = [(sign, factors.of(t)) for sign, t in parts]
    if len(parts) + bool(const) != 2 or not all(f.bare for _, f in found):
        return None
    logs = [(sign, f.log) for sign, f in found]
    if const:
        log = Linear(const=math.log(abs(const)))
        logs.append((math.copysign(1.0, const), log))
    return {log.key: (sign, log) for sign, log in logs}


def _tanh(context, op):
    """Rewrites `(exp(a) - exp(b)) / (exp(a) + exp(b))`."""
    above = _signed_logs(context.factors, op.inputs[0])
    if above is None or {s for s, _ in above.values()} != {1.0, -1.0}:
        return None
    below = _signed_logs(context.factors, op.inputs[1])
    if below is None or below.keys() != above.keys():
        return None
    if any(sign < 0 for sign, _ in below.values()):
        return None
    half = Linear()
    for sign, log in above.values():
        half = half.plus(log, 0.5 * sign)
    return Proposal("SK306", Term(native.tanh, (half.term(),), "tanh({0})"))


def _ratio(context, op):
    factor = context.factors.of(op.outputs[0])
    if not factor.log or factor.guarded or not _is_hazard(context, op):
        return None
    return Proposal(
        _code(factor, op),
        value_term(factor),
        shielded=lambda need: value_term(factor, need),
    )


def _is_hazard(context, op):
    reading, factors = context.reading, context.factors
    if op.type in ("RealDiv", "Div"):
        below = op.inputs[1]
        return bool(factors.of(below).log) and not is_benign(reading, below)
    if op.type == "Mul":
        a, b = op.inputs
        if not factors.of(a).log or not factors.of(b).log:
            return False
        if reading.same(a, b):
            return False
        return any(
            factors.of(t).bare and reading.bounds(t)[1] == math.inf
            for t in (a, b)
        )
    if op.type == "Pow":
        exponent = reading.scalar(op.inputs[1])
        if exponent is None or exponent >= 1:
            return False
    inner = factors.of(op.inputs[0])
    return bool(inner.log) and not is_benign(reading, op.inputs[0])


def _difference(context, op):
    """Rewrites `1 - p`, `1 + erf(x)` and `exp(x) - 1`."""
    reading, factors = context.reading, context.factors
    a, b = op.inputs
    sums = op.type in ("Add", "AddV2")
    for one, x in ((a, b), (b, a)):
        number = reading.scalar(one)
        first = one is a
        inner = reading.source(x).op
        if number == 1.0 and (first or sums):
            if inner.type == "Erf":
                found = complement(factors, x, sign=1.0 if sums else -1.0)
            elif sums:
                continue
            elif inner.type == "Exp":
                return _expm1(inner, negative=True)
            else:
                found = complement(factors, x)
            if found is None or not found.bare or found.guarded:
                continue
            known = ("log_sigmoid", "log_erfc")
            if any(found.log.only(kind) for kind in known):
                return Proposal("SK103", value_term(found))
        if inner.type != "Exp":
            continue
        if number == (-1.0 if sums else 1.0) and (sums or not first):
            return _expm1(inner, negative=False)
    return None


def _expm1(inner, negative):
    def term(x):
        value = Term(tf.math.expm1, (x,), "expm1({0})")
        return Term(tf.negative, (value,), "-{0}") if negative else value

    x = Leaf(inner.inputs[0])
    return Proposal(
        "SK103",
        term(x),
        shielded=lambda need: term(shield(need, x, 0.0, _overflows)),
    )


def _overflows(x):
    return tf.math.is_inf(tf.exp(x)) & (x > 0)


PATTERNS = (
    Pattern(
        "tanh of exponentials",
        ("SK306",),
        frozenset({"RealDiv", "Div"}),
        "(exp(a) - exp(b)) / (exp(a) + exp(b))",
        "tanh((a - b) / 2)",
        _tanh,
    ),
    Pattern(
        "ratio of exponentials",
        ("SK204", "SK303", "SK305", "SK306", "SK308"),
        frozenset(
            {
                "RealDiv",
                "Div",
                "Mul",
                "Reciprocal",
                "Inv",
                "Sqrt",
                "Rsqrt",
                "Pow",
            }
        ),
        "exp(z) / sum(exp(z)), 1 / (1 + exp(-z)), exp(a) / exp(b), "
        "p / (1 - p), sqrt(exp(x))",
        "softmax(z), sigmoid(z), exp(a - b), exp(z), exp(x / 2)",
        _ratio,
    ),
    Pattern(
        "difference to one",
        ("SK103",),
        frozenset({"Sub", "Add", "AddV2"}),
        "1 - sigmoid(x), 1 - erf(x), exp(x) - 1",
        "sigmoid(-x), erfc(x), expm1(x)",
        _difference,
    ),
)
