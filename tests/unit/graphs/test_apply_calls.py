"""What a step applies, written down and applied later."""

import keras
import tensorflow as tf

from stablekeras.graphs.apply_calls import ApplyLog, optimizer_variables


def test_a_sparse_gradient_keeps_its_constant_shape():
    """Once it was returned by a function, XLA still knows its shape."""
    table = keras.Variable(tf.zeros((7, 3)))
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build([table])
    seen = []

    def apply(grads, variables=None):
        seen.extend((g.dense_shape, g.values) for g in grads)

    optimizer.apply = apply
    log = ApplyLog([optimizer], frozenset())

    def step():
        with log.watching(), log.recording() as calls, tf.GradientTape() as t:
            rows = tf.gather(table.value, [2, 2])
            loss = tf.reduce_sum(rows)
            optimizer.apply([t.gradient(loss, table.value)], [table])
        found[:] = calls
        return found[0].tensors()

    found: list = []

    @tf.function
    def train():
        inner = tf.function(step, autograph=False).get_concrete_function()
        found[0].run(inner())

    train()
    ((shape, values),) = seen
    assert found[0].deferred
    assert tf.get_static_value(shape).tolist() == [7, 3]
    assert values.shape == (2, 3)


def test_no_variable_of_an_optimizer_is_missed():
    """Nadam's product of momenta is in no list; a wrapper has it inside."""
    inner = keras.optimizers.Nadam()
    outer = keras.optimizers.LossScaleOptimizer(inner)
    outer.build([keras.Variable(tf.zeros((2,)))])
    held = {id(v) for v in vars(inner).values()}
    held &= {id(v) for v in optimizer_variables(inner)}
    unlisted = held - {id(v) for v in inner.variables}
    assert len(unlisted) == 1
    found = optimizer_variables(outer)
    assert unlisted < {id(v) for v in found}
    assert {id(v) for v in outer.variables} < {id(v) for v in found}
    assert len(found) == len({id(v) for v in found})
