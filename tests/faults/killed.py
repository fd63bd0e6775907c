"""Writes an incident's folder and is killed on the way, again and again.

    python -m tests.faults.killed FOLDER step COUNT SEED
    python -m tests.faults.killed FOLDER time COUNT SEED

`step` kills the writer (SIGKILL) right before its first, second, third ...
operation on a file, until it gets through; `time` at COUNT random moments.
Prints one JSON line: how many were killed, and how many came through.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time
import types

import numpy as np

from stablekeras.watch import bundle
from stablekeras.watch.records import Incident

_OPERATIONS = ("open", "os.", "shutil.", "tempfile.")


def _model():
    # Plain arrays: a forked process must not touch TensorFlow's threads.
    rng = np.random.default_rng(0)
    weights = [
        types.SimpleNamespace(path=f"w{i}", value=rng.normal(size=(64, 64)))
        for i in range(8)
    ]
    slots = types.SimpleNamespace(variables=weights[4:])
    return types.SimpleNamespace(variables=weights[:4], optimizer=slots)


def _write(folder):
    incident = Incident(0, 0, "stop", batch=(np.ones((32, 64)), None))
    # Two are kept, so that an old one is removed in each turn.
    return bundle.write(incident, _model(), folder, page="x", max_incidents=2)


def _kill_at(folder, number):
    """Kills this process before operation `number` on something in there."""
    seen = 0

    def hook(event, arguments):
        nonlocal seen
        if event.startswith(_OPERATIONS) and any(
            str(folder) in str(a) for a in arguments[:2]
        ):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _child(folder, prepare):
    process = os.fork()
    if not process:
        prepare()
        os._exit(0 if _write(folder) else 3)
    return process


def _end(process):
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    return "through" if os.WEXITSTATUS(status) == 0 else "failed"


def main():
    folder, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
    count, rng = int(sys.argv[3]), random.Random(int(sys.argv[4]))
    began = time.perf_counter()
    ends = [_end(_child(folder, lambda: None)) for _ in range(4)]
    once = (time.perf_counter() - began) / 4
    if mode == "step":
        number = 1
        while number <= count and (number == 1 or ends[-1] == "killed"):
            ends.append(
                _end(_child(folder, lambda n=number: _kill_at(folder, n)))
            )
            number += 1
    else:
        for _ in range(count):
            writer = _child(folder, lambda: None)
            time.sleep(rng.random() * once)
            os.kill(writer, signal.SIGKILL)
            ends.append(_end(writer))
    print(json.dumps({e: ends.count(e) for e in set(ends)}))


if __name__ == "__main__":
    main()
