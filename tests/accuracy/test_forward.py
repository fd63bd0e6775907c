"""Forward-mode differentiation on TensorFlow gives what reverse mode gives."""

import functools

import keras
import numpy as np
import pytest

from stablekeras import activations, losses

if keras.backend.backend() != "tensorflow":
    pytest.skip("needs tf.autodiff", allow_module_level=True)

import tensorflow as tf

POINTS = np.array([[-2.5, -0.75, 0.5, 2.0]], "float32")
AHEAD = np.array([[1.0, -2.0, 0.5, 3.0]], "float32")
TARGETS = np.array([[0.25, 0.0, 1.0, 3.0]], "float32")
ACTIVATIONS = ["hard_silu", "log_softmax", "sigmoid", "silu", "sparse_plus"]
LOSSES = ["huber", "log_cosh", "mean_absolute_error", "mean_squared_error"]
FUNCTIONS = {
    **{name: getattr(activations, name) for name in ACTIVATIONS},
    **{
        name: functools.partial(getattr(losses, name), TARGETS)
        for name in LOSSES
    },
    "binary_crossentropy": lambda x: losses.binary_crossentropy(
        np.ones_like(POINTS), x, from_logits=True
    ),
}


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_tangent_is_the_gradient_along_a_direction(name, graph):
    """A `ForwardAccumulator` sees the derivative that a tape sees."""
    function = FUNCTIONS[name]
    x, ahead = tf.constant(POINTS), tf.constant(AHEAD)

    def both():
        with (
            tf.autodiff.ForwardAccumulator(x, ahead) as forward,
            tf.GradientTape() as tape,
        ):
            tape.watch(x)
            total = tf.reduce_sum(tf.sin(function(x)))
        return forward.jvp(total), tape.gradient(total, x)

    tangent, gradient = (tf.function(both) if graph else both)()
    expected = np.sum(gradient.numpy() * AHEAD)
    np.testing.assert_allclose(tangent, expected, rtol=1e-4)
