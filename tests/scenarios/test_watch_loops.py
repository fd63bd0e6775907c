"""A hand-written loop is guarded as `fit` is, over steps, blocks, watches."""

import gc
import warnings
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from stablekeras.errors import NonFiniteError
from tests.scenarios.watched import differing, mlp, state, watch

MODES = ("eager", "graph", pytest.param("jit", marks=pytest.mark.slow))
ROWS = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")


def _step(model, optimizer, mode="graph"):
    """Returns a step of a loop; `None` as its batch is a bad one."""
    variables = model.trainable_variables
    optimizer.build(variables)

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - 1.0))
            scaled = optimizer.scale_loss(loss)
        optimizer.apply(tape.gradient(scaled, variables), variables)

    if mode != "eager":
        step = tf.function(step, jit_compile=mode == "jit")
    return lambda x: step(tf.constant(ROWS * np.nan if x is None else x))


@pytest.mark.parametrize("mode", MODES)
def test_skips_with_good_steps_between_are_not_in_a_row(mode):
    """The limit of consecutive skips is one of consecutive skips."""
    model, watching = mlp(), watch("skip", max_consecutive_skips=2)
    optimizer = keras.optimizers.SGD(0.1)
    step = _step(model, optimizer, mode)
    tried = []
    with watching.guard(model, optimizer):
        for bad in (1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0):
            tried.append(bad)
            step(None if bad else ROWS)
    actions = [(i.step, i.action) for i in watching.incidents]
    assert actions == [
        *((s, "skip") for s in (0, 2, 3, 5, 8, 9)),
        (10, "stop"),
    ]
    assert len(tried) == (12 if mode == "jit" else 11)


@pytest.mark.parametrize(
    ("mode", "iterations"), [("eager", 5 + 3), ("graph", 3)]
)
def test_rollback_returns_to_a_snapshot(mode, iterations):
    """An eager loop takes them on its way, a compiled one at its beginning."""
    model, watching = mlp(), watch("rollback", snapshot_every=5)
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 100, 1.0)
    optimizer = keras.optimizers.SGD(rate)
    step = _step(model, optimizer, mode)
    with watching.guard(model, optimizer):
        for i in range(12):
            step(None if i == 8 else ROWS)
    assert [(i.step, i.action) for i in watching.incidents] == [(8, "rollback")]
    assert float(optimizer.learning_rate) == pytest.approx(0.05)
    assert int(optimizer.iterations) == iterations


@pytest.mark.slow
def test_a_compiled_loop_rolls_back_where_it_checks():
    """XLA tells late: at a check there is a return, at the end only a stop."""
    model, watching = mlp(), watch("rollback")
    optimizer = keras.optimizers.SGD(0.1)
    step = _step(model, optimizer, "jit")
    with watching.guard(model, optimizer) as guard:
        for _ in range(3):
            step(ROWS)
        guard.check()
        step(None)
        step(ROWS)
        guard.check()
        assert int(optimizer.iterations) == 3
        step(ROWS)
        step(None)
    assert [i.action for i in watching.incidents] == ["rollback", "stop"]
    assert int(optimizer.iterations) == 4


@pytest.mark.slow
def test_what_xla_tells_late_is_raised_at_the_end():
    """With "raise" the block ends with the error."""
    model, watching = mlp(), watch("raise")
    step = _step(model, optimizer := keras.optimizers.SGD(0.1), "jit")

    def block():
        with watching.guard(model, optimizer):
            for batch in (ROWS, None, ROWS):
                step(batch)

    with pytest.raises(NonFiniteError, match="step 1"):
        block()
    assert int(optimizer.iterations) == 2


@pytest.mark.parametrize("mode", ["graph", MODES[2]])
def test_another_watch_guards_what_the_first_one_saw_traced(mode):
    """A step belongs to no watch: the one whose block it runs in hears."""
    model, optimizer = mlp(), keras.optimizers.Adam(0.01)
    step = _step(model, optimizer, mode)
    first, second = watch("skip"), watch("skip")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Steps of a guarded")
        for watching, batches in (
            (first, (ROWS, None)),
            (second, (None, ROWS, None)),
        ):
            with watching.guard(model, optimizer):
                for batch in batches:
                    step(batch)
    assert [i.step for i in first.incidents] == [1]
    assert [i.step for i in second.incidents] == [0, 2]
    assert int(optimizer.iterations) == 2
    assert all(np.isfinite(w).all() for w in state(model, optimizer))


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("same", [True, False])
def test_a_block_inside_of_a_block(mode, same):
    """The inner one hears of its steps; the outer one goes on after it."""
    model, optimizer = mlp(), keras.optimizers.SGD(0.1)
    step = _step(model, optimizer, mode)
    outer = watch("skip")
    inner = outer if same else watch("skip")
    with outer.guard(model, optimizer):
        step(None)
        with inner.guard(model, optimizer):
            step(ROWS)
            step(None)
        step(ROWS)
        step(None)
    heard = [[i.step for i in w.incidents] for w in (outer, inner)]
    assert heard == ([[0, 1, 4]] * 2 if same else [[0, 4], [1]])
    assert int(optimizer.iterations) == 2
    assert "apply" not in vars(optimizer)
    step(None)  # Behind the blocks nothing is guarded.
    assert np.isnan(model.get_weights()[0]).all()


def test_a_guard_cannot_be_entered_inside_of_itself():
    """That would take the guard out where the inner block ends."""
    model, optimizer = mlp(), keras.optimizers.SGD(0.1)
    guard = watch().guard(model, optimizer)
    with (
        guard,
        pytest.raises(RuntimeError, match=r"Call watch\.guard for each"),
        guard,
    ):
        pass
    assert "apply" not in vars(optimizer)


def test_of_several_steps_the_unguarded_ones_are_told():
    """One traced before the block is told of beside one that is guarded."""
    model, optimizer = mlp(), keras.optimizers.SGD(0.1)
    before, inside = (_step(model, optimizer) for _ in range(2))
    before(ROWS)

    def block():
        with watch().guard(model, optimizer):
            for step in (before, inside, inside, inside, before):
                step(ROWS)

    with pytest.warns(UserWarning, match="2 steps of SGD that were not"):
        block()


@pytest.mark.parametrize("mode", MODES)
def test_overflows_of_the_scale_are_counted(mode):
    """The search of a loss scale is no incident, and is seen."""
    model, watching = mlp(), watch("stop")
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**127
    )
    step = _step(model, optimizer, mode)
    with watching.guard(model, optimizer):
        for _ in range(12):
            step(ROWS * 100.0)
    assert watching.incidents == []
    assert watching.overflows == 12 - int(optimizer.iterations) > 0
    assert float(optimizer.dynamic_scale) == 2.0 ** (127 - watching.overflows)


@pytest.mark.parametrize("mode", MODES)
def test_states_of_a_stateful_layer_are_put_back(mode):
    """Keras does not list them among the variables of the model."""

    def train(numbers):
        keras.utils.set_random_seed(0)
        layer = layers.SimpleRNN(3, stateful=True)
        inputs = keras.Input((3, 2), batch_size=4)
        model = keras.Model(inputs, layers.Dense(1)(layer(inputs)))
        optimizer, watching = keras.optimizers.Adam(0.01), watch("skip")
        step = _step(model, optimizer, mode)
        x = np.random.default_rng(0).normal(size=(6, 4, 3, 2))
        x = x.astype("float32")
        x[2, 1] = np.nan
        with watching.guard(model, optimizer):
            for i in numbers:
                step(x[i])
        values = state(model, optimizer)
        return watching, [*values, layer.states[0].numpy()]

    watching, skipped = train(range(6))
    _, expected = train([0, 1, 3, 4, 5])
    assert [i.step for i in watching.incidents] == [2]
    assert differing(skipped, expected) == []


def test_snapshots_of_train_on_batch_are_taken_once_a_block():
    """Not before each batch: that would read the whole state each time."""
    model = mlp()
    model.compile("sgd", "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    watching = watch("rollback")
    with watching.guard(model):
        for bad in (0, 0, 0, 1, 0):
            x = ROWS * np.nan if bad else ROWS
            model.train_on_batch(x, np.ones((4, 1)))
    assert [i.action for i in watching.incidents] == ["rollback"]
    assert int(model.optimizer.iterations) == 1


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_kept_alive(mode):
    """After the block, model, optimizer and watch go when the user lets go."""
    model, optimizer, watching = mlp(), keras.optimizers.SGD(0.1), watch()
    step = _step(model, optimizer, mode)
    with watching.guard(model, optimizer):
        step(ROWS)
        step(None)
    left = [weakref.ref(o) for o in (model, optimizer, watching)]
    del model, optimizer, watching, step
    gc.collect()
    assert [reference() for reference in left] == [None] * 3
