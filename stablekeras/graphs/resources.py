"""Which variables a traced step writes, and which it touches after a point.

A transaction saves exactly what its step writes: the answer is read off the
traced graph, so that it holds for BatchNorm statistics, seeds, metrics and
variables that Keras does not know of alike.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from stablekeras.errors import VersionError

try:
    from tensorflow.python.framework import auto_control_deps_utils as _acd

    _read_only_indices = _acd.get_read_only_resource_input_indices_graph
except (ImportError, AttributeError) as error:
    raise VersionError(
        "NaNWatch reads from TensorFlow which variables a graph writes. "
        f"Received: tensorflow {tf.__version__}, which no longer says so. "
        "Install a TensorFlow version that stablekeras lists as supported."
    ) from error

__all__ = [
    "VariableRef",
    "assign",
    "handles",
    "read",
    "references",
    "touched_after",
    "written",
]


@dataclasses.dataclass(frozen=True)
class VariableRef:
    """One stored variable, whoever made it: of a mirrored one, one replica.

    Args:
        handle: The resource handle, valid outside a traced graph.
        dtype: The dtype of the values.
        shape: The static shape of the values.
    """

    handle: Any
    dtype: tf.DType
    shape: tf.TensorShape


def handles(variable):
    """Returns the resource handles of a Keras or TensorFlow variable.

    Args:
        variable: A `keras.Variable` or a `tf.Variable`; a mirrored one has a
            handle for each replica of this process.

    Returns:
        List of resource tensors; empty for what is not a variable.
    """
    value = getattr(variable, "value", variable)
    if callable(value):  # tf.Variable.value is a method.
        value = variable
    components = getattr(value, "values", None)
    if isinstance(components, (tuple, list)):
        return [c.handle for c in components]
    handle = getattr(value, "handle", None)
    return [] if handle is None else [handle]


def references(variables):
    """Returns `VariableRef` for Keras or TensorFlow variables."""
    return [
        VariableRef(h, tf.as_dtype(v.dtype), tf.TensorShape(v.shape))
        for v in variables
        for h in handles(v)
    ]


def written(graph):
    """Returns the variables that `graph` assigns to.

    Args:
        graph: The `FuncGraph` of a traced function.

    Returns:
        List of `VariableRef`, in the order the graph captured them.
        Resources that are not variables (tables, iterators) are left out.
    """
    read_only = set(_read_only_indices(graph))
    position = {id(t): i for i, t in enumerate(graph.inputs)}
    result = []
    for outer, inner in graph.captures:
        if inner.dtype != tf.resource or position[id(inner)] in read_only:
            continue
        data = getattr(outer, "_handle_data", None)
        if data is None or not data.is_set or not data.shape_and_type:
            continue
        value = data.shape_and_type[0]
        result.append(
            VariableRef(
                outer, tf.as_dtype(value.dtype), tf.TensorShape(value.shape)
            )
        )
    return result


def touched_after(graph, operations):
    """Returns ids of the handles used by ops created after a point.

    Args:
        graph: The `FuncGraph` of a traced function.
        operations: Number of operations that `graph` held at that point.

    Returns:
        Set of `id(handle)` of the handles outside the graph.
    """
    outside = {id(inner): id(outer) for outer, inner in graph.captures}
    found = set()
    for op in graph.get_operations()[operations:]:
        for tensor in op.inputs:
            if tensor.dtype == tf.resource and id(tensor) in outside:
                found.add(outside[id(tensor)])
    return found


def read(variable):
    """Returns the value of a `VariableRef`, sharing its buffer."""
    value = tf.raw_ops.ReadVariableOp(
        resource=variable.handle, dtype=variable.dtype
    )
    value.set_shape(variable.shape)
    return value


def assign(variable, value):
    """Assigns `value` to a `VariableRef`."""
    return tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
