"""A watch counts on where an interrupted training left off."""

import contextlib
import json

import keras
import numpy as np
import pytest

from stablekeras import NaNWatch

BAD_STEP, STEPS, EPOCHS = 1, 4, 4


class Interrupt(keras.callbacks.Callback):
    """Ends the training at a step, as a signal would."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at = (epoch, batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise InterruptedError


def train(backup, *callbacks, watch=None, first=True):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(4 * STEPS, 2)).astype("float32")
    x[4 * BAD_STEP] = np.nan
    watch = watch or NaNWatch(
        "skip", max_skips=EPOCHS, directory=None, diagnose=False, verbose=0
    )
    backups = [keras.callbacks.BackupAndRestore(backup)] if backup else []
    order = [watch, *backups] if first else [*backups, watch]
    with contextlib.suppress(InterruptedError):
        model.fit(
            x,
            np.ones((len(x), 1), "float32"),
            batch_size=4,
            epochs=EPOCHS,
            shuffle=False,
            verbose=0,
            callbacks=[*order, *callbacks],
        )
    return watch, model.get_weights()


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_counts_are_those_of_the_uninterrupted_training(tmp_path, first):
    """In a new process; skips of the epoch that is run again count once."""
    whole, weights = train(None)
    backup = str(tmp_path / "backup")
    # The skip of epoch 2 is lost with the epoch.
    cut, _ = train(backup, Interrupt(2, 3), first=first)
    assert cut.skipped == 3
    resumed, resumed_weights = train(backup, first=first)
    assert resumed.skipped == whole.skipped == EPOCHS
    # Were the skips before the interruption forgotten, more were allowed.
    assert [i.action for i in resumed.incidents] == ["skip", "skip"]
    assert [i.epoch for i in resumed.incidents] == [2, 3]
    for a, b in zip(weights, resumed_weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (tmp_path / "backup").exists()


def test_the_limit_of_skips_holds_over_an_interruption(tmp_path):
    """Skips of one training are counted as one training's."""
    backup = str(tmp_path)
    watch = {"directory": None, "diagnose": False, "verbose": 0}
    train(backup, Interrupt(2, 3), watch=NaNWatch("skip", max_skips=3, **watch))
    resumed, _ = train(backup, watch=NaNWatch("skip", max_skips=3, **watch))
    assert [i.action for i in resumed.incidents] == ["skip", "stop"]


def test_a_watch_in_the_same_process_counts_what_it_skipped(tmp_path):
    """The skip that was run twice was made twice."""
    watch, _ = train(str(tmp_path), Interrupt(2, 3))
    watch, _ = train(str(tmp_path), watch=watch)
    assert watch.skipped == EPOCHS + 1


@pytest.mark.parametrize("text", ["", "[1]", '{"2": 5}', "\0"])
def test_counts_that_cannot_be_read_are_none(tmp_path, text):
    """A damaged file costs the counts, not the training."""
    train(str(tmp_path), Interrupt(2, 3))
    (tmp_path / "nan_watch.json").write_text(text)
    resumed, _ = train(str(tmp_path))
    assert resumed.skipped == EPOCHS - 2


def test_counts_belong_to_the_backup_they_stand_beside(tmp_path):
    """Of an interruption between the two files, the older ones are read."""
    train(str(tmp_path), Interrupt(2, 0))
    counts = json.loads((tmp_path / "nan_watch.json").read_text())
    assert [counts[e]["skipped"] for e in ("1", "2")] == [1, 2]
    metadata = tmp_path / "training_metadata.json"
    metadata.write_text(json.dumps({"epoch": 1, "batch": 0}))
    resumed, _ = train(str(tmp_path))
    assert resumed.skipped == EPOCHS
