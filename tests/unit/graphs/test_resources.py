"""Reading off a graph what it writes."""

import keras
import numpy as np
import tensorflow as tf

from stablekeras.graphs import resources


def test_written_names_exactly_the_assigned_variables():
    """Reads do not count, writes inside branches and calls do."""
    read, plain, inside, called = (tf.Variable(float(i)) for i in range(4))

    @tf.function
    def inner():
        called.assign_add(1.0)

    @tf.function
    def step(flag):
        plain.assign(read + 1.0)
        inner()
        tf.cond(flag, lambda: inside.assign(2.0), lambda: inside.value())

    graph = step.get_concrete_function(tf.TensorSpec((), tf.bool)).graph
    found = {id(r.handle) for r in resources.written(graph)}
    assert found == {id(v.handle) for v in (plain, inside, called)}


def test_touched_after_a_point():
    """Only handles used by later operations are named."""
    early, late = tf.Variable(1.0), tf.Variable(2.0)
    mark = []

    @tf.function
    def step():
        early.assign_add(1.0)
        mark.append(len(tf.compat.v1.get_default_graph().get_operations()))
        return late + 1.0

    graph = step.get_concrete_function().graph
    assert resources.touched_after(graph, mark[0]) == {id(late.handle)}


def test_a_read_value_survives_an_update():
    """What was read stays, though it shared its buffer."""
    variable = keras.Variable(np.arange(3.0, dtype="float32"))
    (ref,) = resources.references([variable])
    saved = resources.read(ref)
    variable.value.assign_add([1.0, 1.0, 1.0])
    np.testing.assert_array_equal(saved, [0.0, 1.0, 2.0])
    resources.assign(ref, saved)
    variable.value.assign_sub([1.0, 1.0, 1.0])
    np.testing.assert_array_equal(saved, [0.0, 1.0, 2.0])
