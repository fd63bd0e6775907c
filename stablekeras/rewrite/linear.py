"""Logarithms as sums: the normal form that formulas are compared in.

A `Linear` is `c0 + c1 * a1 + c2 * a2 + ...` over *atoms*. An atom is a tensor
of the graph or one of the stable functions of other such sums. As the sigmoid
is held as `log_sigmoid`, the softmax as `z - logsumexp(z)`, two formulas of
one function have one form: `p / (1 - p)` of a sigmoid is `exp(z)` because
`log_sigmoid(z) - (log_sigmoid(z) - z)` is `z`.
"""

import math

import tensorflow as tf

from stablekeras.rewrite import native
from stablekeras.rewrite.terms import Leaf, Number, Term

__all__ = [
    "Atom",
    "Linear",
    "add_terms",
    "log_add",
    "log_cosh",
    "log_one_minus_exp",
    "log_sigmoid",
    "log_sum",
    "plain",
    "scale_term",
]


class Linear:
    """A sum of atoms with constant factors.

    Args:
        parts: `{key: (atom, factor)}`.
        const: The constant.
    """

    def __init__(self, parts=None, const=0.0):
        self.parts = dict(parts or {})
        self.const = float(const)

    @property
    def key(self):
        """Equal for equal sums."""
        return (
            frozenset((k, round(c, 9)) for k, (_, c) in self.parts.items()),
            round(self.const, 12),
        )

    def __bool__(self):
        return bool(self.parts)

    def plus(self, other, factor=1.0):
        """Returns `self + factor * other`."""
        parts = dict(self.parts)
        for key, (atom, c) in other.parts.items():
            total = parts[key][1] + factor * c if key in parts else factor * c
            if abs(total) < 1e-9:
                parts.pop(key, None)
            else:
                parts[key] = (atom, total)
        return Linear(parts, self.const + factor * other.const)

    def times(self, factor):
        """Returns `factor * self`."""
        return Linear().plus(self, factor)

    def share(self, other):
        """Returns `r` if `self` holds `r * other` in all its atoms, else 0."""
        rates = [
            self.parts[k][1] / c if k in self.parts else 0.0
            for k, (_, c) in other.parts.items()
        ]
        if not rates or max(rates) - min(rates) > 1e-9:
            return 0.0
        return rates[0]

    def only(self, kind):
        """Returns the atom if the sum is just one atom of that kind."""
        pieces, const = self.folded()
        if const == 0.0 and len(pieces) == 1:
            ((factor, atom),) = pieces
            if factor == 1.0 and atom.kind == kind:
                return atom
        return None

    def folded(self):
        """Returns `([(factor, atom)], const)` in the most accurate form."""
        rest, pieces = _fold_all_softmaxes(self)
        # What stands around others first: inside, they are still together.
        order = sorted(self.parts.items(), key=lambda p: -p[1][0].depth)
        for key, (atom, _) in order:
            for fold in (_fold_softmax, _fold_pairs, _fold_sigmoid):
                if key in rest.parts:
                    rest, found = fold(rest, key, atom)
                    pieces += found
        pieces += [(c, atom) for atom, c in rest.parts.values()]
        return pieces, rest.const

    def term(self):
        """Returns the `Term` that computes the sum."""
        pieces, const = self.folded()
        pieces.sort(key=lambda piece: piece[0] < 0)
        terms = [_piece_term(atom, c) for c, atom in pieces]
        if const or not terms:
            terms.append(Number(const))
        total = terms[0]
        for term in terms[1:]:
            total = add_terms(total, term)
        return total


class Atom:
    """A tensor, or a stable function of other sums.

    Args:
        kind: `"tensor"`, `"log_sigmoid"`, `"log_sum"`, ...
        key: Equal for equal atoms.
        make: Function without arguments that returns the `Term`.
        arg: The `Linear` it is a function of, where folding needs it.
        axes: Axes of a sum along axes.
    """

    def __init__(self, kind, key, make, arg=None, axes=None):
        self.kind = kind
        self.key = (kind, key)
        self.make = make
        self.arg = arg
        self.axes = axes
        # How many functions stand inside each other.
        self.depth = 1 + max(
            (
                inner.depth
                for part in (arg if isinstance(arg, list) else [arg])
                if isinstance(part, Linear)
                for inner, _ in part.parts.values()
            ),
            default=0,
        )
        self._term = None

    def term(self):
        """Returns the `Term` that computes the atom."""
        if self._term is None:
            self._term = self.make()
        return self._term

    def linear(self, factor=1.0):
        """Returns `factor * atom`."""
        return Linear({self.key: (self, float(factor))})


def plain(tensor):
    """Returns a tensor as a sum of one atom."""
    return Atom("tensor", id(tensor), lambda: Leaf(tensor)).linear()


def add_terms(a, b):
    """Returns the term `a + b`, written as a difference where it is one."""
    if isinstance(b, Number):
        if b.value == 0.0:
            return a
        sign = "-" if b.value < 0 else "+"
        return Term(tf.add, (a, b), f"{{0}} {sign} {abs(b.value):g}")
    if b.text.startswith("-") and len(b.args) == 1 and b.text == "-{0}":
        return Term(tf.subtract, (a, b.args[0]), "{0} - {1}")
    return Term(tf.add, (a, b), "{0} + {1}")


def scale_term(term, factor):
    """Returns the term `factor * term`."""
    if factor == 1.0:
        return term
    if factor == -1.0:
        return Term(tf.negative, (term,), "-{0}")
    return Term(
        lambda x: x * tf.constant(factor, x.dtype),
        (term,),
        f"{factor:g} * {{0}}",
    )


def _piece_term(atom, factor):
    if atom.kind == "log_sigmoid" and factor < 0:
        arg = atom.arg.times(-1.0)
        return scale_term(
            Term(tf.nn.softplus, (arg.term(),), "softplus({0})"), -factor
        )
    return scale_term(atom.term(), factor)


def log_sigmoid(arg):
    """Returns `log(sigmoid(arg))` as a sum."""
    if not arg:
        low = arg.const
        return Linear(const=min(low, 0.0) - math.log1p(math.exp(-abs(low))))
    first = min(arg.parts, key=_order)
    if arg.parts[first][1] < 0:
        return log_sigmoid(arg.times(-1)).plus(arg)
    return _log_sigmoid_atom(arg).linear()


def _order(key):
    return (key[0], hash(key))


def _log_sigmoid_atom(arg):
    def make():
        if all(c < 0 for _, c in arg.parts.values()):
            return Term(
                lambda x: -tf.nn.softplus(x),
                (arg.times(-1.0).term(),),
                "log_sigmoid(-{0})",
            )
        return Term(native.log_sigmoid, (arg.term(),), "log_sigmoid({0})")

    return Atom("log_sigmoid", arg.key, make, arg)


def log_cosh(arg):
    """Returns `log(cosh(arg))` as a sum."""
    if arg.parts[min(arg.parts, key=_order)][1] < 0:
        arg = arg.times(-1.0)
    return Atom(
        "log_cosh",
        arg.key,
        lambda: Term(native.log_cosh, (arg.term(),), "log_cosh({0})"),
        arg,
    ).linear()


def log_add(logs):
    """Returns `log(exp(a) + exp(b) + ...)`, entry by entry, as a sum."""
    if len(logs) == 2:
        for one, other in (logs, logs[::-1]):
            if not one:  # log(c + exp(x)) = log(c) + softplus(x - log(c))
                x = other.plus(one, -1.0)
                return one.plus(x).plus(log_sigmoid(x), -1.0)
        if logs[0].key == logs[1].times(-1.0).key:
            return log_cosh(logs[0]).plus(Linear(const=math.log(2.0)))
    return Atom(
        "log_add",
        tuple(log.key for log in logs),
        lambda: _log_add_term([log.term() for log in logs]),
        list(logs),
    ).linear()


def _log_add_term(terms):
    total = terms[0]
    for term in terms[1:]:
        total = Term(native.logaddexp, (total, term), "logaddexp({0}, {1})")
    return total


def log_sum(arg, axes, keepdims, constant_along=None, spread=None, folds=True):
    """Returns `log(sum(exp(arg), axes))` as a sum.

    Args:
        arg: A `Linear`.
        axes: Tuple of axes.
        keepdims: Whether the axes stay, with size 1.
        constant_along: Function of an atom: whether it does not change along
            the axes, so that it can leave the sum.
        spread: Function that gives a term of `arg` the full shape.
        folds: Whether `arg` has that shape along the axes by itself, so that
            `arg - log_sum` is `log_softmax(arg)`.
    """
    outside = Linear()
    if keepdims and constant_along is not None:
        for atom, c in arg.parts.values():
            if constant_along(atom):
                outside = outside.plus(atom.linear(c))
        arg = arg.plus(outside, -1.0)
    outside = outside.plus(Linear(const=arg.const))
    arg = Linear(arg.parts)
    softmax = arg.only("log_softmax")
    if softmax is not None and softmax.axes == axes and folds:
        return outside  # probabilities sum to 1
    if not arg:
        raise NotImplementedError("a sum of equal terms")
    spread = spread or (lambda term: term)
    return outside.plus(
        Atom(
            "log_sum",
            (arg.key, axes, keepdims),
            lambda: Term(
                lambda x: native.logsumexp(x, axis=axes, keepdims=keepdims),
                (spread(arg.term()),),
                f"logsumexp({{0}}, axis={_axes_text(axes)})",
            ),
            arg,
            axes if keepdims and folds else None,
        ).linear()
    )


def _axes_text(axes):
    return str(axes[0]) if len(axes) == 1 else str(axes)


def log_one_minus_exp(arg):
    """Returns `log(1 - exp(-arg))` as a sum."""
    return Atom(
        "log1mexp",
        arg.key,
        lambda: Term(native.log1mexp, (arg.term(),), "log1mexp({0})"),
        arg,
    ).linear()


def _is_normalizer(atom):
    """Whether `arg - atom` is a `log_softmax`."""
    return atom.kind == "log_sum" and len(atom.axes or ()) == 1


def _fold_all_softmaxes(log):
    """Returns `a - b - logsumexp(a) + logsumexp(b)` as two `log_softmax`.

    Each is rounded by what it is, not by the greatest logit. Only where
    nothing of the logits is left.
    """
    sums = [p for p in log.parts.values() if _is_normalizer(p[0])]
    rest, inside = log, set()
    for atom, factor in sums:
        rest = rest.plus(atom.linear(), -factor).plus(atom.arg, factor)
        inside |= atom.arg.parts.keys()
    if len(sums) < 2 or inside & rest.parts.keys():
        return log, []
    return rest, [(-c, _log_softmax_atom(atom)) for atom, c in sums]


def _log_softmax_atom(atom):
    axis = atom.axes[0]
    return Atom(
        "log_softmax",
        (atom.arg.key, axis),
        lambda: Term(
            lambda z: native.log_softmax(z, axis=axis),
            (atom.arg.term(),),
            f"log_softmax({{0}}, axis={axis})",
        ),
        atom.arg,
        atom.axes,
    )


def _fold_softmax(rest, key, atom):
    """Returns `z - logsumexp(z)` as `log_softmax(z)`."""
    factor = rest.parts[key][1]
    if not _is_normalizer(atom):
        return rest, []
    rate = rest.share(atom.arg)
    if rate * factor >= 0:
        return rest, []
    count = math.copysign(min(abs(rate), abs(factor)), rate)
    rest = rest.plus(atom.arg, -count).plus(atom.linear(), count)
    return rest, [(count, _log_softmax_atom(atom))]


def _fold_pairs(rest, key, atom):
    """Returns `a - logaddexp(a, b)` as `log_sigmoid(a - b)`."""
    factor = rest.parts[key][1]
    if atom.kind != "log_add" or len(atom.arg) != 2 or factor > -1:
        return rest, []
    for one, other in (atom.arg, atom.arg[::-1]):
        if one and rest.share(one) >= 1:
            rest = rest.plus(one, -1.0).plus(atom.linear())
            return rest, [(1.0, _log_sigmoid_atom(one.plus(other, -1.0)))]
    return rest, []


def _fold_sigmoid(rest, key, atom):
    """Returns `log_sigmoid(u) - u` as `log_sigmoid(-u)`."""
    factor = rest.parts[key][1]
    if atom.kind != "log_sigmoid":
        return rest, []
    other = -rest.share(atom.arg)
    low, high = min(factor, 0.0), max(factor, 0.0)
    other = min(max(other, low), high)
    if other == 0.0:
        return rest, []
    rest = rest.plus(atom.linear(), -factor).plus(atom.arg, other)
    pieces = [(other, _log_sigmoid_atom(atom.arg.times(-1)))]
    if factor != other:
        pieces.append((factor - other, atom))
    return rest, pieces
