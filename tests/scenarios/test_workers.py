"""Two and three worker processes train as one device, and tell as one."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

import stablekeras
from stablekeras.watch import bundle
from tests.scenarios.worker import GLOBAL_BATCH

pytestmark = pytest.mark.distributed

# What a machine that stood still for ten seconds makes of a healthy training.
_STALLED = "heartbeat timeout"


@dataclasses.dataclass
class Ended:
    """A process that came to its end: exit code, stderr, what it printed."""

    code: int
    errors: str
    result: dict | None


def _free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _start(settings):
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.scenarios.worker",
            json.dumps(settings),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TF_NUM_INTRAOP_THREADS": "1"},
    )


def _end(process, limit=240):
    out, errors = process.communicate(timeout=limit)
    lines = [x for x in out.splitlines() if x.startswith("RESULT ")]
    result = json.loads(lines[0].removeprefix("RESULT ")) if lines else None
    return Ended(process.returncode, errors, result)


def _attempt(workers, only, settings):
    """Returns what became of the processes, `None` if the machine stalled."""
    ports = _free_ports(workers) if workers > 1 else []
    processes = [
        _start(settings | {"index": i, "ports": ports} | only.get(i, {}))
        for i in range(workers)
    ]
    try:
        ended = [_end(p) for p in processes]
    except subprocess.TimeoutExpired:
        return None
    finally:
        for p in processes:
            with p:
                p.kill()
    # That one was killed is told to the others in the same words.
    killed = any(e.code == -signal.SIGKILL for e in ended)
    stalled = any(_STALLED in e.errors for e in ended)
    return None if stalled and not killed else ended


def run(workers, only=None, **settings):
    """Starts the processes and waits for all; `only` is {rank: settings}."""
    for _ in range(3):
        ended = _attempt(workers, only or {}, settings)
        if ended is not None:
            return ended
        for folder in pathlib.Path(settings.get("directory") or "-").glob("*"):
            shutil.rmtree(folder)
    pytest.fail("the machine stood still three times")


def results(*args, **settings):
    """Returns what each of the processes printed; all must have succeeded."""
    ended = run(*args, **settings)
    for e in ended:
        assert e.code == 0, e.errors[-3000:]
    return ended


def row_of(worker, step, workers, place=0):
    """Number of a row of the data, by who trains on it and when."""
    return GLOBAL_BATCH * step + GLOBAL_BATCH // workers * worker + place


def assert_equal_to_one_device(ended, settings):
    """Every worker's state is bit-equal; one device's is within 1e-6."""
    (alone,) = results(1, **settings)
    for e in ended:
        assert e.result["weights"] == ended[0].result["weights"]
        assert e.result["skipped"] == alone.result["skipped"]
        assert e.result["iterations"] == alone.result["iterations"]
        for own, one in zip(
            e.result["weights"], alone.result["weights"], strict=True
        ):
            np.testing.assert_allclose(own, one, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "workers", [2, pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_nan_on_any_worker_is_skipped_and_told_once(tmp_path, workers):
    """All skip it, the chief alone tells it, with the worker's rank."""
    # Step 0 is healthy; in step 1 + k a row of worker k is bad.
    places = [1 + worker for worker in range(workers)]
    bad = [
        row_of(worker, 1 + worker, workers, places[worker])
        for worker in range(workers)
    ]
    settings = {"bad": bad, "epochs": 1}
    ended = results(workers, directory=str(tmp_path), **settings)
    folders = sorted(str(p) for p in tmp_path.iterdir())
    assert len(folders) == workers
    for rank, e in enumerate(ended):
        told = e.result["incidents"]
        assert [i["step"] for i in told] == [1 + k for k in range(workers)]
        assert [i["worker"] for i in told] == list(range(workers))
        assert [i["replica"] for i in told] == list(range(workers))
        assert [i["samples"] for i in told] == [[place] for place in places]
        assert {i["code"] for i in told} == {"SK501"}
        assert {i["rows"] for i in told} == {GLOBAL_BATCH // workers}
        paths = sorted(i["path"] for i in told if i["path"])
        assert paths == (folders if rank == 0 else [])
        assert ("SK501" in e.errors) is (rank == 0)
    for worker, i in enumerate(ended[0].result["incidents"]):
        assert f"step {1 + worker}, worker {worker}" in ended[0].errors
        folder = i["path"]
        assert bundle.read(folder).incident.worker == worker
        with open(os.path.join(folder, "report.html")) as page:
            assert f"worker {worker} (samples are rows of its" in page.read()
        replayed = stablekeras.replay(folder)
        assert (replayed.code, replayed.samples) == ("SK501", (1 + worker,))
    assert_equal_to_one_device(ended, settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"norm": True, "steps_per_execution": 3},
        {"action": "stop"},
        {"action": "rollback"},
    ],
    ids=lambda s: "-".join(s),
)
def test_workers_stay_in_lockstep(tmp_path, settings):
    """Whatever the step is made of, the workers end in the same state."""
    bad = [row_of(1, 2, 2, 3)]
    ended = results(2, directory=str(tmp_path), bad=bad, **settings)
    first = ended[0].result
    assert len(list(tmp_path.iterdir())) == len(first["incidents"]) > 0
    for e in ended:
        assert e.result["weights"] == first["weights"]
        assert e.result["loss"] == first["loss"]
        told = e.result["incidents"][0]
        assert (told["step"], told["worker"]) == (2, 1)
        assert told["samples"] == [3]


@pytest.mark.slow
def test_the_update_of_finite_gradients_is_judged_by_all(tmp_path):
    """A square that overflows on one worker is traced to its rank."""
    ended = results(
        2, directory=str(tmp_path), huge=[row_of(1, 2, 2, 3)], plain=True
    )
    for e in ended:
        told = e.result["incidents"][0]
        assert (told["step"], told["worker"]) == (2, 1)
        assert told["tripped"] == ["update"]
        assert e.result["weights"] == ended[0].result["weights"]
        assert e.result["finite"] is True


@pytest.mark.slow
def test_a_killed_training_resumes_where_it_was(tmp_path):
    """Weights, statistics and counts end as in the uninterrupted run."""
    settings = {"bad": [row_of(1, 2, 2, 3)], "epochs": 3}
    whole = results(2, **settings)
    backups = {i: {"backup": str(tmp_path / str(i))} for i in range(2)}
    killed = {0: backups[0], 1: backups[1] | {"kill": [1, 3]}}
    survivor, victim = run(2, only=killed, **settings)
    assert victim.code == -signal.SIGKILL
    # It does not wait for ever for the one that died.
    assert survivor.code == 1
    assert survivor.result is None
    resumed = results(2, only=backups, **settings)
    for new, old in zip(resumed, whole, strict=True):
        assert new.result["weights"] == old.result["weights"]
        assert new.result["report"] == old.result["report"]
        assert new.result["skipped"] == old.result["skipped"] == 3
        assert new.result["loss"] == old.result["loss"][1:]
        assert [i["epoch"] for i in new.result["incidents"]] == [1, 2]


@pytest.mark.slow
def test_a_worker_that_dies_explaining_costs_only_the_explanation(tmp_path):
    """The chief writes the incident without it; nobody waits for ever."""
    survivor, victim = run(
        2,
        bad=[row_of(1, 2, 2, 3)],
        directory=str(tmp_path),
        only={1: {"kill": "explaining"}},
    )
    assert victim.code == -signal.SIGKILL
    assert survivor.code == 1
    (folder,) = [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    incident = bundle.read(folder).incident
    assert (incident.step, incident.worker) == (2, 1)
    assert incident.diagnosis is None
    assert incident.batch is None
