"""A variable that is read once in a graph."""

import pytest
import tensorflow as tf

from stablekeras.graphs.reads import read_once


def test_a_graph_reads_each_variable_once():
    """Within the context once, after it anew; values are those of the run."""
    v, w = tf.Variable(2.0), tf.Variable(10.0)

    @tf.function
    def compute():
        with read_once([v, w]):
            y = (v + 1.0) * (v + 2.0) + w
            v.assign_add(1.0)
        return y, v + 0.0

    operations = compute.get_concrete_function().graph.get_operations()
    reads = [op for op in operations if op.type == "ReadVariableOp"]
    assert len(reads) == 3
    assert [float(x) for x in compute()] == [22.0, 3.0]
    assert [float(x) for x in compute()] == [30.0, 4.0]
    assert float(v + 0.0) == 4.0


def test_eager_reads_are_as_ever():
    """Outside of a graph the context changes nothing, nor does an error."""
    v = tf.Variable(2.0)
    with read_once([v]):
        v.assign(3.0)
        assert float(v + 0.0) == 3.0

    @tf.function
    def fail():
        with read_once([v]):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert float(tf.function(lambda: v + 0.0)()) == 3.0
