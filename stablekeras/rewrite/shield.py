"""Keep a value away from where it fails, wherever it is not needed."""

import tensorflow as tf

from stablekeras.rewrite.terms import Term, raw

__all__ = ["shield"]


# Where half of a number, or the number itself, may be flushed to zero.
_FLUSHED = {tf.float32: 2.0**-124, tf.float64: 2.0**-1020}


def _zero(weight):
    return tf.constant(_FLUSHED.get(weight.dtype, 0.0), weight.dtype)


def shield(need, term, safe, fails):
    """Returns `where(left_out, safe, term)`.

    Args:
        need: The need of what is computed from it, see `need`.
        term: The `Term` of the value.
        safe: Number in place of what is not needed.
        fails: Function of the value: where it must not stand. What a weight
            of zero leaves out is replaced only there, so that the weight
            keeps its derivative.

    Returns:
        A `Term`.
    """
    flags: list = []
    index: dict = {}
    for one in need:
        for condition in one:
            if id(condition.tensor) not in index:
                index[id(condition.tensor)] = len(flags)
                flags.append(raw(condition.tensor))

    def select(value, *flags):
        left_out = None
        for one in need:
            out = None
            for condition in one:
                flag = flags[index[id(condition.tensor)]]
                if condition.kind == "mask":
                    off = ~flag if condition.wanted else flag
                else:
                    off = (tf.abs(flag) <= _zero(flag)) & fails(value)
                out = off if out is None else out | off
            left_out = out if left_out is None else left_out & out
        return tf.where(left_out, tf.constant(safe, value.dtype), value)

    return Term(select, (term, *flags), f"where(needed, {{0}}, {safe:g})")
