"""Keras' own tests of operations pass with our functions in place."""

import subprocess
import sys

import keras
import pytest


@pytest.mark.slow
def test_the_tests_of_keras_pass_on_ours():
    """Every test that names one of our operations passes on ours."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("some of these tests are about TensorFlow")
    # In a process of its own: Keras' test modules want marks of their own.
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.ops.keras_suite"],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [s for s in done.stdout.splitlines() if "keras.src.ops" in s]
    ran = [line for line in lines if line.endswith(" 0 failed")]
    assert len(ran) >= 3, done.stdout
    assert done.returncode == 0
