"""An update that reads once, and takes its large variables in turn."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from stablekeras.graphs.updates import frugal


def built(optimizer, *variables):
    """Returns a built optimizer."""
    optimizer.build(list(variables))
    return optimizer


def reads_of(function):
    """Returns how often the graph of a function reads a scalar."""
    graph = function.get_concrete_function().graph
    return sum(
        op.type == "ReadVariableOp" and op.outputs[0].shape.rank == 0
        for op in graph.get_operations()
    )


def test_a_graph_reads_the_step_and_the_rate_once():
    """Adam reads both for each variable; the values it writes are the same."""
    gradients = [tf.constant([0.5, i]) for i in range(3)]

    def train(context):
        variables = [keras.Variable([1.0, 2.0]) for _ in gradients]
        adam = built(keras.optimizers.Adam(0.1), *variables)

        @tf.function(autograph=False)
        def update():
            with context(adam):
                adam.apply(gradients, variables)

        reads = reads_of(update)
        update()
        update()
        return reads, [v.numpy() for v in [*variables, *adam.variables]]

    once, ours = train(frugal)
    often, theirs = train(contextlib.nullcontext)
    assert once == 2 < often
    for value, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_what_is_written_is_read_anew():
    """A step counted inside of the context is seen there, and after it."""
    sgd = built(keras.optimizers.SGD(0.1), keras.Variable(0.0))
    steps = sgd.iterations.value

    @tf.function(autograph=False)
    def compute():
        with frugal(sgd):
            before = steps + 0
            steps.assign_add(5)
            inside = steps + 0
        steps.assign_add(1)
        return before, inside, steps + 0

    assert [int(x) for x in compute()] == [0, 5, 6]
    assert [int(x) for x in compute()] == [6, 11, 12]
    assert int(sgd.iterations) == 12


def test_nothing_is_left_behind():
    """After an error in a graph, and in eager mode, all is as ever."""
    sgd = built(keras.optimizers.SGD(0.1), keras.Variable(0.0))
    steps = sgd.iterations.value

    @tf.function(autograph=False)
    def fail():
        with frugal(sgd):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "update_step" not in vars(sgd)
    assert not {"assign", "assign_add", "assign_sub"} & set(vars(steps))
    with frugal(sgd):
        steps.assign(3)
        assert int(steps + 0) == 3
    assert int(tf.function(lambda: steps + 0)()) == 3


def test_large_variables_take_turns():
    """Each waits for the one before it; a small one waits for none."""
    shapes = [(512, 512), (3,), (512, 512)]
    variables = [keras.Variable(tf.zeros(shape)) for shape in shapes]
    sgd = built(keras.optimizers.SGD(0.5), *variables)

    @tf.function(autograph=False)
    def update():
        with frugal(sgd):
            sgd.apply([tf.ones(shape) for shape in shapes], variables)

    graph = update.get_concrete_function().graph
    writes = [
        op
        for op in graph.get_operations()
        if op.type == "AssignSubVariableOp"
        or (op.type == "AssignVariableOp" and op.inputs[1].shape.rank)
    ]
    assert len(writes) == 3
    first, small, second = writes
    assert first in ancestors(second)
    assert first not in ancestors(small)
    update()
    for v in variables:
        np.testing.assert_array_equal(v.numpy(), np.full(v.shape, -0.5))


def ancestors(op):
    """Returns all that must run before an operation."""
    found, left = set(), [op]
    while left:
        one = left.pop()
        for before in [*(x.op for x in one.inputs), *one.control_inputs]:
            if before not in found:
                found.add(before)
                left.append(before)
    return found
