"""Tell an overflow of a loss-scale search from a fault.

A step may have several optimizers, each with a scale of its own, which
answers for its own gradients only.
"""

import tensorflow as tf

from stablekeras.graphs import resources
from stablekeras.graphs.apply_calls import loss_scale
from stablekeras.watch.records import GRADIENT, SCALE, SUSPECT

__all__ = ["scales_before", "search_or", "shrink_or"]


def scales_before(calls, written, saved):
    """Returns the loss scales at the beginning of a step.

    An optimizer that ran in place has changed its scale since.

    Args:
        calls: The `ApplyCall` of the step.
        written: The `VariableRef` that the step has written.
        saved: Their values before it.

    Returns:
        Dict of the `id` of a call to the scale of its optimizer.
    """
    before = {
        id(ref.handle): value for ref, value in zip(written, saved, strict=True)
    }
    scales = {}
    for call in calls:
        scale = loss_scale(call.optimizer) if call.visible else None
        if scale is not None:
            known = [before.get(id(h)) for h in resources.handles(scale)[:1]]
            if not known or known[0] is None:
                known = [tf.convert_to_tensor(scale)]
            scales[id(call)] = known[0]
    return scales


def search_or(facts, found, search, undo):
    """Returns the facts after a search or an undo.

    Args:
        facts: The exact facts of the refused step.
        found: For each call of `apply` its loss scale or `None`, and whether
            its gradient was not finite.
        search: What is done about an overflow.
        undo: What is done about a fault.
    """
    bits = tf.reduce_max(facts[:, 0])
    none = tf.zeros_like(facts[:, 0])
    sought, collapsed = bits == GRADIENT, tf.constant(False)
    for scale, bad in found:
        if scale is None:
            sought &= tf.logical_not(bad)
            continue
        sound = tf.math.is_finite(scale + tf.math.reciprocal(scale))
        spent = bad & (scale <= 1.0)
        sought &= sound & tf.logical_not(spent)
        collapsed |= tf.logical_not(sound) | (spent & (bits == GRADIENT))

    def told(bits, overflow):
        return tf.concat(
            [tf.stack([bits, overflow], axis=1), facts[:, 2:]], axis=1
        )

    def searched():
        search()
        return told(none, none + 1)

    def undone():
        undo()
        own = tf.where(bits == SUSPECT, 0.0, bits)
        return told(none + tf.where(collapsed, own + SCALE, bits), none)

    return tf.cond(sought, searched, undone)


def shrink_or(bad, optimizer, scale, apply):
    """Halves a loss scale whose gradient was bad, else applies it.

    Args:
        bad: Whether it was, a tensor; `None` for yes.
        optimizer: The optimizer of the call.
        scale: Its scale, or `None` without one.
        apply: Runs the update.
    """

    def shrink():
        optimizer.step_counter.assign(0)
        optimizer.dynamic_scale.assign(scale * 0.5)

    if scale is None:
        apply()
    elif bad is None:
        shrink()
    else:
        tf.cond(bad, shrink, apply)
