"""Views on a run, for `match`: calls and loops are already seen through."""

import functools

import numpy as np
import tensorflow as tf

__all__ = ["NodeView"]


class NodeView:
    """One tensor of a run, as `match` wants to see it.

    Args:
        execution: The `Execution`.
        ref: `(node number, output)`.
    """

    def __init__(self, execution, ref):
        self.execution = execution
        self.ref = ref
        self.node = execution.nodes[ref[0]]

    @property
    def type(self):
        """Type of the op that made it."""
        return self.node.type

    @property
    def key(self):
        """Equal for the same tensor."""
        return self.ref

    @property
    def stats(self):
        """Its `TensorStats`, or `None`."""
        return self.execution.measured(self.ref).stats

    @functools.cached_property
    def inputs(self):
        """Views of the producers."""
        return [
            NodeView(self.execution, ref)
            for ref in self.node.inputs
            if ref[1] is not None
        ]

    @functools.cached_property
    def constant(self):
        """Its value, if the graph holds it."""
        if self.type != "Const":
            return None
        proto = self.node.op.node_def.attr["value"].tensor
        return np.asarray(tf.make_ndarray(proto))

    @property
    def users(self):
        """Nodes that read it."""
        return self.execution.users(self.ref)
