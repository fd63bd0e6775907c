"""Sums of exponentials, entry by entry and along axes, as factors."""

import math

import tensorflow as tf

from stablekeras.rewrite.differences import difference
from stablekeras.rewrite.factor import Factor, spread
from stablekeras.rewrite.linear import (
    Atom,
    Linear,
    log_add,
    log_sigmoid,
    log_sum,
)
from stablekeras.rewrite.special import (
    exp_where,
    log_erfc_of,
    log_one_minus_softmax,
)
from stablekeras.rewrite.terms import Number, Term, moved, moved_place, raw

__all__ = [
    "GUARD",
    "complement",
    "log_total",
    "shifted_by",
    "summands",
    "total",
    "total_along",
    "usable",
]

# A bound or an added constant up to this is a guard against log(0).
GUARD = 1e-5
_SUMS = {"Add": 1.0, "AddV2": 1.0, "Sub": -1.0}


def total(factors, signed):
    """Returns the factor of a sum, or `None` where nothing is gained.

    Args:
        factors: The `Factors`.
        signed: `(sign, tensor)` of each summand.
    """
    dtype = signed[0][1].dtype
    const, parts = summands(factors, signed)
    if not 1 <= len(parts) <= 16:
        return None
    if len(parts) == 1:
        ((sign, tensor),) = parts
        special = _one_and(factors, const, sign, tensor, dtype)
        if special is not None:
            return special
    found = [(sign, factors.of(tensor)) for sign, tensor in parts]
    if not all(f.log for _, f in found):
        return None
    guarded = any(f.guarded for _, f in found)
    if all(f.bare for _, f in found):
        signs = [sign for sign, _ in found]
        logs = [f.log for _, f in found]
        if const > 0:
            logs.append(Linear(const=math.log(const)))
            signs.append(1.0)
        elif const < 0:
            logs.append(Linear(const=math.log(-const)))
            signs.append(-1.0)
        if all(sign > 0 for sign in signs):
            log = logs[0] if len(logs) == 1 else log_add(logs)
            return Factor(None, log, guarded)
        if sorted(signs) == [-1.0, 1.0]:
            large, small = logs if signs[0] > 0 else logs[::-1]
            return difference(large, small, guarded)
    weighed = [(_signed(sign, f.weight), f.log.term()) for sign, f in found]
    if const:
        weighed.append((Number(const), Number(0.0)))
    return _weighted(weighed, guarded)


def summands(factors, signed):
    """Returns the constant and the other summands of nested sums."""
    const, pending = 0.0, list(signed)[::-1]
    parts: list = []
    while pending:
        sign, tensor = pending.pop()
        number = factors.reading.scalar(tensor)
        source = factors.reading.source(tensor)
        if number is not None and math.isfinite(number):
            const += sign * number
        elif source.op.type in _SUMS and len(parts) + len(pending) < 16:
            a, b = source.op.inputs
            pending.append((sign * _SUMS[source.op.type], b))
            pending.append((sign, a))
        else:
            parts.append((sign, source))
    return const, parts


def _signed(sign, weight):
    weight = weight or Number(1.0)
    if sign > 0:
        return weight
    return Term(tf.negative, (weight,), "-{0}")


def _one_and(factors, const, sign, tensor, dtype):
    """Returns the factor of `const ± tensor`."""
    extra = const
    base = factors.of(tensor)
    if abs(const - 1.0) <= GUARD:
        if sign < 0:
            inside = complement(factors, tensor)
        else:
            inside = complement(factors, tensor, sign=1.0)
        if inside is None:
            return None
        # The dtype may have rounded 1 + epsilon.
        extra = const - 1.0
        base = inside
        chance = True
    else:
        if sign < 0 or not 0 < const <= GUARD or not base.bare or not base.log:
            return None
        chance = factors.is_chance(tensor)
    if abs(extra) < 1e-17 or (0 < extra <= _resolution(dtype) and chance):
        guarded = base.guarded or extra > 0
        return Factor(base.weight, base.log, guarded)
    if extra < 0 or not base.bare:
        return None
    return Factor(
        None,
        log_add([base.log, Linear(const=math.log(extra))]),
        base.guarded,
    )


def _resolution(dtype):
    return {
        tf.float16: 2.0**-10,
        tf.bfloat16: 2.0**-7,
        tf.float32: 2.0**-23,
    }.get(dtype, 2.0**-52)


def complement(factors, tensor, sign=-1.0):
    """Returns the factor of `1 - tensor`, or of `1 + tensor`.

    Only functions for which the difference loses digits are known.
    """
    number = factors.reading.scalar(tensor)
    if number is not None:
        if 1.0 + sign * number <= 0:
            return None
        return Factor(None, Linear(const=math.log1p(sign * number)))
    tensor = factors.reading.source(tensor)
    op = tensor.op
    if op.type == "Erf":
        arg = factors.linear(op.inputs[0])
        return Factor(None, log_erfc_of(arg.times(-sign)))
    if op.type == "Tanh":
        arg = factors.linear(op.inputs[0]).times(2.0 * sign)
        two = Linear(const=math.log(2.0))
        return Factor(None, log_sigmoid(arg).plus(two))
    if sign > 0:
        base = factors.of(tensor)
        if not base.bare or not base.log:
            return None
        return Factor(None, log_add([Linear(), base.log]), base.guarded)
    root = _root_of_square(factors, op)
    if root is not None and root.op.type == "Tanh":
        arg = factors.linear(root.op.inputs[0]).times(2.0)
        both = log_sigmoid(arg).plus(log_sigmoid(arg.times(-1.0)))
        return Factor(None, both.plus(Linear(const=math.log(4.0))))
    if op.type in ("SelectV2", "Select"):
        a = complement(factors, op.inputs[1])
        b = complement(factors, op.inputs[2])
        if a and b and a.bare and b.bare:
            log = Atom(
                "log_chance",
                ("rest", id(op)),
                lambda: Term(
                    tf.where,
                    (raw(op.inputs[0]), a.log.term(), b.log.term()),
                    "where({0}, {1}, {2})",
                ),
                a.log or b.log,
            )
            return Factor(None, log.linear(), a.guarded or b.guarded)
    base = factors.of(tensor)
    if not base.bare or not base.log:
        return None
    place = moved_place(op)
    if place is not None:
        inside = complement(factors, op.inputs[place])
        atom = base.log.only("log_sigmoid")
        if inside is not None and atom is None and inside.bare:
            source = factors.reading.source(op.inputs[place])
            log = Atom(
                "log_chance",
                ("rest", id(op), tensor.value_index),
                lambda: moved(
                    op,
                    spread(inside.log.term(), source),
                    place,
                    tensor.value_index,
                ),
            )
            return Factor(None, log.linear(), inside.guarded)
    atom = base.log.only("log_sigmoid")
    if atom is not None:
        return Factor(None, log_sigmoid(atom.arg.times(-1.0)), base.guarded)
    atom = base.log.only("log_softmax")
    if atom is not None:
        return Factor(None, _log_rest(atom), base.guarded)
    return difference(
        Linear(), base.log, base.guarded, factors.is_chance(tensor)
    )


def _root_of_square(factors, op):
    if op.type == "Square":
        return factors.reading.source(op.inputs[0])
    if op.type == "Mul" and factors.reading.same(*op.inputs):
        return factors.reading.source(op.inputs[0])
    if op.type == "Pow" and factors.reading.scalar(op.inputs[1]) == 2.0:
        return factors.reading.source(op.inputs[0])
    return None


def _log_rest(softmax):
    axis = softmax.axes[0]
    return Atom(
        "log_rest",
        (softmax.arg.key, axis),
        lambda: Term(
            lambda z: log_one_minus_softmax(z, axis),
            (softmax.arg.term(),),
            f"log_one_minus_softmax({{0}}, axis={axis})",
        ),
    ).linear()


# --- weighted sums --------------------------------------------------------


def _weighted(weighed, guarded):
    """Returns `sum(w * exp(l))` as `sum(w * exp(l - m)) * exp(m)`."""
    flat = [term for pair in weighed for term in pair]

    def peak(*args):
        logs = [
            tf.where(tf.equal(w, 0), tf.constant(-math.inf, x.dtype), x)
            for w, x in zip(args[::2], args[1::2], strict=True)
        ]
        top = logs[0]
        for log in logs[1:]:
            top = tf.maximum(top, log)
        return usable(top)

    shift = Term(peak, flat, "max")

    def weigh(m, *args):
        return tf.add_n(
            _same_shape(
                [
                    w * exp_where(w, x - m)
                    for w, x in zip(args[::2], args[1::2], strict=True)
                ]
            )
        )

    text = " + ".join(
        f"({{{2 * i + 1}}}) * exp({{{2 * i + 2}}} - m)"
        for i in range(len(weighed))
    )
    weight = Term(weigh, [shift, *flat], text)
    return Factor(weight, shifted_by(shift).linear(), guarded)


def _same_shape(tensors):
    like = tensors[0]
    for tensor in tensors[1:]:
        like = tf.zeros_like(like) + tf.zeros_like(tensor)
    return [t if t.shape == like.shape else t + like for t in tensors]


def usable(peak):
    """Returns a greatest exponent to take out, 0 where it is not finite."""
    finite = tf.math.is_finite(peak)
    return tf.stop_gradient(tf.where(finite, peak, tf.zeros_like(peak)))


def shifted_by(term):
    """Returns the atom of an exponent that was taken out."""
    return Atom("shift", id(term), lambda: term)


def total_along(factors, op, kind):
    """Returns the factor of a sum or mean along axes, or `None`."""
    base = factors.of(op.inputs[0])
    axes = factors.reading.axes(op)
    rank = op.inputs[0].shape.rank
    if not base.log or axes is None or rank is None or not axes:
        return None
    keep = bool(op.get_attr("keep_dims"))
    source = factors.reading.source(op.inputs[0])
    mean = Linear()
    if kind == "mean":
        mean = _log_count(source, axes)
    if base.bare:
        log = log_sum(
            base.log,
            axes,
            keep,
            factors.constant_along(axes),
            lambda term: spread(term, source),
            _has_shape(base.log, source, axes),
        )
        return Factor(None, log.plus(mean, -1.0), base.guarded)
    log = spread(base.log.term(), source)

    def peak(w, x):
        low = tf.constant(-math.inf, x.dtype)
        x = tf.where(tf.equal(w, 0), low, x)
        return usable(tf.reduce_max(x, axes, keepdims=True))

    top = Term(peak, (base.weight, log), "max({1})")
    weight = Term(
        lambda w, x, m: tf.reduce_sum(
            w * exp_where(w, x - m), axes, keepdims=keep
        ),
        (base.weight, log, top),
        "sum(({0}) * exp({1} - max))",
    )
    weight.is_total = True
    shift = top
    if not keep:
        shift = Term(lambda m: tf.squeeze(m, axes), (top,), "{0}")
    return Factor(
        weight, shifted_by(shift).linear().plus(mean, -1.0), base.guarded
    )


def log_total(factors, z, tensor):
    """Returns `log(sum(exp(z)))` along the last axis of a softmax's input.

    Args:
        factors: The `Factors`.
        z: The input as a `Linear`. It may lack entries that the tensor has:
            zeros that were added only to repeat it.
        tensor: The input.
    """
    source = factors.reading.source(tensor)
    rank = tensor.shape.rank
    axes = (-1,) if rank is None else (rank - 1,)
    return log_sum(
        z,
        axes,
        True,
        factors.constant_along(axes),
        lambda term: spread(term, source),
        _has_shape(z, source, axes),
    )


def _has_shape(log, source, axes):
    """Whether a part of a sum is as long as the tensor along the axes."""
    for atom, _ in log.parts.values():
        if atom.kind == "tensor":
            shape = atom.term().tensor.shape
            if shape.rank == source.shape.rank and all(
                shape[a] == source.shape[a] for a in axes
            ):
                return True
        if atom.kind.startswith("moved"):
            return True
        inner = atom.arg if atom.kind != "log_sum" else None
        if isinstance(inner, Linear) and _has_shape(inner, source, axes):
            return True
    return False


def _log_count(source, axes):
    sizes = [source.shape[a] for a in axes]
    if all(n is not None for n in sizes):
        return Linear(const=math.log(max(math.prod(sizes), 1)))
    term = Term(
        lambda x: tf.math.log(
            tf.cast(tf.reduce_prod(tf.gather(tf.shape(x), list(axes))), x.dtype)
        ),
        (raw(source, is_shape=True),),
        "log(n)",
    )
    return Atom("tensor_count", (id(source), axes), lambda: term).linear()
