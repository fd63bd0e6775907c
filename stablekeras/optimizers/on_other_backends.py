"""The backend interface on JAX, torch and whatever Keras brings next.

Gradients are plain dense tensors there, and a data-parallel program sees the
gradient of the global batch already.
"""

import contextlib

from keras import ops

__all__ = [
    "add_to",
    "all_reduce",
    "at_once",
    "cond",
    "do_not_convert",
    "frugal",
    "half_sum_of_squares",
    "indices_of",
    "map_values",
    "may_raise_here",
    "rarely",
    "share_of_replica",
    "sum_duplicates",
    "transact",
    "usable_here",
    "values_of",
]

at_once = contextlib.nullcontext
cond = ops.cond


def do_not_convert(function):
    """Returns the function: there is no AutoGraph."""
    return function


def rarely(function):
    """Returns the function: a branch that is not taken costs nothing."""
    return function


def all_reduce(tensors):
    """Returns the tensors: there is one replica."""
    return tensors


def share_of_replica(tensors):
    """Returns the tensors: there is one replica."""
    return tensors


def values_of(x):
    """Returns the tensor itself."""
    return x


def indices_of(x):
    """Returns `None`: there is no sparse gradient."""
    return None


def map_values(function, x):
    """Applies `function` to a tensor."""
    return function(x)


def sum_duplicates(x):
    """Returns a dense tensor; JAX has its own sparse class."""
    return ops.convert_to_tensor(x, sparse=False)


def half_sum_of_squares(x):
    """Computes half the sum of the squares of a tensor.

    In rows of 128, and their sums again: one entry after the other, the
    rounding errors of equal entries all point the same way and add up.
    """
    sums = ops.reshape(ops.square(x), (-1,))
    while sums.shape[0] > 128:
        sums = ops.pad(sums, [[0, -sums.shape[0] % 128]])
        rows = ops.reshape(sums, (-1, 128))
        sums = ops.matmul(rows, ops.ones((128,), rows.dtype))
    return 0.5 * ops.sum(sums)


def add_to(variable, value):
    """Adds to a variable."""
    variable.assign_add(value)


def may_raise_here():
    """Whether an error raised by Python now ends the step at hand."""
    return True


def frugal(optimizer):
    """Changes nothing: the compiler sees that it is the same."""
    return contextlib.nullcontext()


def usable_here(x):
    """Whether a tensor kept from an earlier call may be used here.

    A value kept from inside a JAX transformation may not.
    """
    return not type(x).__module__.startswith("jax")


def transact(condition, commit, skip, arguments):
    """Calls `commit(*arguments)` if the condition holds, else `skip`."""
    (commit if bool(condition) else skip)(*arguments)
