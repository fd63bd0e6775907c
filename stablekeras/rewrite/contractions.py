"""Matrix products and `einsum` of exponentials, as factors.

With one summand an output entry they are products; with few, sums of them
with the greatest exponent of each output taken out. Where that would need
too much memory, the greatest exponent of each row is taken out instead, and
they stay matrix products.
"""

import math
import string

import tensorflow as tf

from stablekeras.rewrite.factor import Factor, product, spread
from stablekeras.rewrite.linear import Atom, Linear
from stablekeras.rewrite.special import exp_where
from stablekeras.rewrite.terms import Leaf, Term
from stablekeras.rewrite.totals import shifted_by, usable

__all__ = ["contraction", "equation_of"]

# Summands and weights that are spread out for each output entry.
_MOST = 1024


def equation_of(op):
    """Returns the labels of the inputs and of the output, or `None`.

    Args:
        op: A matrix product or an einsum.
    """
    if op.type == "Einsum":
        equation = op.get_attr("equation").decode()
        if "." in equation or "->" not in equation:
            return None
        inputs, output = equation.replace(" ", "").split("->")
        labels = inputs.split(",")
        if any(len(set(one)) < len(one) for one in (*labels, output)):
            return None
        return labels, output
    ranks = [t.shape.rank for t in op.inputs]
    if None in ranks or ranks[0] != ranks[1]:
        return None
    letters = string.ascii_lowercase
    batch = letters[3 : 1 + ranks[0]]
    names = ("transpose_a", "transpose_b")
    if op.type != "MatMul":
        names = ("adj_x", "adj_y")
    a, b = (op.get_attr(name) for name in names)
    return [batch + ("ba" if a else "ab"), batch + ("cb" if b else "bc")], (
        batch + "ac"
    )


def contraction(factors, op):
    """Returns the factor of a matrix product or an einsum, or `None`."""
    found = equation_of(op)
    parts = [factors.of(t) for t in op.inputs]
    if found is None or not any(p.log for p in parts):
        return None
    labels, output = found
    sources = [factors.reading.source(t) for t in op.inputs]
    if any(
        t.shape.rank != len(one) for t, one in zip(sources, labels, strict=True)
    ):
        return None
    summed = "".join(dict.fromkeys("".join(labels)))
    summed = "".join(label for label in summed if label not in output)
    guarded = any(p.guarded for p in parts)
    if _is_small(sources, labels, summed):
        return _spread_out(parts, sources, labels, output, summed, guarded)
    return _row_by_row(parts, sources, labels, output, guarded)


def _is_small(sources, labels, summed):
    sizes: dict = {}
    for source, one in zip(sources, labels, strict=True):
        for label, size in zip(one, source.shape, strict=True):
            sizes[label] = size if size is not None else sizes.get(label)
    full = set("".join(labels))
    if any(full == set(one) for one in labels):
        return True
    # The exponentials come in rows; what they are summed with is repeated.
    repeated = min(
        labels, key=lambda one: math.prod(sizes[k] or 1 << 20 for k in one)
    )
    needed = [sizes[label] for label in {*repeated, *summed}]
    return all(needed) and math.prod(needed) <= _MOST


def _laid(term, labels, order):
    """Returns a term with its axes in an order, and 1 for those it lacks."""
    places = [labels.index(label) for label in order if label in labels]
    index = tuple(
        slice(None) if label in labels else tf.newaxis for label in order
    )

    def lay(x):
        if places != sorted(places):
            x = tf.transpose(x, places)
        return x[index] if tf.newaxis in index else x

    return Term(lay, (term,), "{0}")


def _spread_out(parts, sources, labels, output, summed, guarded):
    order = output + summed
    axes = tuple(range(len(output), len(order)))
    weight, logs = None, []
    for part, source, one in zip(parts, sources, labels, strict=True):
        if part.log or part.bare:
            term = spread(part.log.term(), source)
            logs.append(_laid(term, one, order))
        if part.weight is not None:
            term = spread(part.weight, source)
            weight = product(weight, _laid(term, one, order))
    total = logs[0]
    for term in logs[1:]:
        total = Term(tf.add, (total, term), "{0} + {1}")
    if not summed:
        inner = next(p.log for p in parts if p.log)
        log = Atom("moved", id(total), lambda: total, inner).linear()
        return Factor(weight, log, guarded)
    weight = weight or Term(tf.ones_like, (total,), "1")

    def peak(w, x):
        low = tf.constant(-math.inf, x.dtype)
        x = tf.where(tf.equal(w, 0), low, x)
        return usable(tf.reduce_max(x, axes, keepdims=True))

    top = Term(peak, (weight, total), "max")
    value = Term(
        lambda w, x, m: tf.reduce_sum(w * exp_where(w, x - m), axes),
        (weight, total, top),
        "sum(({0}) * exp({1} - max))",
    )
    shift = Term(lambda m: tf.squeeze(m, axes), (top,), "max({0})")
    return Factor(value, shifted_by(shift).linear(), guarded)


def _row_by_row(parts, sources, labels, output, guarded):
    if not all(p.bare or not p.log for p in parts):
        return None
    log = Linear()
    args: list[Term] = []
    for part, source, one in zip(parts, sources, labels, strict=True):
        if not part.log:
            args.append(Leaf(source))
            continue
        inner = spread(part.log.term(), source)
        axes = tuple(i for i, label in enumerate(one) if label not in output)
        top = Term(
            lambda x, axes=axes: usable(tf.reduce_max(x, axes, keepdims=True)),
            (inner,),
            "max({0})",
        )
        args.append(
            Term(lambda x, m: tf.exp(x - m), (inner, top), "exp({0} - max)")
        )
        kept = "".join(label for label in one if label in output)
        squeezed = Term(lambda m, axes=axes: tf.squeeze(m, axes), (top,), "{0}")
        log = log.plus(shifted_by(_laid(squeezed, kept, output)).linear())
    equation = ",".join(labels) + "->" + output
    slots = " @ ".join(f"{{{i}}}" for i in range(len(args)))
    return Factor(
        Term(lambda *x: tf.einsum(equation, *x), args, slots), log, guarded
    )
