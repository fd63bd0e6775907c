"""Activations by name: `get`, `serialize`, `deserialize`."""

import keras

from stablekeras.activations import gated, piecewise, shares, smooth

__all__ = ["deserialize", "get", "serialize"]

_BY_NAME = {
    name: getattr(module, name)
    for module in (gated, piecewise, shares, smooth)
    for name in module.__all__
    if name != "bounded"
}
for _name, _function in _BY_NAME.items():
    # Keras would save a bare "softmax" and load its own: the package name
    # makes the saved model find ours.
    keras.saving.register_keras_serializable("stablekeras", _name)(_function)
_BY_NAME |= {
    "swish": gated.silu,
    "hard_swish": piecewise.hard_silu,
}


def serialize(activation):
    """Return the configuration of an activation function."""
    if activation in _BY_NAME.values():
        return f"stablekeras>{activation.__name__}"
    return keras.activations.serialize(activation)


def deserialize(config, custom_objects=None):
    """Return the activation function of a configuration."""
    if isinstance(config, str):
        name = config.removeprefix("stablekeras>")
        if name in _BY_NAME and name not in (custom_objects or {}):
            return _BY_NAME[name]
    return keras.activations.deserialize(config, custom_objects)


def get(identifier):
    """Return the activation function of a name, config or callable."""
    if identifier is None:
        return piecewise.linear
    if isinstance(identifier, str):
        name = identifier.removeprefix("stablekeras>")
        if name in _BY_NAME:
            return _BY_NAME[name]
    elif isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if callable(identifier):
        return identifier
    raise ValueError(
        "identifier must name an activation function. "
        f"Received: identifier={identifier!r}. "
        f"Known names: {', '.join(sorted(_BY_NAME))}."
    )
