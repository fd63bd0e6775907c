"""Keras' own tests of activations pass with our functions in place."""

import unittest
import warnings

import pytest

from stablekeras import activations


def test_the_tests_of_keras_pass_on_ours(monkeypatch):
    """Every test of `keras.activations` passes on our module."""
    module = pytest.importorskip(
        "keras.src.activations.activations_test",
        reason="this release of Keras comes without its tests",
    )
    monkeypatch.setattr(module, "activations", activations)
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TestResult()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        suite.run(result)
    assert result.testsRun > 40
    assert [str(t) for t, _ in result.failures + result.errors] == []
