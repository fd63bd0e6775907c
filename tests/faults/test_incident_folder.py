"""Hard stops: a writer that is killed, a disk that is full."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from stablekeras.watch import bundle

WRITER = """
import resource, sys
import numpy as np
import keras
from stablekeras.watch import bundle
from stablekeras.watch.records import Incident

model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(512)])
model.compile("adam", "mse")
incident = Incident(0, 0, "stop", batch=(np.ones((64, 64)), None))
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    print(bundle.write(incident, model, sys.argv[1]), flush=True)
    sys.exit()
print("ready", flush=True)
while True:
    bundle.write(incident, model, sys.argv[1], max_incidents=5)
"""


def _start(folder, mode):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_only_whole_folders(tmp_path, kills):
    """After kill -9 at a random moment, each incident's folder reads."""
    rng = random.Random(7)
    folder = tmp_path / "ünïcode incidents"
    read = 0
    for _ in range(kills):
        writer = _start(folder, "loop")
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.2 + rng.random() * 0.3)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        writer.stderr.close()
        for path in folder.iterdir():
            if not path.name.startswith(".partial-"):
                assert bundle.read(path).incident.step == 0
                read += 1
    assert read > 0


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


def test_a_full_disk_costs_only_the_report(tmp_path):
    """When the files cannot grow, nothing is left and nothing is raised."""
    writer = _start(tmp_path, "full")
    out, err = writer.communicate()
    assert writer.returncode == 0, err
    assert out == "None\n"
    assert "The training goes on without it" in err
    assert list(pathlib.Path(tmp_path).iterdir()) == []
