"""One process testifies, all hear the same; whatever fails is smaller."""

import keras
import numpy as np
import pytest

from stablekeras.watch import witness
from stablekeras.watch.records import Diagnosis, Incident


class Room:
    """Stands for the workers: says to this one what another one said."""

    size = 2

    def __init__(self, rank, said=b""):
        self.rank = rank
        self.said = said
        self.heard = None

    def worker_of(self, replica):
        return replica

    def share(self, message):
        self.heard = message
        if isinstance(self.said, Exception):
            raise self.said
        return self.said or message


def model():
    return keras.Sequential(
        [keras.Input((2,)), keras.layers.BatchNormalization()]
    )


def bare(**fields):
    return Incident(epoch=1, step=2, action="skip", replica=1, **fields)


def explain(incident):
    diagnosis = Diagnosis("SK501", "title", "cause", "remedy", samples=(3,))
    return (
        Incident(**{**vars(incident), "diagnosis": diagnosis}),
        (("dense", "forward", 1, 4),),
    )


def never(incident):
    raise AssertionError("only the process that failed explains")


def test_all_end_with_what_the_failing_process_found():
    """Batch, statistics, figures and diagnosis are those of that rank."""
    batch = ({"a": np.array([[np.nan, 1.0]], "float32")}, np.array([b"s"]))
    own = bare(
        batch=batch,
        tripped=("loss",),
        logs={"loss": float("nan"), "gradient_norm": float("inf")},
    )
    speaker = Room(1)
    told, badness = witness.Witness(speaker, model()).hear(own, explain)
    assert badness == (("dense", "forward", 1, 4),)
    assert told.worker == 1
    assert told.diagnosis.samples == (3,)
    assert sorted(v.split("/")[-1] for v in told.state) == [
        "moving_mean",
        "moving_variance",
    ]
    listener = witness.Witness(Room(0, speaker.heard), model())
    assert listener.is_chief
    heard, heard_badness = listener.hear(
        bare(batch=(np.ones((1, 2)),), logs={"loss": 1.0}), never
    )
    assert heard_badness == badness
    assert (heard.diagnosis, heard.tripped) == (told.diagnosis, ("loss",))
    np.testing.assert_equal(heard.batch[0], batch[0])
    assert heard.batch[1].tolist() == [b"s"]
    np.testing.assert_equal(heard.logs, own.logs)
    assert heard.worker == 1


def test_a_batch_that_is_too_large_stays_and_is_said_to(monkeypatch):
    """The diagnosis is told all the same, with a note."""
    monkeypatch.setattr(witness, "MAX_BYTES", 100)
    own = bare(batch=(np.zeros((100, 2)),))
    told, _ = witness.Witness(Room(1), model()).hear(own, explain)
    assert told.batch is None
    assert told.diagnosis.code == "SK501"
    (note,) = told.diagnosis.evidence
    assert "the batch stayed on worker 1: 16" in note


def test_where_no_rank_stands_out_the_chief_explains():
    """An update that fails on all alike needs one who tells."""
    own = Incident(epoch=0, step=0, action="skip", batch=())
    told, _ = witness.Witness(Room(0), model()).hear(own, explain)
    assert told.worker == 0
    assert told.diagnosis is not None


@pytest.mark.parametrize("rank", [0, 1])
def test_a_collective_that_fails_costs_only_what_it_carried(rank, caplog):
    """The incident is told without rows that are not at fault."""
    room = Room(rank, RuntimeError("worker 1 is gone"))
    own = bare(batch=(np.ones((1, 2)),), logs={"loss": 1.0})
    told, _ = witness.Witness(room, model()).hear(own, explain)
    assert told.worker == 1
    assert (told.diagnosis is None) is (rank == 0)
    assert (told.batch is None) is (rank == 0)
    assert "worker 1 is gone" in caplog.text


def test_one_process_needs_no_witness():
    """Without a strategy over processes there is nothing to share."""
    assert witness.call_witness(model()) is None
