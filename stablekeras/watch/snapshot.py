"""Keep a state of the training that was good, and return to it."""

import dataclasses
from typing import Any

import tensorflow as tf

from stablekeras.graphs import resources

__all__ = ["Snapshot", "take"]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Values of all variables at one point of the training.

    Holds references to the values, which TensorFlow copies when a variable
    is next written: a snapshot costs one copy of the state, once.

    Args:
        epoch: Epoch of the first step after it.
        step: Number of that step in the epoch.
        values: Pairs of variable and value.
    """

    epoch: int
    step: int
    values: tuple[tuple[resources.VariableRef, Any], ...]

    def restore(self):
        """Assigns every variable the value it had."""
        for variable, value in self.values:
            resources.assign(variable, value)


def take(variables, written=(), *, epoch=0, step=0, leave_out=()):
    """Takes a snapshot, unless the state is not one to return to.

    Args:
        variables: Keras variables: weights, optimizer state, seeds.
        written: Further `VariableRef` that the training step writes.
        epoch: Epoch of the next step.
        step: Number of the next step.
        leave_out: Variables that the training may not return to.

    Returns:
        A `Snapshot`, or `None` if a value is NaN or infinite.
    """
    skipped = {id(h) for v in leave_out for h in resources.handles(v)}
    found = {}
    for ref in [*resources.references(variables), *written]:
        if id(ref.handle) not in skipped:
            found[id(ref.handle)] = ref
    values = [(ref, resources.read(ref)) for ref in found.values()]
    for ref, value in values:
        if ref.dtype.is_floating and not bool(
            tf.reduce_all(tf.math.is_finite(value))
        ):
            return None
    return Snapshot(epoch, step, tuple(values))
