"""Logarithms of what may round to zero or overflow before the log."""

import tensorflow as tf

from stablekeras.rewrite import native
from stablekeras.rewrite.differences import log_of
from stablekeras.rewrite.linear import add_terms, scale_term
from stablekeras.rewrite.pattern import Pattern, Proposal
from stablekeras.rewrite.patterns.exact import is_benign, neg_of
from stablekeras.rewrite.shield import shield
from stablekeras.rewrite.terms import Leaf, Term
from stablekeras.rewrite.totals import complement

__all__ = ["PATTERNS", "log_term"]

_SOFTPLUS = ("Softplus", "Log", "Log1p")
_AROUND = ("moved", "chosen", "joined", "log_chance")
_CODES = {
    "log_softmax": "SK101",
    "log_sigmoid": "SK102",
    "log_rest": "SK103",
    "log1mexp": "SK103",
    "log_erfc": "SK103",
    "log_sum": "SK304",
    "log_add": "SK304",
    "log_cosh": "SK304",
}


def log_term(factor, need=()):
    """Returns the term of the logarithm of a factor.

    Args:
        factor: The `Factor`.
        need: Where the logarithm is needed; by default everywhere.
    """
    weight, log = log_of(factor)
    if weight is None:
        return log.term()
    if need and weight.function is tf.math.reciprocal:
        below = shield(need, weight.args[0], 1.0, _has_no_log)
        return add_terms(
            log.term(), scale_term(Term(tf.math.log, (below,), "log({0})"), -1)
        )
    if need:
        weight = shield(need, weight, 1.0, _has_no_log)
    return add_terms(Term(tf.math.log, (weight,), "log({0})"), log.term())


def _has_no_log(x):
    return x <= 0


def _code_of(context, factor, op):
    """Returns the code of the hazard that a log of this factor is."""
    log = log_of(factor)[1]
    pieces, _ = log.folded()
    kinds = [atom.kind for _, atom in pieces]
    if any(c < 0 and atom.kind == "log_sigmoid" for c, atom in pieces):
        return "SK302"
    for kind, code in _CODES.items():
        if kind in kinds:
            return code
    return _code_inside(log) or "SK106"


def _code_inside(log):
    """Returns the code of what was moved, chosen or joined."""
    for _, atom in log.folded()[0]:
        if atom.kind in _CODES:
            return _CODES[atom.kind]
        if atom.kind in _AROUND and atom.arg:
            found = _code_inside(atom.arg)
            if found:
                return found
    return None


def _log(context, op):
    x = op.inputs[0]
    if context.reading.constant(x) is not None:
        return None
    if is_benign(context.reading, x):
        return _log_near_one(context, op)
    factor = context.factors.of(x)
    if factor.log:
        return Proposal(
            _code_of(context, factor, op),
            log_term(factor),
            shielded=lambda need: log_term(factor, need),
        )
    return _log_near_one(context, op)


def _log_of_softplus(context, op):
    """Rewrites `log(softplus(x))`, by whichever formula it is one."""
    if context.reading.source(op.inputs[0]).op.type not in _SOFTPLUS:
        return None
    pieces, const = context.factors.linear(op.inputs[0]).folded()
    if const or [(c, a.kind) for c, a in pieces] != [(-1.0, "log_sigmoid")]:
        return None
    x = pieces[0][1].arg.times(-1.0)
    if x.const or not x:
        return None
    term = Term(native.log_softplus, (x.term(),), "log_softplus({0})")
    return Proposal("SK106", term)


def _log_near_one(context, op):
    source = context.reading.source(op.inputs[0])
    if source.op.type not in ("Add", "AddV2"):
        return None
    a, b = source.op.inputs
    for one, u in ((a, b), (b, a)):
        if context.reading.scalar(one) == 1.0:
            if context.reading.bounds(u)[0] >= 1e-2:
                return None
            term = Term(tf.math.log1p, (Leaf(u),), "log1p({0})")
            return Proposal("SK103", term)
    return None


def _log1p(context, op):
    u = op.inputs[0]
    low, high = context.reading.bounds(u)
    if low >= -0.5 and high <= 2.0:
        return None
    negated = neg_of(context.reading, u)
    if negated is not None:
        factor = complement(context.factors, negated)
    else:
        factor = complement(context.factors, u, sign=1.0)
    if factor is None or not factor.log:
        return None
    return Proposal(_code_of(context, factor, op), log_term(factor))


def _xlogy(context, op):
    factor = context.factors.of(op.inputs[1])
    if not factor.log or is_benign(context.reading, op.inputs[1]):
        return None
    weight = Leaf(op.inputs[0])
    term = Term(
        tf.math.multiply_no_nan, (log_term(factor), weight), "({1}) * ({0})"
    )
    return Proposal(_code_of(context, factor, op), term)


def _log_product(context, op):
    reading = context.reading
    source = reading.source(op.inputs[0])
    positive = False
    if source.op.type == "Abs":
        source = reading.source(source.op.inputs[0])
        positive = True
    inner = source.op
    if inner.type == "MatrixDeterminant":
        sign_text = "log(sign(det)) + " if not positive else ""

        def logdet(a):
            sign, log = tf.linalg.slogdet(a)
            return log if positive else _signed_log(sign, log)

        term = Term(
            logdet, (Leaf(inner.inputs[0]),), f"{sign_text}log_abs_det({{0}})"
        )
        return Proposal("SK107", term)
    if inner.type not in ("Prod", "Cumprod"):
        return None
    x = inner.inputs[0]
    keep = inner.type == "Prod" and inner.get_attr("keep_dims")

    def along(function_sum, function_cum, value, axes):
        if inner.type == "Prod":
            return function_sum(value, axes, keepdims=keep)
        return function_cum(
            value,
            axes,
            exclusive=inner.get_attr("exclusive"),
            reverse=inner.get_attr("reverse"),
        )

    positive = positive or reading.bounds(x)[0] >= 0

    def log_product(value, axes):
        log = along(tf.reduce_sum, tf.cumsum, tf.math.log(tf.abs(value)), axes)
        if positive:
            return log
        sign = along(tf.reduce_prod, tf.math.cumprod, tf.sign(value), axes)
        return _signed_log(sign, log)

    term = Term(
        log_product,
        (Leaf(x), Leaf(inner.inputs[1], cast=False)),
        "sum(log({0}))",
    )
    return Proposal("SK107", term)


def _signed_log(sign, log):
    # The logarithm of a negative product is NaN, as it was.
    wrong = tf.stop_gradient(sign) < 0
    return tf.where(wrong, tf.constant(float("nan"), log.dtype), log)


PATTERNS = (
    Pattern(
        "log of exponentials",
        (
            *("SK101", "SK102", "SK103", "SK104", "SK105", "SK106"),
            *("SK212", "SK302", "SK304"),
        ),
        frozenset({"Log"}),
        "log(softmax(z)), log(sigmoid(z)), log(1 - sigmoid(z)), "
        "log(1 - sigmoid(z) + eps), log(clip(softmax(z), eps, 1)), "
        "log(sum(exp(z))), log(1 + exp(z)), log(exp(a) - exp(b)), "
        "log(softmax(a) / softmax(b))",
        "log_softmax(z), log_sigmoid(z), log_sigmoid(-z), logsumexp(z), "
        "softplus(z), a + log1mexp(a - b), log_softmax(a) - log_softmax(b)",
        _log,
    ),
    Pattern(
        "log of a product",
        ("SK107",),
        frozenset({"Log"}),
        "log(prod(x)), log(cumprod(x)), log(det(A))",
        "sum(log(x)), cumsum(log(x)), slogdet(A)",
        _log_product,
    ),
    Pattern(
        "log of softplus",
        ("SK106",),
        frozenset({"Log"}),
        "log(softplus(x)), log(log(1 + exp(x)))",
        "log_softplus(x), which tends to x",
        _log_of_softplus,
    ),
    Pattern(
        "log1p of exponentials",
        ("SK102", "SK103", "SK302", "SK304"),
        frozenset({"Log1p"}),
        "log1p(exp(x)), log1p(-exp(-x)), log1p(-sigmoid(x))",
        "softplus(x), log1mexp(x), log_sigmoid(-x)",
        _log1p,
    ),
    Pattern(
        "xlogy of exponentials",
        ("SK101", "SK102", "SK103", "SK106", "SK302", "SK304"),
        frozenset({"Xlogy"}),
        "xlogy(x, softmax(z))",
        "x * log_softmax(z)",
        _xlogy,
    ),
)
