"""Losses against the exact oracle, in every dtype and mode.

The contract: per-sample values and gradients within 8 ULP, counted on the
exact value, beyond what one ULP of input error causes; for sums over classes
on no less than 1. Second derivatives are finite where the truth is, and
within 16 ULP.
"""

import functools

import pytest

from tests.accuracy.backends import DTYPES, MODES
from tests.accuracy.losses_registry import ENTRIES
from tests.accuracy.measure import measure, questions

BOUNDS = {"value": 8.0, "gradient": 8.0, "curve": 16.0}
IDS = [
    f"{entry.name}-{sum(e.name == entry.name for e in ENTRIES[:i])}"
    for i, entry in enumerate(ENTRIES)
]
# The first entry of each loss stands for it in the short run.
FIRST = [i for i, name in enumerate(IDS) if name.endswith("-0")]
SHORT, LONG = (6, 0), (60, 1)


@functools.lru_cache(maxsize=4)
def _asked(index, count, seed):
    entry = ENTRIES[index]
    dtypes = tuple(d for d in entry.dtypes if d in DTYPES)
    return questions(entry, count, seed, dtypes)


def _broken(index, form, mode):
    figures = measure(ENTRIES[index], _asked(index, *form), mode)
    return [
        (dtype, what, getattr(f, what), getattr(f, f"{what}_at"))
        for dtype, f in figures.items()
        for what, bound in BOUNDS.items()
        if getattr(f, what) > bound
    ]


@pytest.mark.parametrize("index", range(len(ENTRIES)), ids=IDS)
def test_reduced_grid_keeps_the_contract(index):
    """The loss is within the contract on a compact grid, op by op."""
    assert _broken(index, SHORT, "eager") == []


@pytest.mark.parametrize("index", FIRST, ids=[IDS[i] for i in FIRST])
def test_compiled_losses_keep_the_contract(index):
    """The loss is within the contract on a compact grid, compiled."""
    assert _broken(index, SHORT, MODES[-1]) == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("index", range(len(ENTRIES)), ids=IDS)
def test_full_grid_keeps_the_contract(index, mode):
    """The loss is within the contract on a fine grid."""
    assert _broken(index, LONG, mode) == []
