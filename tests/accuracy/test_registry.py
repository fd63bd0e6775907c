"""Every public function is measured; none slips through."""

import inspect

import pytest

from tests.accuracy.registry import ENTRIES, MODULES, by_name, public


def test_every_public_function_has_an_entry():
    """A public function without an accuracy entry is an error."""
    assert public() - set(by_name()) == set()


def test_every_entry_is_about_a_public_function():
    """No entry outlives the function it was written for."""
    assert set(by_name()) - public() == set()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_entries_ask_every_dtype(entry):
    """An entry leaves a dtype out only where another entry takes it."""
    asked = {d for e in by_name()[entry.name] for d in e.dtypes}
    assert asked >= {"bfloat16", "float32", "float64"}


@pytest.mark.parametrize("room", MODULES)
def test_docstrings_name_accuracy_gradient_and_an_example(room):
    """Each public function says what it was measured to do, and shows it."""
    module = MODULES[room]
    lacking = [
        f"{name}: {part}"
        for name in module.__all__
        if f"{room}.{name}" in by_name()
        for part in ("Accuracy:", "Gradient:", ">>>", "Args:", "Returns:")
        if part not in (inspect.getdoc(getattr(module, name)) or "")
    ]
    assert lacking == []
