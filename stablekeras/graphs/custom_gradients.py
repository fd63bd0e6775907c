"""Let TensorFlow forget the custom gradients of a graph that was traced.

`tf.custom_gradient`, and each all-reduce of a Keras optimizer, enters a
function of its own into TensorFlow's table of gradients, which holds the
whole graph for good: some MB for each step that is looked into.
"""

from tensorflow.python.framework import ops

__all__ = ["forget_custom_gradients"]

_table = getattr(getattr(ops, "gradient_registry", None), "_registry", {})


def forget_custom_gradients(graph):
    """Takes a graph's own custom gradients out of TensorFlow's table.

    The graph runs as before, and can no longer be differentiated.

    Args:
        graph: A `FuncGraph` that nobody will differentiate from here on.
    """
    for op in graph.get_operations():
        if op.type == "IdentityN":
            try:
                name = op.get_attr("_gradient_op_type").decode()
            except ValueError:  # One that the user's code made.
                continue
            if name.startswith("CustomGradient-"):
                _table.pop(name, None)
