"""Of several processes, the one whose rows failed explains it to all.

the rank that failed ─► replays its own rows ─► says what it found ─┐
the others           ─► wait ─────────────────► hear the same  ◄────┘
the chief            ─► tells it, writes the folder

A worker that dies meanwhile costs the explanation: the collective fails as
the training's next step would.
"""

import dataclasses
import io
import json
import logging

import numpy as np

from stablekeras.graphs import resources
from stablekeras.graphs.workers import find_workers
from stablekeras.watch.archive import pack, read_arrays, unpack, write_arrays
from stablekeras.watch.records import Diagnosis

__all__ = ["Witness", "call_witness"]

# Bytes of the batch, and of the statistics, that go over the network.
MAX_BYTES = 2**26

_log = logging.getLogger("stablekeras")


def call_witness(model):
    """Returns the `Witness` of a training, `None` where it has one process.

    Args:
        model: The compiled model. All processes call at the same point.
    """
    workers = find_workers(model.distribute_strategy)
    return None if workers is None else Witness(workers, model)


class Witness:
    """Makes one incident of what several processes saw.

    Args:
        workers: The `Workers`.
        model: The model.
    """

    def __init__(self, workers, model):
        self._workers = workers
        self._model = model

    @property
    def is_chief(self):
        """Whether this process tells and writes."""
        return self._workers.rank == 0

    def rank_of(self, incident):
        """Returns the rank whose rows failed; the chief's if none stand out."""
        return self._workers.worker_of(incident.replica or 0)

    def hear(self, incident, explain):
        """Returns the incident as the process that failed explains it.

        Args:
            incident: The bare `Incident` of this process.
            explain: Function of an incident; returns it with its diagnosis,
                and the `badness` of its layers.

        Returns:
            Incident and badness, the same in all processes.
        """
        rank = self.rank_of(incident)
        incident = dataclasses.replace(incident, worker=rank)
        badness, testimony = (), b""
        if rank == self._workers.rank:
            incident, badness = explain(incident)
            testimony = _testimony(incident, badness, self._statistics())
        try:
            heard = self._workers.share(testimony)
            return _understood(incident, heard) if heard else (incident, ())
        except Exception as error:
            _log.warning(
                "All workers must be there to explain an incident. Received: "
                "%s: %s. The incident is told without what worker %s found.",
                type(error).__name__,
                error,
                rank,
            )
            if rank != self._workers.rank:  # These rows are not at fault.
                incident = dataclasses.replace(incident, batch=None, logs={})
            return incident, badness

    def _statistics(self):
        # BatchNorm's are each worker's own, unlike weights and slots.
        found, room = {}, MAX_BYTES
        for v in self._model.non_trainable_variables:
            for ref in resources.references([v])[:1]:
                value = resources.read(ref).numpy()
                room -= value.nbytes
                if room >= 0:
                    found[v.path] = value
        return found


def _testimony(incident, badness, state):
    """Returns what a process found as bytes; as much of it as can be."""
    try:
        return _pack(incident, badness, state, incident.batch)
    except Exception as error:
        note = f"the batch stayed on worker {incident.worker}: {error}"
        _log.info("%s", note)
        found = incident.diagnosis
        if found is not None:
            found = dataclasses.replace(found, evidence=(*found.evidence, note))
        return _pack(
            dataclasses.replace(incident, diagnosis=found), badness, {}, None
        )


def _pack(incident, badness, state, batch):
    arrays: list[np.ndarray] = []
    said = {
        "tripped": incident.tripped,
        "diagnosis": incident.diagnosis and incident.diagnosis.to_json(),
        "logs": {k: repr(float(v)) for k, v in incident.logs.items()},
        "badness": badness,
        "batch": pack(batch, arrays),
        "state": pack(state, arrays),
    }
    size = sum(array.nbytes for array in arrays)
    if size > 2 * MAX_BYTES:
        raise ValueError(f"{size} bytes, limit {2 * MAX_BYTES}")
    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    stream = io.BytesIO()
    write_arrays(stream, [*arrays, text])
    return stream.getvalue()


def _understood(incident, heard):
    *arrays, text = read_arrays(io.BytesIO(heard), len(heard))
    said = json.loads(text.tobytes())
    found = said["diagnosis"]
    return (
        dataclasses.replace(
            incident,
            tripped=tuple(said["tripped"]),
            diagnosis=found and Diagnosis.from_json(found),
            logs={k: float(v) for k, v in said["logs"].items()},
            batch=unpack(said["batch"], arrays),
            state=unpack(said["state"], arrays),
        ),
        tuple(map(tuple, said["badness"])),
    )
