"""Our functions inside functional models."""

import keras
import numpy as np
import pytest

from stablekeras import activations, ops
from stablekeras.ops.symbolic import StableOperation

pytestmark = pytest.mark.backends


def _model():
    x = keras.Input((3,))
    y = ops.log_softmax(x, axis=-1)
    y = ops.logaddexp(y, keras.ops.zeros_like(y))
    y = activations.leaky_relu(y, negative_slope=0.5)
    return keras.Model(x, ops.norm(y, axis=-1, keepdims=True))


def test_symbolic_tensors_are_accepted():
    """A functional model gives what the functions give."""
    x = np.float32([[1.0, 2.0, 3.0]])
    y = ops.logaddexp(ops.log_softmax(x), np.zeros((1, 3), "float32"))
    expected = ops.norm(activations.leaky_relu(y, 0.5), axis=-1)
    got = _model()(x)
    assert np.asarray(got)[0, 0] == np.asarray(expected)[0]


def test_tensors_in_a_structure_are_accepted(tmp_path):
    """What takes a structure of tensors finds the symbolic ones in it."""
    x = keras.Input((2,))
    model = keras.Model(x, ops.global_norm([x, {"twice": 2 * x}, None]))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    got = loaded(np.float32([[1.0, 2.0]]))
    assert float(got) == 5.0


@pytest.mark.parametrize(
    "multiple", [lambda x: 2 * x, lambda x: x * 2.0, lambda x: x / 0.5]
)
def test_multiples_of_symbolic_tensors_are_accepted(multiple):
    """Keras takes the multiple of a dense symbolic tensor for a sparse one."""
    x = keras.Input((2,))
    y = ops.hypot(multiple(x), ops.sqrt(multiple(x)))
    model = keras.Model(x, activations.relu6(y))
    got = np.asarray(model(np.float32([[2.0, 1.5]])))
    assert got == pytest.approx(np.sqrt(np.float32([[20.0, 12.0]])))


def test_the_model_survives_saving(tmp_path):
    """A saved functional model finds our functions again."""
    model = _model()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.float32([[1.0, 2.0, 3.0]])
    assert np.array_equal(np.asarray(model(x)), np.asarray(loaded(x)))


def test_an_unknown_function_is_refused():
    """A model of a module that was not imported says so."""
    with pytest.raises(ValueError, match=r"Received: function='ops.nothing'"):
        StableOperation("ops.nothing")
