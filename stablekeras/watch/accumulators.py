"""Judge an accumulated gradient when it comes, not when it is applied.

An accumulator takes any finite gradient. Adam squares the mean of the window
some micro-batches later: too late to leave out the one that was too large.
"""

import tensorflow as tf

from stablekeras.graphs import resources
from stablekeras.optimizers.clipped_optimizer import ClippedOptimizer
from stablekeras.optimizers.inner import accumulators_of, squares_gradients

__all__ = ["to_survive", "windows"]


def windows(optimizers):
    """Returns how many micro-batches each accumulator adds up.

    Args:
        optimizers: Built Keras optimizers. Those that do not square gradients
            survive them; a `ClippedOptimizer` clips what it accumulated.

    Returns:
        Dict of the `id` of the handle of an accumulator to the number.
    """
    found: dict[int, int] = {}
    for optimizer in optimizers:
        while hasattr(optimizer, "inner_optimizer"):
            if isinstance(optimizer, ClippedOptimizer):
                break
            optimizer = optimizer.inner_optimizer
        steps = getattr(optimizer, "gradient_accumulation_steps", None)
        if isinstance(optimizer, ClippedOptimizer) or not steps:
            continue
        if squares_gradients(optimizer):
            for v in accumulators_of(optimizer):
                found.update((id(h), steps) for h in resources.handles(v))
    return found


def to_survive(ref, found):
    """Returns what must be finite of a variable after an update.

    Args:
        ref: A `VariableRef`.
        found: What `windows` returned.

    Returns:
        The value; of an accumulator the squares of the window's mean.
    """
    value = resources.read(ref)
    steps = found.get(id(ref.handle))
    return value if steps is None else tf.square(value / steps)
