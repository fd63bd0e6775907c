"""A watch comes and goes without a trace."""

import copy
import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.scenarios.watched import (
    BAD_BATCH,
    BATCH,
    compiled,
    data,
    differing,
    fit,
    poisoned,
    state,
    watch,
)


def _attributes(model):
    return set(vars(model)), set(vars(model.optimizer)), model.train_function


class Bomb(keras.callbacks.Callback):
    """Raises at one hook of the second step."""

    def __init__(self, hook, error):
        super().__init__()

        def explode(batch, logs=None):
            if batch == 1:
                raise error

        setattr(self, hook, explode)


BEGIN, END = "on_train_batch_begin", "on_train_batch_end"
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("hook", "first", "error"),
    [
        (BEGIN, True, RuntimeError("no")),
        (BEGIN, False, KeyboardInterrupt()),
        pytest.param(END, False, RuntimeError("no"), marks=slow),
        (END, True, KeyboardInterrupt()),
    ],
)
def test_an_exception_leaves_nothing_behind(hook, first, error):
    """After it, `fit` without a watch is Keras' own."""
    x, y = data()
    model = compiled("sgd", jit_compile=False)
    fit(model, x, y, epochs=1)
    attributes, of_optimizer, function = _attributes(model)
    callbacks = [watch(), Bomb(hook, error)]
    with pytest.raises(type(error)):
        fit(model, x, y, callbacks if first else callbacks[::-1])
    assert set(vars(model)) == attributes
    assert set(vars(model.optimizer)) == of_optimizer
    fit(model, x, y, epochs=1)
    assert model.train_function is function


def test_the_model_is_the_users_own_between_steps():
    """Other callbacks see Keras' train function, and may save the model."""
    x, y = data()
    model = compiled("adam", jit_compile=False)
    seen = []
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(
            (model.train_function, "apply" in vars(model.optimizer))
        )
    )
    fit(model, poisoned(x), y, [watch(), spy])
    assert {f.__module__.split(".")[0] for f, _ in seen} == {"keras"}
    assert not any(patched for _, patched in seen)
    assert "train_step" not in vars(model)


def test_saving_after_a_watched_fit(tmp_path):
    """The saved model loads and predicts the same."""
    x, y = data()
    model = compiled("adam", jit_compile=False)
    fit(model, poisoned(x), y, [watch()])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@pytest.mark.parametrize("again", ["same watch", "another watch"])
def test_a_second_fit_does_not_retrace(again):
    """The step is traced once for all fits of a compiled model."""
    traces = []

    class Counting(keras.Model):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    x, y = data()
    model = compiled("sgd", cls=Counting, jit_compile=False)
    watching = watch()
    fit(model, poisoned(x), y, [watching])
    before = len(traces)
    fit(model, x, y, [watching if again == "same watch" else watch()])
    assert before > 0
    assert len(traces) == before


def test_compiling_again_takes_the_new_step():
    """What was traced for the old optimizer is not used for the new."""
    x, y = data()
    model = compiled("sgd", jit_compile=False)
    watching = watch()
    fit(model, x, y, [watching], epochs=1)
    model.compile("adam", "mse", jit_compile=False)
    fit(model, x, y, [watching], epochs=1)
    assert int(model.optimizer.iterations) == 7


def test_two_watches_both_see_the_incident():
    """The stricter one decides; the step is undone once."""
    x, y = data()
    one, two = watch("skip"), watch("stop")
    model = compiled("adam", jit_compile=False)
    history = fit(model, poisoned(x), y, [one, two])
    assert [i.step for i in one.incidents] == [BAD_BATCH]
    assert [i.step for i in two.incidents] == [BAD_BATCH]
    assert int(model.optimizer.iterations) == BAD_BATCH
    assert len(history.history["loss"]) == 1


@pytest.mark.parametrize("first", [True, pytest.param(False, marks=slow)])
def test_beside_other_callbacks(first, tmp_path):
    """In any order, with what users run, the result is the same."""
    x, y = data()
    results = []
    for order in (True, first):
        others = [
            keras.callbacks.ModelCheckpoint(
                tmp_path / "best.keras", monitor="loss", save_best_only=True
            ),
            keras.callbacks.EarlyStopping("val_loss", patience=5),
            keras.callbacks.ReduceLROnPlateau("val_loss"),
            keras.callbacks.SwapEMAWeights(),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        ]
        optimizer = keras.optimizers.Adam(1e-3, use_ema=True)
        model = compiled(optimizer, jit_compile=False)
        callbacks = [watch(), *others] if order else [*others, watch()]
        history = fit(model, poisoned(x), y, callbacks, validation_data=(x, y))
        assert len(history.history["loss"]) == 2
        results.append(state(model))
    assert differing(*results) == []


def test_a_train_function_made_anew_is_watched():
    """A callback that forces a new train function does not shake it off."""
    x, y = data()
    model = compiled("adam", jit_compile=False)
    renew = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: model.make_train_function(force=True)
    )
    watching = watch()
    fit(model, poisoned(x), y, [watching, renew])
    assert [i.epoch for i in watching.incidents] == [0, 1]


def test_a_watch_is_serializable():
    """Its configuration holds the constructor's arguments."""
    watching = watch("rollback", max_skips=3, snapshot_every=5)
    config = keras.saving.serialize_keras_object(watching)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == watching.get_config()


def test_a_copy_of_a_used_watch_is_a_watch_of_its_own():
    """A tuner copies its callbacks for each trial; the copies share nothing."""
    x, y = data()
    used = watch("rollback", max_consecutive_skips=1)
    fit(compiled("adam", jit_compile=False), poisoned(x), y, [used], epochs=1)
    copied = copy.deepcopy(used)
    assert copied.get_config() == used.get_config()
    assert copied.model is None
    assert copied.incidents == used.incidents
    fit(compiled("adam", jit_compile=False), poisoned(x), y, [copied], epochs=1)
    assert [i.step for i in copied.incidents] == [BAD_BATCH, BAD_BATCH]
    assert [i.step for i in used.incidents] == [BAD_BATCH]


def test_eager_steps_leave_no_patch_behind():
    """`run_eagerly` patches `apply` for the length of a step only."""
    x, y = data()
    model = compiled("adam", run_eagerly=True)
    fit(model, poisoned(x), y, [watch()], epochs=1)
    assert "apply" not in vars(model.optimizer)
    assert tf.executing_eagerly()


@pytest.mark.parametrize("eager", [False, pytest.param(True, marks=slow)])
def test_a_watch_holds_nothing_of_a_training_that_ended(eager):
    """But the model, as every callback of Keras does until the next one."""
    x, y = data()
    model = compiled("adam", jit_compile=False, run_eagerly=eager)
    watching = watch("rollback")
    fit(model, poisoned(x), y, [watching], epochs=1)
    left = weakref.ref(model.optimizer)
    watching.set_model(None)
    del model
    gc.collect()
    assert left() is None


def test_variables_made_while_keras_builds_an_eager_model():
    """A `tf.Variable` that is made in a graph there is put back too."""

    class Counting(keras.layers.Layer):
        def build(self, shape):
            self.calls = tf.Variable(0, trainable=False)

        def call(self, x):
            self.calls.assign_add(1)
            return x

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.counting, self.dense = Counting(), keras.layers.Dense(1)

        def call(self, x):
            return self.dense(self.counting(x))

    x, y = data()
    model = Model()
    model.compile("adam", "mse", run_eagerly=True)
    x[:BATCH] = np.nan
    fit(model, x[: 3 * BATCH], y[: 3 * BATCH], [watch()], epochs=1)
    assert int(model.counting.calls) == int(model.optimizer.iterations) == 2
