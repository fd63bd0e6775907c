"""Trace into `tf.function`s as if they were plain functions.

A `tf.function` that has run before is not traced again: its graph knows
neither the layers that made its ops nor which op derives which. Inlined, it
is traced like the code around it.
"""

import contextlib

import numpy as np
import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.autograph.impl import api as autograph

__all__ = ["converted", "functions_inlined"]


def converted(fn):
    """Returns `fn` with Python control flow on tensors made traceable."""
    return autograph.tf_convert(fn, ag_ctx.control_status_ctx())


@contextlib.contextmanager
def functions_inlined():
    """Calls the Python function of a `tf.function` in place of its graph."""
    kind = type(tf.function(lambda: None))
    original = kind.__call__

    def __call__(function, *args, **kwargs):
        plain = function.python_function
        args, kwargs = tf.nest.map_structure(_as_tensor, (args, kwargs))
        try:
            return plain(*args, **kwargs)
        except tf.errors.OperatorNotAllowedInGraphError:
            return converted(plain)(*args, **kwargs)

    kind.__call__ = __call__
    try:
        yield
    finally:
        kind.__call__ = original


def _as_tensor(value):
    is_array = isinstance(value, np.ndarray)
    return tf.convert_to_tensor(value) if is_array else value
