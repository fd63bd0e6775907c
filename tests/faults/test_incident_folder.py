"""Hard stops: a writer that is killed, a disk that is full, a bad folder."""

import json
import logging
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from stablekeras.errors import BundleError
from stablekeras.watch import bundle
from stablekeras.watch.records import Incident
from tests.scenarios.watched import (
    BAD_BATCH,
    compiled,
    data,
    differing,
    fit,
    poisoned,
    state,
    watch,
)

PARTIAL = ".partial-"


@pytest.fixture(scope="module")
def model():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.compile("sgd", "mse")
    return model


def _incident(step=0):
    return Incident(0, step, "skip", batch=(np.ones((4, 8)), None))


def _whole(folder):
    """Reads every incident in a folder; returns how many there are."""
    found = [p for p in folder.iterdir() if not p.name.startswith(PARTIAL)]
    for path in found:
        assert bundle.read(path).incident.action in ("stop", "skip")
    return len(found)


@pytest.mark.parametrize(
    ("mode", "count", "least"),
    [
        pytest.param("step", 200, 40, id="before-each-operation"),
        pytest.param("time", 40, 5, id="at-random-moments"),
        pytest.param(
            "time", 1000, 200, marks=pytest.mark.slow, id="at-many-moments"
        ),
    ],
)
def test_a_killed_writer_leaves_only_whole_folders(
    tmp_path, mode, count, least
):
    """After kill -9 each incident's folder reads, and the next is written.

    No writer that is left alone fails, whatever the killed ones left behind,
    and the bound of two folders holds after it.
    """
    folder = tmp_path / "ünïcode incidents"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.faults.killed", str(folder)),
            *(mode, str(count), "7"),
        ],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
        timeout=1200,
    )
    ends = json.loads(done.stdout)
    assert ends.get("failed", 0) == 0, done.stderr[-2000:]
    assert ends["killed"] >= least
    # One killed between its rename and the removal of the oldest leaves one
    # too many; the next writer removes it.
    assert _whole(folder) >= 2
    last = bundle.write(_incident(), _Bare(), folder, max_incidents=2)
    assert bundle.read(last).incident.step == 0
    assert _whole(folder) == 2


class _Bare:
    variables = ()


def test_what_a_killed_writer_left_is_swept(tmp_path):
    """A stale partial folder is removed by the next writer."""
    stale = tmp_path / ".partial-abc"
    stale.mkdir()
    (stale / "batch.npz").write_bytes(b"half")
    os.utime(stale, (0, 0))
    fresh = tmp_path / ".partial-def"
    fresh.mkdir()
    bundle._sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".partial-def"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB, mounted for one test."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_only_the_report(small_disk, model, caplog):
    """ENOSPC in the middle of a file: nothing is left, nothing is raised.

    What was written before stays whole, and the next one that fits is
    written again.
    """
    big = Incident(0, 1, "skip", batch=(np.ones((4096, 8)), None))
    first = bundle.write(_incident(), model, small_disk)
    assert bundle.write(big, model, small_disk) is None
    assert "No space left on device" in caplog.text
    assert "The training goes on without it" in caplog.text
    assert [str(p) for p in small_disk.iterdir()] == [first]
    assert bundle.read(first).incident.step == 0
    assert bundle.write(_incident(2), model, small_disk) is not None
    assert _whole(small_disk) == 2


WRITER = """
import resource, sys
import numpy as np
from stablekeras.watch import bundle
from stablekeras.watch.records import Incident

class Bare:
    variables = ()

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
incident = Incident(0, 0, "stop", batch=(np.ones((64, 64)), None))
print(bundle.write(incident, Bare(), sys.argv[1]))
"""


def test_a_quota_costs_only_the_report(tmp_path):
    """When files may not grow, nothing is left and nothing is raised."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout == "None\n", done.stderr
    assert "The training goes on without it" in done.stderr
    assert list(tmp_path.iterdir()) == []


def _file(path):
    path.write_text("in the way")
    return path


def _dangling(path):
    path.symlink_to(path.parent / "nowhere" / "at" / "all")
    return path


def _loop(path):
    path.symlink_to(path)
    return path


BAD_PLACES = {
    "read-only": lambda tmp: pathlib.Path("/proc/incidents"),
    "a file": lambda tmp: _file(tmp / "file"),
    "below a file": lambda tmp: _file(tmp / "file") / "in",
    "long name": lambda tmp: tmp / ("é" * 200),
    "long path": lambda tmp: tmp.joinpath(*["d" * 200] * 25),
    "dangling link": lambda tmp: _dangling(tmp / "link") / "in",
    "link to itself": lambda tmp: _loop(tmp / "link"),
    "no path at all": lambda tmp: tmp / "nul\0byte",
}


@pytest.mark.parametrize("place", BAD_PLACES)
def test_a_directory_that_cannot_be_costs_only_the_report(
    place, tmp_path, model, caplog
):
    """Where nothing can be written, this is said and nothing is raised."""
    folder = BAD_PLACES[place](tmp_path)
    assert bundle.write(_incident(), model, folder) is None
    assert "The training goes on without it" in caplog.text


GOOD_PLACES = {
    "unicode": lambda tmp: tmp / "Ünfälle 事故 🔥\n",
    "not decodable": lambda tmp: tmp / os.fsdecode(b"\xff\xfe"),
    "longest name": lambda tmp: tmp / ("n" * 255),
    "deep": lambda tmp: tmp.joinpath(*["d" * 200] * 15),
}


@pytest.mark.parametrize("place", GOOD_PLACES)
def test_odd_names_are_names(place, tmp_path, model):
    """What the file system takes is written to and read back."""
    path = bundle.write(_incident(), model, GOOD_PLACES[place](tmp_path))
    assert bundle.read(path).incident.step == 0


def test_a_symbolic_link_to_a_folder_is_followed(tmp_path, model):
    """The folder may be elsewhere; nothing but incidents is removed there."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    (tmp_path / "here").symlink_to(tmp_path / "there")
    for step in range(4):
        bundle.write(_incident(step), model, tmp_path / "here", max_incidents=2)
    assert (tmp_path / "there" / "mine.txt").read_text() == "mine"
    (tmp_path / "there" / "mine.txt").unlink()
    assert _whole(tmp_path / "there") == 2


def test_a_corrupted_incident_is_refused_and_does_not_block(tmp_path, model):
    """It reads as `BundleError`; new ones are written and push it out.

    Of an incident's name there may also be a file, or a link to a folder of
    somebody else: its target is not touched.
    """
    first = pathlib.Path(bundle.write(_incident(), model, tmp_path / "in"))
    state = first / "state.npz"
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(BundleError, match="state"):
        bundle.read(first)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("mine")
    (tmp_path / "in" / "20200101T000000-e0-s0").write_text("a file")
    link = tmp_path / "in" / "20200101T000000-e0-s1"
    link.symlink_to(tmp_path / "mine")
    for step in range(2, 5):
        path = bundle.write(
            _incident(step), model, tmp_path / "in", max_incidents=3
        )
        assert bundle.read(path).incident.step == step
    assert (tmp_path / "mine" / "work.txt").read_text() == "mine"
    assert not first.exists()
    assert _whole(tmp_path / "in") == 3
    assert [p.name for p in (tmp_path / "in").glob(f"{PARTIAL}*")] == []


@pytest.mark.parametrize(
    "count", [300, pytest.param(10_000, marks=pytest.mark.slow)]
)
def test_thousands_of_incidents_are_bounded(count, tmp_path, model):
    """The newest fifty stay, all readable, and no more bytes than theirs."""
    for step in range(count):
        path = bundle.write(_incident(step), model, tmp_path)
    one = sum(p.stat().st_size for p in pathlib.Path(path).iterdir())
    total = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    assert _whole(tmp_path) == bundle.MAX_INCIDENTS
    assert total <= 1.01 * one * bundle.MAX_INCIDENTS
    steps = {bundle.read(p).incident.step for p in tmp_path.iterdir()}
    assert steps == set(range(count - bundle.MAX_INCIDENTS, count))


def test_a_read_only_incident_is_read(tmp_path, model):
    """Reading needs no right to write, and changes nothing."""
    path = pathlib.Path(bundle.write(_incident(), model, tmp_path))
    before = {p.name: p.stat().st_mtime_ns for p in path.iterdir()}
    for p in path.iterdir():
        p.chmod(0o444)
    path.chmod(0o555)
    assert bundle.read(path).incident.step == 0
    assert {p.name: p.stat().st_mtime_ns for p in path.iterdir()} == before
    path.chmod(0o755)


class _Delete(keras.callbacks.Callback):
    """Takes the folder away in the middle of the training."""

    def __init__(self, folder):
        super().__init__()
        self._folder = folder
        self._done = False

    def on_train_batch_end(self, batch, logs=None):
        if batch == BAD_BATCH + 1 and not self._done:
            self._done = True
            for path in self._folder.rglob("*"):
                if path.is_file():
                    path.unlink()
            for path in sorted(self._folder.rglob("*"), reverse=True):
                path.rmdir()
            self._folder.rmdir()


@pytest.fixture(scope="module")
def without_reports():
    model = compiled("adam", jit_compile=False)
    x, y = data()
    fit(model, poisoned(x), y, [watch("skip")])
    return state(model)


TRAININGS = {
    "read-only": ("/proc/incidents", 0),
    "missing": ("new/folder", 2),
    "deleted": ("deleted", 1),
}


@pytest.mark.parametrize("place", TRAININGS)
def test_training_never_dies_of_the_reporting(
    place, tmp_path, without_reports, caplog, recwarn
):
    """It ends as one that writes nothing; reports are there where they can."""
    name, written = TRAININGS[place]
    folder = tmp_path / name
    x, y = data()
    model = compiled("adam", jit_compile=False)
    watching = watch("skip", directory=str(folder), verbose=1)
    callbacks = [watching]
    if place == "deleted":
        callbacks.append(_Delete(folder))
    with caplog.at_level(logging.WARNING, "stablekeras"):
        fit(model, poisoned(x), y, callbacks)
    assert [i.epoch for i in watching.incidents] == [0, 1]
    assert differing(state(model), without_reports) == []
    readable = [
        i.path is not None and os.path.isdir(i.path) for i in watching.incidents
    ]
    assert sum(readable) == written
    assert ("must be writable" in caplog.text) == (place == "read-only")


def test_a_closed_terminal_costs_only_the_report(
    tmp_path, without_reports, monkeypatch
):
    """With stderr closed nothing can be shown, and the training goes on."""
    closed = open(tmp_path / "stderr", "w")  # noqa: SIM115
    closed.close()
    x, y = data()
    model = compiled("adam", jit_compile=False)
    watching = watch("skip", directory="/proc/incidents", verbose=1)
    logger = logging.getLogger("stablekeras")
    monkeypatch.setattr(logger, "propagate", False)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", closed)
        fit(model, poisoned(x), y, [watching])
    assert len(watching.incidents) == 2
    assert differing(state(model), without_reports) == []
