"""Runs Keras' own loss tests with our losses in place of theirs.

A program, run in a process of its own because it replaces names inside the
installed Keras: `python keras_suite.py` prints the tests that fail, one a
line, as `Class.method: first line of the error`.
"""

import importlib
import sys
import unittest
from unittest import mock

from stablekeras import losses
from stablekeras.losses.inputs import same_rank


def load():
    """Imports the two test modules with our names in them."""
    base = importlib.import_module("keras.src.losses.loss")
    theirs = importlib.import_module("keras.src.losses.losses")
    ours = mock.patch.multiple(
        theirs,
        **{n: getattr(losses, n) for n in losses.__all__ if hasattr(theirs, n)},
    )
    ours.start()
    mock.patch.multiple(
        base, Loss=losses.Loss, squeeze_or_expand_to_same_rank=same_rank
    ).start()
    modules = [
        importlib.import_module(f"keras.src.losses.{name}")
        for name in ("loss_test", "losses_test")
    ]
    modules[0].losses_module = losses
    return modules


def main():
    """Prints the failing tests and the number of tests run."""
    suite = unittest.TestSuite()
    for module in load():
        suite.addTests(unittest.defaultTestLoader.loadTestsFromModule(module))
    result = unittest.TestResult()
    suite.run(result)
    for test, trace in result.failures + result.errors:
        name = ".".join(test.id().split(".")[-2:])
        print(f"{name}: {trace.strip().splitlines()[-1]}")
    print(f"ran {result.testsRun}")


if __name__ == "__main__":
    sys.exit(main())
