"""Keras' own optimizer tests, with each optimizer wrapped."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import pytest

from tests.contract.wrapped_keras_optimizers import MODULES

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_keras_own_tests_pass_with_each_optimizer_wrapped():
    """Without clipping, the wrapper is what it wraps, to Keras' own tests."""
    folder = pathlib.Path(keras.__file__).parent / "src" / "optimizers"
    files = [folder / f"{name}_test.py" for name in MODULES]
    there = [str(file) for file in files if file.exists()]
    assert len(there) >= 10
    plugin = ["-p", "tests.contract.wrapped_keras_optimizers"]
    options = ["-q", "-c", os.devnull, "--rootdir", str(folder)]
    options.append("--import-mode=importlib")
    # This one counts the variables of an SGD; a wrapper has its own as well.
    counts = ["-k", "not (SGDTest and test_single_step)"]
    command = [sys.executable, "-m", "pytest", *plugin, *options, *counts]
    run = subprocess.run(
        [*command, "-p", "no:cacheprovider", *there],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) >= 80
