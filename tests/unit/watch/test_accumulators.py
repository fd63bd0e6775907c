"""A gradient that only the end of a window cannot survive."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from stablekeras import NaNWatch
from stablekeras.optimizers import ClippedOptimizer

X = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
HOWS = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
}


def trained(targets, rows, optimizer, **how):
    """Trains on batches of four rows; returns weights and incidents."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, lambda y, p: keras.ops.mean(y * p), **how)
    watch = NaNWatch("skip", directory=None, diagnose=False, verbose=0)
    model.fit(
        X[rows],
        targets[rows],
        batch_size=4,
        shuffle=False,
        verbose=0,
        callbacks=[watch],
    )
    return model.get_weights(), watch.incidents


def adam():
    return keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("bad", [2, 3])
def test_a_micro_batch_whose_mean_overflows_is_left_out_itself(bad, how):
    """2e20 is finite in an accumulator, and its square is not in Adam."""
    targets = np.ones((40, 1), "float32")
    rows = slice(4 * bad, 4 * bad + 4)
    targets[rows] = 2e20
    weights, incidents = trained(targets, slice(None), adam(), **HOWS[how])
    assert [(i.step, i.tripped) for i in incidents] == [(bad, ("update",))]
    rest = np.delete(np.arange(40), rows)
    removed, none = trained(targets, rest, adam(), **HOWS[how])
    assert none == []
    for one, other in zip(weights, removed, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(1e-9, gradient_accumulation_steps=2),
        lambda: ClippedOptimizer(adam(), global_clipnorm=1.0),
    ],
    ids=["SGD", "clipped"],
)
def test_who_survives_it_is_not_refused(make):
    """SGD squares nothing; a clipped mean is small."""
    targets = np.ones((40, 1), "float32")
    targets[8:12] = 2e20
    _, incidents = trained(targets, slice(None), make())
    assert incidents == []


def test_a_loop_leaves_it_out_too():
    """The micro-batch after the bad one completes its window."""
    weights = []
    for targets in ([1.0, 2e20, 2.0], [1.0, 2.0]):
        model = keras.Sequential(
            [
                keras.Input((2,)),
                keras.layers.Dense(1, kernel_initializer="ones"),
            ]
        )
        optimizer = adam()
        variables = model.trainable_variables
        watch = NaNWatch("skip", directory=None, diagnose=False, verbose=0)
        with watch.guard(model, optimizer):
            for target in [3.0, *targets, 4.0]:
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean(target * model(X[:4]))
                optimizer.apply(tape.gradient(loss, variables), variables)
        assert watch.skipped == len(targets) - 2
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
