"""Let an optimizer's update cost less in a graph than it was written to."""

import contextlib

import tensorflow as tf

from stablekeras.graphs.replaced import replaced_attribute
from stablekeras.graphs.xla import under_xla

__all__ = ["frugal"]

# What the updates of all variables depend on.
_SHARED = ("iteration", "learning_rate")
# Entries of a variable whose update is worth waiting for: 1 MB in float32.
_LARGE = 1 << 18


@contextlib.contextmanager
def frugal(optimizer):
    """Lets the update made in this context take less time and memory.

    Keras' optimizers read the number of the step and the learning rate anew
    for every trainable variable, and compute the same powers of both. From one
    tensor TensorFlow computes them once: an Adam step of six variables has 50
    operations less. And large variables are updated one after the other: all
    at once, the intermediate results of all are held together.

    No value changes. Without effect in eager execution, and under a strategy,
    whose replicas share the optimizer while each traces its own step.

    Args:
        optimizer: The optimizer that is called, wrapper or not.
    """
    if tf.executing_eagerly() or tf.distribute.has_strategy():
        yield
        return
    with contextlib.ExitStack() as stack:
        for v in optimizer.variables:
            if v.name in _SHARED:
                stack.enter_context(_read_once(v.value))
        while getattr(optimizer, "inner_optimizer", None) is not None:
            optimizer = optimizer.inner_optimizer
        if not under_xla():
            stack.enter_context(_in_turn(optimizer))
        yield


@contextlib.contextmanager
def _read_once(variable):
    """Lets a `tf.Variable` be read once, until it is written."""
    # The tensor that a variable with a `caching_device` hands out.
    if getattr(variable, "_cached_value", variable) is not None:
        yield  # Read once already, or by other means.
        return

    def forgetting(write):
        def written(*args, **kwargs):
            variable._cached_value = None
            return write(*args, **kwargs)

        return written

    with contextlib.ExitStack() as stack:
        for name in ("assign", "assign_add", "assign_sub"):
            write = forgetting(getattr(variable, name))
            stack.enter_context(replaced_attribute(variable, name, write))
        variable._cached_value = variable.value()
        try:
            yield
        finally:
            variable._cached_value = None


def _in_turn(optimizer):
    """Lets each large variable wait until the one before it is updated."""
    original = optimizer.update_step
    done: list[tf.Operation] = []

    def update_step(*args, **kwargs):
        # Keras passes gradient, variable and learning rate by place.
        shape = args[1].shape if len(args) > 1 else tf.TensorShape(())
        if (tf.TensorShape(shape).num_elements() or 0) < _LARGE:
            return original(*args, **kwargs)
        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        with tf.control_dependencies([op for op in done if op.graph is graph]):
            result = original(*args, **kwargs)
        made = graph.get_operations()[before:]
        done[:] = [
            op for op in made if not any(x.consumers() for x in op.outputs)
        ]
        return result

    return replaced_attribute(optimizer, "update_step", update_step)
