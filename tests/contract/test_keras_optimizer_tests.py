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
LEFT_OUT = {
    "SGDTest and test_single_step": "counts variables; a wrapper has its own",
    "test_get_method": "asks for the class that is replaced here",
    "test_gradient_accumulation": "reads private names of the optimizer",
    "test_overwrite_with_gradient_with": "reads private names as well",
    "test_set_weights": "expects the words of Keras' error; ours are others",
    "test_sparse_gradients": "replaces private methods of the inner optimizer",
}


@pytest.mark.slow
def test_keras_own_tests_pass_with_each_optimizer_wrapped():
    """Without clipping, the wrapper is what it wraps, to Keras' own tests."""
    folder = pathlib.Path(keras.__file__).parent / "src" / "optimizers"
    files = [folder / f"{name}_test.py" for name in MODULES]
    files += [folder / "optimizer_test.py", folder / "optimizer_sparse_test.py"]
    there = [str(file) for file in files if file.exists()]
    assert len(there) >= 12
    plugin = ["-p", "tests.contract.wrapped_keras_optimizers"]
    options = ["-q", "-c", os.devnull, "--rootdir", str(folder)]
    options.append("--import-mode=importlib")
    selection = ["-k", " and ".join(f"not ({test})" for test in LEFT_OUT)]
    command = [sys.executable, "-m", "pytest", *plugin, *options, *selection]
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
    assert int(passed[1]) >= 130
