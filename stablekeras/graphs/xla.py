"""What is being traced for XLA, and how to look without disturbing it."""

import tensorflow as tf

try:
    from tensorflow.python.ops.control_flow_util import (
        GraphOrParentsInXlaContext as _in_xla,
    )
except ImportError:  # Then assume the case with fewer abilities.

    def _in_xla(graph):
        return True


try:
    from tensorflow.compiler.tf2xla.ops.gen_xla_ops import (
        xla_optimization_barrier as _barrier,
    )
except ImportError:  # Then a reader may change the last bit of what it reads.

    def _barrier(input):
        return input


__all__ = ["settled", "under_xla"]


def under_xla():
    """Returns whether ops made now run inside a jit-compiled function."""
    if tf.executing_eagerly():
        return False
    return bool(_in_xla(tf.compat.v1.get_default_graph()))


def settled(x):
    """Returns `x`, computed under XLA as if nobody looked at it.

    A further reader makes XLA fuse, and so round, the ops before it in
    another way. Behind a barrier the reader gets the finished value.
    """
    if not under_xla():
        return x
    return _barrier([x])[0]
