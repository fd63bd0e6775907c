"""Activations by name, and layers that use ours, saved and loaded."""

import keras
import numpy as np
import pytest

from stablekeras import activations

pytestmark = pytest.mark.backends

NAMES = [
    n
    for n in activations.__all__
    if n not in ("get", "serialize", "deserialize")
]


@pytest.mark.parametrize("name", NAMES)
def test_get_finds_every_name(name):
    """Every name, aliases included, finds our function."""
    assert activations.get(name) is getattr(activations, name)


@pytest.mark.parametrize("name", NAMES)
def test_serialization_round_trip(name):
    """What serialize gives finds our function again, in Keras too."""
    function = getattr(activations, name)
    config = activations.serialize(function)
    assert activations.deserialize(config) is function
    assert activations.get(config) is function
    # Keras writes the layer's configuration itself.
    layer = keras.layers.Activation(function)
    again = keras.layers.Activation.from_config(layer.get_config())
    assert again.activation is function


def test_none_is_linear():
    """As in Keras, no activation is the linear one."""
    assert activations.get(None) is activations.linear


def test_a_callable_is_itself():
    """A function that is not ours is taken as it is."""
    assert activations.get(keras.ops.square) is keras.ops.square


def test_custom_objects_are_found():
    """A registered function of the user wins over ours."""

    def softmax(x):
        return x

    got = activations.deserialize("softmax", {"softmax": softmax})
    assert got is softmax


@pytest.mark.parametrize("bad", ["typo", 3])
def test_an_unknown_name_is_refused(bad):
    """The error lists the names there are."""
    with pytest.raises(ValueError, match=r"Received: identifier=.*softmax"):
        activations.get(bad)


def test_a_saved_model_keeps_our_activation(tmp_path):
    """A .keras file loads with our softmax, not with Keras'."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation=activations.gelu),
            keras.layers.Dense(2, activation=activations.softmax),
        ]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].activation is activations.softmax
    x = np.ones((1, 4), "float32")
    assert np.array_equal(
        keras.ops.convert_to_numpy(model(x)),
        keras.ops.convert_to_numpy(loaded(x)),
    )
