"""Axes: out of bounds, named twice, of a tensor whose rank is not known."""

import keras
import numpy as np
import pytest

from stablekeras import activations, ops
from stablekeras.ops.axes import check_axis, rank_of

REDUCTIONS = [
    ops.entropy,
    ops.log_softmax,
    ops.logmeanexp,
    ops.logsumexp,
    ops.softmax,
    ops.std,
    ops.var,
    activations.log_softmax,
    activations.softmax,
]
BINARY = [
    ops.divide_no_nan,
    ops.hypot,
    ops.log_sub_exp,
    ops.logaddexp,
    ops.power,
    ops.xlog1py,
    ops.xlogy,
]
tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="only a TensorFlow graph has tensors of unknown rank",
)


@pytest.mark.backends
@pytest.mark.parametrize("axis", [(0, 0), (1, -1), [0, -2]])
def test_an_axis_named_twice_is_refused(axis):
    """Also where a negative axis names the same one."""
    with pytest.raises(ValueError, match=r"each axis once. Received: axis="):
        ops.softmax(np.ones((2, 3), "float32"), axis=axis)


@pytest.mark.backends
@pytest.mark.parametrize("axis", [None, (), 0, -1, (0, 1), [-1, 0]])
def test_axes_that_exist_pass(axis):
    """None and no axis at all are axes too."""
    assert check_axis(np.ones((2, 3)), axis) is None


def _traced(function, *arrays):
    """Return value and gradients of a graph that knows no rank."""
    import tensorflow as tf

    @tf.function(
        input_signature=[tf.TensorSpec(None, tf.float32)] * len(arrays),
        autograph=False,
    )
    def run(*xs):
        assert [rank_of(x) for x in xs] == [None] * len(xs)
        with tf.GradientTape() as tape:
            tape.watch(xs)
            y = function(*xs)
        return y, *tape.gradient(y, xs)

    return [np.asarray(t) for t in run(*map(tf.constant, arrays))]


@tensorflow
@pytest.mark.parametrize("function", REDUCTIONS)
def test_a_rank_that_is_not_known_is_no_obstacle(function):
    """What reduces gives the same without knowing the rank."""
    x = np.float32([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    got, slope = _traced(lambda x: function(x, axis=-1), x)
    assert got == pytest.approx(np.asarray(function(x, axis=-1)), rel=1e-6)
    assert slope.shape == x.shape
    assert np.isfinite(slope).all()


@tensorflow
@pytest.mark.parametrize("function", BINARY)
def test_a_rank_that_is_not_known_is_broadcast(function):
    """Gradients have the shapes of the inputs all the same."""
    x, y = np.float32([[0.75], [0.5]]), np.float32([0.1, 0.2, 0.3])
    got, *slopes = _traced(function, x, y)
    assert got == pytest.approx(np.asarray(function(x, y)), rel=1e-6)
    assert [s.shape for s in slopes] == [x.shape, y.shape]
