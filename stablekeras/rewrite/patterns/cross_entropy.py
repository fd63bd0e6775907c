"""The binary cross-entropy, whose two logarithms need one softplus."""

from stablekeras.rewrite import native
from stablekeras.rewrite.pattern import Pattern, Proposal
from stablekeras.rewrite.terms import Leaf, Term

__all__ = ["PATTERNS"]


def _cross_entropy(context, op):
    """Rewrites `y * log(p) + (1 - y) * log(1 - p)` of a sigmoid `p`."""
    a, b = (_weighed_log(context, t) for t in op.inputs)
    if a is None or b is None:
        return None
    sign = a[0]
    if b[0] != (sign if op.type != "Sub" else -sign):
        return None
    if not _is_rest(context.reading, b[1], a[1]):
        a, b = b, a
    (_, y, x), (_, rest, other) = a, b
    if not _is_rest(context.reading, rest, y):
        return None
    if x.key != other.times(-1.0).key:
        return None

    def value(y, x):
        found = native.cross_entropy(y, x)
        return found if sign > 0 else -found

    text = "binary_cross_entropy({0}, sigmoid({1}))"
    text = "-" + text if sign > 0 else text
    return Proposal("SK102", Term(value, (Leaf(y), x.term()), text))


def _weighed_log(context, tensor):
    """Returns `(sign, w, x)` of `±w * log(sigmoid(x))`, or `None`."""
    sign, tensor = _without_sign(context.reading, tensor)
    if tensor.op.type != "Mul":
        return None
    for w, log in (tensor.op.inputs, tensor.op.inputs[::-1]):
        inner, log = _without_sign(context.reading, log)
        if log.op.type not in ("Log", "Log1p"):
            continue
        pieces, const = context.factors.linear(log).folded()
        if const or [(c, p.kind) for c, p in pieces] != [(1.0, "log_sigmoid")]:
            continue
        outer, w = _without_sign(context.reading, w)
        return sign * inner * outer, w, pieces[0][1].arg
    return None


def _without_sign(reading, tensor):
    sign, tensor = 1, reading.source(tensor)
    while tensor.op.type == "Neg":
        sign, tensor = -sign, reading.source(tensor.op.inputs[0])
    return sign, tensor


def _is_rest(reading, rest, y):
    """Whether `rest` is `1 - y`."""
    op = reading.source(rest).op
    if op.type != "Sub" or reading.scalar(op.inputs[0]) != 1.0:
        return False
    return reading.same(op.inputs[1], y)


PATTERNS = (
    Pattern(
        "binary cross-entropy",
        ("SK102",),
        frozenset({"Add", "AddV2", "Sub"}),
        "y * log(sigmoid(z)) + (1 - y) * log(1 - sigmoid(z))",
        "-binary_cross_entropy(y, sigmoid(z)), by one softplus of z",
        _cross_entropy,
    ),
)
