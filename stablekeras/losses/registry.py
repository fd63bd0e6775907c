"""Finding losses by name, and writing them down."""

import functools
import inspect

import keras

__all__ = ["deserialize", "get", "serialize"]

_SHORT = {
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "mse": "mean_squared_error",
    "msle": "mean_squared_logarithmic_error",
}


@functools.cache
def _by_name():
    """Returns the public names of the package, and short ones."""
    # Not when this module is imported: the package is not whole by then.
    from stablekeras import losses

    names = [name for name in losses.__all__ if name not in __all__]
    found = {name: getattr(losses, name) for name in names}
    for short, name in _SHORT.items():
        found[short] = found[short.upper()] = found[name]
    return found


def _named(name, custom_objects=None):
    found = keras.saving.get_registered_object(name, custom_objects)
    return _made(_by_name().get(name) if found is None else found)


def _made(loss):
    return loss() if inspect.isclass(loss) else loss


def serialize(loss):
    """Describes a loss as a dictionary.

    Args:
        loss: A `Loss` or a loss function.

    Returns:
        Dictionary from which `deserialize` makes the loss again.

    Raises:
        ValueError: If the object cannot be described.

    Accuracy: computes nothing.
    Gradient: none.

    Example:
    >>> from stablekeras import losses
    >>> losses.serialize(
    ...     losses.Huber(delta=2.0))["config"]["delta"]
    2.0
    """
    return keras.saving.serialize_keras_object(loss)


def deserialize(name, custom_objects=None):
    """Makes the loss that `serialize` described.

    Args:
        name: Dictionary, or name of a loss.
        custom_objects: Optional dictionary of further names.

    Returns:
        A `Loss` or a loss function.

    Raises:
        ValueError: If the name is unknown.

    Accuracy: computes nothing.
    Gradient: none.

    Example:
    >>> from stablekeras import losses
    >>> config = losses.serialize(losses.Huber())
    >>> losses.deserialize(config).name
    'huber_loss'
    """
    if isinstance(name, str):
        found = _named(name, custom_objects)
        if found is not None:
            return found
    return keras.saving.deserialize_keras_object(
        name, module_objects=_by_name(), custom_objects=custom_objects
    )


def get(identifier):
    """Returns the loss of a name, a dictionary, or the loss itself.

    Args:
        identifier: Name of a class or function (`"mse"` and the like too), a
            dictionary from `serialize`, a loss, or None.

    Returns:
        A `Loss`, a loss function, or None.

    Raises:
        ValueError: If the name is unknown.

    Accuracy: computes nothing.
    Gradient: none.

    Example:
    >>> from stablekeras import losses
    >>> losses.get("mse").__name__
    'mean_squared_error'
    """
    if identifier is None:
        return None
    if isinstance(identifier, dict):
        found = deserialize(identifier)
    elif isinstance(identifier, str):
        found = _named(identifier)
    else:
        found = identifier
    if not callable(found):
        raise ValueError(
            "identifier must name a loss. "
            f"Received: identifier={identifier!r}, which could not be "
            "interpreted. See stablekeras.losses.__all__ for the names."
        )
    return _made(found)
