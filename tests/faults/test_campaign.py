"""Sixty faults at random places, and as many healthy trainings beside them."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.faults.campaign import Bench, campaign
from tests.faults.draw import (
    ACTIONS,
    PLACES,
    PRECISIONS,
    Setting,
    draw,
    settings,
)
from tests.faults.kinds import KINDS

SEED, COUNT = 20261124, 60


def _failed(outcomes):
    return [
        f"{o.failures}: {o.fault}: {o.note}" for o in outcomes if o.failures
    ]


@pytest.fixture(scope="module")
def outcomes():
    return campaign(settings(len(KINDS), SEED), SEED, COUNT)


def test_every_fault_is_met(outcomes):
    """Detected, step and rows right, no weight poisoned, state bit-equal."""
    assert _failed(outcomes) == []


def test_the_faults_are_of_all_sorts(outcomes):
    """Every kind, precision, place and action is among them; most do harm."""
    faults = [o.fault for o in outcomes]
    assert {f.setting.kind for f in faults} == set(KINDS)
    assert {f.setting.precision for f in faults} == set(PRECISIONS)
    assert {f.setting.jit for f in faults} == {False, True}
    assert {f.setting.steps for f in faults} == {1, 4}
    assert {f.place for f in faults} == set(PLACES)
    assert {f.action for f in faults} == set(ACTIONS)
    assert sum(o.harmful for o in outcomes) > 0.7 * COUNT
    assert sum(o.rows is not None for o in outcomes) > 0.4 * COUNT
    assert sum(o.equal is not None for o in outcomes) > 0.6 * COUNT


def test_the_counters_bite_without_a_watch():
    """With the watch taken out the same faults poison, and none is seen."""
    setting = Setting("mlp", "float32", False, 1, "adam")
    bench = Bench(setting, guarded=False)
    faults = [draw(setting, SEED, number) for number in range(12)]
    unguarded = [bench.run(fault) for fault in faults]
    harmful = [o for o in unguarded if o.harmful]
    assert len(harmful) > 6
    assert not any(o.detected for o in harmful)
    assert sum(o.poisoned for o in harmful) > 0.7 * len(harmful)


@pytest.mark.distributed
@pytest.mark.slow
def test_every_fault_is_met_on_two_replicas():
    """The same under `MirroredStrategy`, in a process with two devices."""
    script = pathlib.Path(__file__).parents[2] / "benchmarks" / "faults.py"
    done = subprocess.run(
        [
            sys.executable,
            str(script),
            *("--settings", "0", "--mirrored", "3"),
            *("--count", "30", "--seed", str(SEED)),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"TF_NUM_INTEROP_THREADS": "2"},
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "0 of 30 not as they must be" in done.stdout
