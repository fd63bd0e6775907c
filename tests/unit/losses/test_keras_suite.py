"""Keras' own tests, with our losses in place of theirs."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "reference" / "deviations-losses.md"


def documented():
    """The tests that the page of deviations says fail."""
    return set(re.findall(r"`(\w+Test\.test_\w+)`", PAGE.read_text("utf-8")))


@pytest.mark.slow
def test_keras_tests_pass_but_for_the_documented_deviations():
    """What fails in Keras' suite is what the page of deviations lists."""
    done = subprocess.run(
        [sys.executable, str(HERE / "keras_suite.py")],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    lines = done.stdout.strip().splitlines()
    failing = {line.split(":")[0] for line in lines[:-1]}
    assert int(lines[-1].removeprefix("ran ")) > 150
    assert failing == documented()
