"""Keras' own tests of operations, run on ours.

`python -m tests.unit.ops.keras_suite` prints what fails.
"""

import contextlib
import importlib.util
import io
import sys
import unittest
import warnings

from stablekeras import ops

__all__ = ["SUITES", "failures"]

# The test module, the name it calls Keras' operations by, and ours in it.
SUITES = {
    "keras.src.ops.nn_test": (
        "knn",
        "softmax log_softmax sigmoid log_sigmoid softplus normalize",
    ),
    "keras.src.ops.numpy_test": (
        "knp",
        "logaddexp divide_no_nan sqrt power hypot var std arccos expm1 log1p"
        " tanh",
    ),
    "keras.src.ops.math_test": ("kmath", "logsumexp rsqrt erfinv cdist norm"),
    "keras.src.ops.linalg_test": ("linalg", "norm"),
}


class _Swapped:
    """A module of Keras in which some names are ours."""

    def __init__(self, module, names):
        self._module = module
        self._names = names

    def __getattr__(self, name):
        if name in self._names:
            return getattr(ops, name)
        return getattr(self._module, name)


def _cases(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from _cases(item)
        else:
            yield item


def failures(path):
    """Runs the tests of one module that concern our operations.

    Returns:
        `(count, failed)`: how many ran, and `{test: last line of its error}`.
    """
    alias, names = SUITES[path]
    names = names.split()
    module = importlib.import_module(path)
    original = getattr(module, alias)
    # A test concerns an operation if its name has it. Keras' tests of dtypes
    # compare with JAX.
    jax = importlib.util.find_spec("jax")
    chosen = unittest.TestSuite(
        case
        for case in _cases(
            unittest.defaultTestLoader.loadTestsFromModule(module)
        )
        if any(name in case.id().split(".")[-1] for name in names)
        and (jax or "DtypeTest" not in case.id())
    )
    setattr(module, alias, _Swapped(original, names))
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            result = unittest.TextTestRunner(stream=io.StringIO()).run(chosen)
    finally:
        setattr(module, alias, original)
    failed = {
        ".".join(case.id().split(".")[-2:]): error.strip().splitlines()[-1]
        for case, error in result.failures + result.errors
    }
    return result.testsRun, failed


def main():
    """Prints what fails; a module that wants JAX is left out without it."""
    total = 0
    for suite in SUITES:
        try:
            count, failed = failures(suite)
        except ImportError as error:
            print(suite, "cannot run:", error)
            continue
        print(f"\n{suite} {count} ran, {len(failed)} failed")
        for name, error in failed.items():
            print("   ", name, "--", error[:150])
        total += len(failed)
    return total


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
