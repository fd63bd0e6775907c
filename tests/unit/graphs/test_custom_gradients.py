"""A graph that was looked into is not held by TensorFlow for good."""

import gc
import weakref

import keras
import tensorflow as tf

from stablekeras.graphs.trace import trace


@tf.custom_gradient
def _doubled(x):
    return 2.0 * x, lambda upstream: 2.0 * upstream


def test_a_trace_goes_when_it_is_let_go():
    """With custom gradients in it, and with a Keras optimizer's update."""
    weight = keras.Variable([1.0, 2.0])
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build([weight])

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(_doubled(weight * x))
        optimizer.apply(tape.gradient(loss, [weight.value]), [weight])
        return loss

    traced = trace(step, (tf.constant([1.0, 1.0]),))
    assert any(op.type == "IdentityN" for op in traced.graph.get_operations())
    graph = weakref.ref(traced.graph)
    del traced
    gc.collect()
    assert graph() is None


def test_gradients_of_other_graphs_stay():
    """What was traced elsewhere can be differentiated as before."""

    @tf.function
    def function(x):
        return _doubled(x)

    function.get_concrete_function(tf.TensorSpec((), tf.float32))
    trace(_doubled, (tf.constant(1.0),))
    x = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    assert float(tape.gradient(value, x)) == 2.0
