"""Two replicas, and two worker processes, are one device to the optimizer."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

WORKER = pathlib.Path(__file__).with_name("clipping_worker.py")
CASES = ("global_norm", "ada_gc_embedding", "adam_agc", "mixed_float16")


def start(path, case, bad, mode, task=None):
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="-1")
    environment.pop("TF_CONFIG", None)
    if task is not None:
        environment["TF_CONFIG"] = json.dumps(task)
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(path), case, str(bad), mode],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def result(process, path):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-3000:]
    return dict(np.load(path))


def compare(a, b, tolerance):
    assert a.keys() == b.keys()
    for name in a:
        assert np.isfinite(a[name]).all()
        np.testing.assert_allclose(
            a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name
        )


@pytest.mark.slow
@pytest.mark.distributed
def test_two_replicas_equal_one_device(tmp_path):
    """Same weights, norms and skips as one device on the global batch."""
    runs = {}
    for mode in ("mirrored", "single"):
        path = tmp_path / f"{mode}.npz"
        process = start(path, ",".join(CASES), 20, mode)
        runs[mode] = result(process, path)
    mirrored, single = runs["mirrored"], runs["single"]
    skips = {n: int(v) for n, v in mirrored.items() if n.endswith("skipped")}
    # Row 20 is in the second half of a batch, and so on replica 1.
    assert skips["global_norm/skipped"] == 2
    # Only there is the loss scale blind; one device skips by itself.
    assert skips["mixed_float16/skipped"] == 2
    for run in (mirrored, single):
        for name in [n for n in run if n.startswith("mixed_float16/")]:
            assert np.isfinite(run.pop(name)).all()
    compare(mirrored, single, 1e-6)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("case", ["global_norm", "ada_gc_embedding"])
def test_two_worker_processes_equal_one_device(tmp_path, case):
    """Two workers on loopback agree with each other and with one device."""
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    workers = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    paths = [tmp_path / f"worker{i}.npz" for i in range(2)]
    processes = [
        start(
            path,
            case,
            20,
            "workers",
            {
                "cluster": {"worker": workers},
                "task": {"type": "worker", "index": i},
            },
        )
        for i, path in enumerate(paths)
    ]
    try:
        first, second = map(result, processes, paths)
    finally:
        for process in processes:
            process.kill()
    alone = result(
        start(tmp_path / "one.npz", case, 20, "single"), tmp_path / "one.npz"
    )
    assert int(first[f"{case}/skipped"]) == 2
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    compare(first, alone, 1e-6)
