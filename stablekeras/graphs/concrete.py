"""Let code that asks a traced tensor for its value have it.

A step that was written for eager mode calls `numpy()`, `float()` or `if` on
tensors. A traced tensor has no value yet, but all that it depends on is
known: the graph traced so far is run, and the answer given.
"""

import contextlib

import numpy as np
from tensorflow.python.framework import ops

from stablekeras.graphs.run import run

__all__ = ["answer_with_values"]


@contextlib.contextmanager
def answer_with_values(traced):
    """Gives the tensors of a graph that is being traced their values.

    Args:
        traced: A `Traced` whose inputs are known.
    """
    kind = getattr(ops, "SymbolicTensor", None)
    if kind is None:
        yield
        return

    def value(tensor):
        if tensor.graph is not traced.graph:
            raise TypeError(
                "Only a tensor of the step itself has a value. Received: "
                f"{tensor.name}, made inside a loop or a function."
            )
        execution = run(traced)
        ref = execution.ref(tensor)
        if ref is None:
            raise TypeError(f"{tensor.name} could not be evaluated.")
        return execution.values([ref])[ref]

    answers = {
        "numpy": value,
        "__array__": lambda tensor, *args, **kwargs: np.asarray(value(tensor)),
        "__bool__": lambda tensor: bool(value(tensor)),
        "__float__": lambda tensor: float(value(tensor)),
        "__int__": lambda tensor: int(value(tensor)),
        "__index__": lambda tensor: int(value(tensor)),
    }
    before = {name: kind.__dict__.get(name) for name in answers}
    try:
        for name, answer in answers.items():
            setattr(kind, name, answer)
        yield
    finally:
        for name, method in before.items():
            if method is None:
                delattr(kind, name)
            else:
                setattr(kind, name, method)
