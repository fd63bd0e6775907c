"""One bad replica or worker: the step is skipped on all, in lockstep."""

import json
import os
import socket
import subprocess
import sys

import pytest

from tests.scenarios.replicas import BAD_STEP, STEPS

pytestmark = pytest.mark.distributed


def _start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.scenarios.replicas", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TF_NUM_INTEROP_THREADS": "2"},
    )


def _result(process):
    out, err = process.communicate(timeout=240)
    lines = [x for x in out.splitlines() if x.startswith("RESULT ")]
    assert lines, err[-2000:]
    return json.loads(lines[0].removeprefix("RESULT "))


def _free_ports():
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [str(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--chunk",)),
        pytest.param((), marks=pytest.mark.slow),
        pytest.param(("--float16",), marks=pytest.mark.slow),
        pytest.param(("--eager",), marks=pytest.mark.slow),
    ],
    ids=["chunk", "single", "loss-scale", "eager"],
)
def test_two_replicas_skip_together(arguments):
    """A NaN on replica 1 ends bit for bit as a run without that batch."""
    bad, clean = (
        _result(_start("mirrored", *arguments, *extra))
        for extra in ((), ("--clean",))
    )
    assert [i[:3] for i in bad["incidents"]] == [
        [0, BAD_STEP, 1],
        [1, BAD_STEP, 1],
    ]
    assert bad["iterations"] == 2 * (STEPS - 1)
    assert bad["values"] == clean["values"]
    assert bad["loss"] == clean["loss"]


@pytest.mark.slow
def test_two_replicas_are_harmed_without_a_watch():
    """Plain Keras, same data: NaN weights."""
    assert _result(_start("mirrored", "--plain"))["finite"] is False


@pytest.mark.slow
def test_two_workers_skip_together():
    """A NaN on one worker is skipped by both; their states stay equal."""
    results = []
    for extra in ((), ("--clean",)):
        ports = _free_ports()
        workers = [_start("workers", str(i), *ports, *extra) for i in range(2)]
        results.append([_result(w) for w in workers])
    bad, clean = results
    for worker in bad:
        assert [i[:3] for i in worker["incidents"]] == [
            [0, BAD_STEP, 1],
            [1, BAD_STEP, 1],
        ]
        assert worker["iterations"] == 2 * (STEPS - 1)
        assert worker["loss"] == clean[0]["loss"]
    assert bad[0]["shared"] == bad[1]["shared"]
    assert bad[0]["values"] == clean[0]["values"]
    assert bad[1]["values"] == clean[1]["values"]
