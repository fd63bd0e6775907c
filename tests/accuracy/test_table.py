"""The documented figures are those of the measured table."""

import inspect
import re

import pytest

from tests.accuracy.registry import MODULES, by_name
from tests.accuracy.table import PAGE, parse, sentence
from tests.accuracy.test_accuracy import BOUND

TABLE = parse(PAGE.read_text(encoding="utf-8"))
MEASURED = [*by_name()]


def _documented(name):
    room, function = name.split(".")
    text = inspect.getdoc(getattr(MODULES[room], function))
    found = re.search(r"Accuracy: .*?\.(?=\n\S)", text, re.DOTALL)
    return " ".join(found.group().split())


@pytest.mark.parametrize("name", MEASURED)
def test_the_docstring_says_what_was_measured(name):
    """The Accuracy line of a docstring is the row of the table."""
    assert _documented(name) == " ".join(sentence(TABLE[name]).split())


@pytest.mark.parametrize("name", MEASURED)
def test_the_table_is_within_the_contract(name):
    """No documented value or gradient is worse than its bound."""
    worst = max(float(v) for row in TABLE[name].values() for v in row[:2])
    assert worst <= BOUND[name.split(".")[0]]


def test_the_table_has_a_row_for_every_dtype_of_an_entry():
    """No function and no dtype that is measured is missing, and none stale."""
    asked = {
        name: {d for e in entries for d in e.dtypes}
        for name, entries in by_name().items()
    }
    assert {name: {*rows} for name, rows in TABLE.items()} == asked


def test_the_table_has_a_finite_second_derivative_everywhere():
    """No documented second derivative is infinite or NaN."""
    infinite = [
        (name, dtype)
        for name in MEASURED
        for dtype, row in TABLE[name].items()
        if row[2] == "inf"
    ]
    assert infinite == []
