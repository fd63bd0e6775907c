"""The contract at points that hypothesis draws, and shrinks if they fail."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mpmath import mpf

from tests.accuracy.formats import format_of
from tests.accuracy.measure import measure, truths_of, weights_of
from tests.accuracy.registry import ENTRIES
from tests.accuracy.test_accuracy import BOUND

DTYPE = "float32"
FORMAT = format_of(DTYPE)
# Its slope jumps where an entry joins the support. Within one ULP of the
# input, which hypothesis finds, either side is right.
JUMPS = {"activations.sparsemax"}


@st.composite
def _rows(draw, room):
    """Draws an entry of a room and a row of log-uniform magnitudes."""
    entries = [
        e
        for e in ENTRIES
        if e.name.split(".")[0] == room
        and DTYPE in e.dtypes
        and e.name not in JUMPS
    ]
    entry = draw(st.sampled_from(entries))
    row = []
    for k in range(entry.arity):
        low, high = entry.domain[min(k, len(entry.domain) - 1)]
        most = min(entry.span or FORMAT.max, FORMAT.max)
        exponents = st.floats(math.log2(FORMAT.tiny), math.log2(most))
        sign = draw(st.sampled_from([-1.0, 1.0]))
        x = float(FORMAT.round(sign * 2.0 ** draw(exponents)))
        row.append(x if low <= x <= high else -x)
        assume(low <= row[-1] <= high)
    assume(entry.accept is None or entry.accept([mpf(x) for x in row]))
    return entry, row


@pytest.mark.parametrize("room", sorted(BOUND))
def test_drawn_points_keep_the_contract(room):
    """Value and gradient are within the contract wherever one asks."""

    @settings(max_examples=40, derandomize=True, deadline=None, database=None)
    @given(_rows(room))
    def check(drawn):
        entry, row = drawn
        # Twice: a function of one row may be a matrix of one row.
        rows = np.float64([row, row])
        asked = {DTYPE: truths_of(entry, FORMAT, rows, weights_of(entry))}
        assume(len(asked[DTYPE][0]))
        figure = measure(entry, asked, "eager")[DTYPE]
        assert (figure.value, figure.value_at) <= (BOUND[room],)
        assert (figure.gradient, figure.gradient_at) <= (BOUND[room],)

    check()
