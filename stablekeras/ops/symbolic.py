"""Functions of this package inside functional models.

A symbolic Keras tensor has no values. What is called on one is recorded as a
single operation, by the registered name of the function, so that a functional
model that uses it can be saved and loaded.
"""

import functools

import keras

__all__ = ["StableOperation", "stable"]

_FUNCTIONS: dict = {}


def _dense(x):
    """Return a symbolic tensor as a dense one: Keras calls `2 * x` sparse."""
    if isinstance(x, keras.KerasTensor) and x.sparse:
        return keras.KerasTensor(x.shape, x.dtype)
    return x


@keras.saving.register_keras_serializable(package="stablekeras")
class StableOperation(keras.Operation):
    """One call of a stable function on symbolic tensors.

    Args:
        function: Name under which `stable` registered the function.
        name: Name of the operation, or `None`.

    Raises:
        ValueError: If no function of that name is registered.
    """

    def __init__(self, function, name=None):
        if function not in _FUNCTIONS:
            raise ValueError(
                "function must name a function of stablekeras. "
                f"Received: function={function!r}. "
                "Import the module that defines it first."
            )
        super().__init__(name=name)
        self.function = function

    def call(self, *args, **kwargs):
        """Run the function on tensors."""
        return _FUNCTIONS[self.function](*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        """Return the symbolic result, which is dense."""
        args, kwargs = keras.tree.map_structure(_dense, (args, kwargs))
        return super().compute_output_spec(*args, **kwargs)

    def get_config(self):
        """Return the name of the function and of the operation."""
        return {"function": self.function, "name": self.name}


def stable(function):
    """Let a function of tensors accept symbolic Keras tensors as well.

    Args:
        function: Function of tensors, of this package.

    Returns:
        The function, with the signature it had.
    """
    module = function.__module__.removeprefix("stablekeras.").split(".")[0]
    key = f"{module}.{function.__name__}"
    _FUNCTIONS[key] = function

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        inputs = keras.tree.flatten((args, kwargs))
        if any(isinstance(x, keras.KerasTensor) for x in inputs):
            return StableOperation(key)(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapper
