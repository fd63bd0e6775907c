"""Whether what is being traced will be compiled by XLA."""

import tensorflow as tf

try:
    from tensorflow.python.ops.control_flow_util import (
        GraphOrParentsInXlaContext as _in_xla,
    )
except ImportError:  # Then assume the case with fewer abilities.

    def _in_xla(graph):
        return True


__all__ = ["under_xla"]


def under_xla():
    """Returns whether ops made now run inside a jit-compiled function."""
    if tf.executing_eagerly():
        return False
    return bool(_in_xla(tf.compat.v1.get_default_graph()))
