"""Copies that stand in for variables, so that a run leaves no trace."""

import tensorflow as tf

__all__ = ["Shadows"]

# Ops that look at a variable and leave it as it is.
_READS = frozenset(
    {
        "ReadVariableOp",
        "ResourceGather",
        "ResourceGatherNd",
        "VariableShape",
        "VarIsInitializedOp",
        "_ReadVariablesOp",
    }
)


class Shadows:
    """Stands between ops and variables: writes go to copies.

    A variable is copied when it is first written or when another value is
    asked for; until then its own memory is read.

    Args:
        values: By the id of a resource handle, the value to read instead of
            the variable's own.
    """

    def __init__(self, values=None):
        self._copies = {}
        self._made = {}
        self._values = dict(values or {})

    def stand_in(self, op_type, handle):
        """Returns the handle that an op may use in place of `handle`.

        Args:
            op_type: The op's type; decides whether it writes.
            handle: Eager resource tensor.

        Returns:
            The handle itself or that of a copy; `None` if the resource is
            not a variable and the op may change it.
        """
        key = id(handle)
        if key in self._made:
            return handle
        if key in self._copies:
            return self._copies[key].handle
        if op_type in _READS and key not in self._values:
            return handle
        kind = _variable_type(handle)
        if kind is None:
            # Tables and the like: looking up is harmless, and all else that
            # an iterator or a writer does is not.
            return handle if _only_looks(op_type) else None
        if key in self._values:
            value = tf.convert_to_tensor(self._values[key], kind)
        elif bool(tf.raw_ops.VarIsInitializedOp(resource=handle)):
            value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=kind)
        else:
            return None
        copy = tf.Variable(value, trainable=False, shape=tf.TensorShape(None))
        self._copies[key] = copy
        self._made[id(copy.handle)] = copy
        return copy.handle

    def adopt(self, handle):
        """Marks a resource as made by the run itself, free to be written."""
        self._made[id(handle)] = handle

    def original(self, handle):
        """Returns an id that a variable and its copy share."""
        for key, copy in self._copies.items():
            if copy.handle is handle:
                return key
        return id(handle)


def _variable_type(handle):
    """Returns the dtype of the variable behind a handle, `None` if none."""
    data = getattr(handle, "_handle_data", None)
    if data is None or not data.is_set or len(data.shape_and_type) != 1:
        return None
    return tf.as_dtype(data.shape_and_type[0].dtype)


def _only_looks(op_type):
    return op_type.startswith(
        ("LookupTableFind", "LookupTableSize", "Anonymous")
    )
