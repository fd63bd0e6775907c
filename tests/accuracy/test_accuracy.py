"""Values and derivatives against the exact oracle, in every dtype and mode.

The contract: value and gradient within 4 ULP (8 for losses), counted on the
exact value, beyond what one ULP of input error causes. Second derivatives are
finite where the truth is, and within 16 ULP.
"""

import functools

import keras
import pytest

from tests.accuracy.backends import DTYPES, MODES
from tests.accuracy.measure import measure, questions
from tests.accuracy.registry import ENTRIES

BOUND = {"ops": 4.0, "activations": 4.0, "losses": 8.0}
SECOND_BOUND = 16.0

# Outside the contract; 784 measured. The gradient is a difference
# of log-sums as large as the loss, 1e4 here, and no dtype is wider.
KNOWN = {("losses.ctc", "float64", "gradient"): 800.0}

IDS = [
    f"{entry.name}-{sum(e.name == entry.name for e in ENTRIES[:i])}"
    for i, entry in enumerate(ENTRIES)
]
SHORT, LONG = (12, 0), (90, 1)


@functools.lru_cache(maxsize=4)
def _asked(index, count, seed):
    entry = ENTRIES[index]
    dtypes = tuple(d for d in entry.dtypes if d in DTYPES)
    return questions(entry, count, seed, dtypes)


def _check(index, form, mode):
    entry = ENTRIES[index]
    if not set(entry.dtypes) & set(DTYPES):
        pytest.skip("this backend has none of its dtypes")
    figures = measure(entry, _asked(index, *form), mode)
    bound = BOUND[entry.name.split(".")[0]]
    broken = [
        (dtype, what, getattr(f, what), getattr(f, f"{what}_at"))
        for dtype, f in figures.items()
        for what, limit in (
            ("value", bound),
            ("gradient", bound),
            ("curve", SECOND_BOUND),
        )
        if getattr(f, what) > KNOWN.get((entry.name, dtype, what), limit)
    ]
    assert broken == []
    return figures


def _quick():
    """Yields entries and modes, without what is slow to compile.

    That is losses, which the long form compiles, and on JAX every single
    operation of the eager mode.
    """
    jax = keras.backend.backend() == "jax"
    for i, entry in enumerate(ENTRIES):
        if entry.name.startswith("losses."):
            yield pytest.param(i, "eager", id=f"{IDS[i]}-eager")
            continue
        for mode in MODES[-1:] if jax else MODES:
            yield pytest.param(
                i, mode, id=f"{IDS[i]}-{mode}", marks=pytest.mark.backends
            )


@pytest.mark.parametrize(("index", "mode"), [*_quick()])
def test_reduced_grid_keeps_the_contract(index, mode):
    """The function is within the contract on a compact grid."""
    _check(index, SHORT, mode)


def test_known_inaccuracies_are_still_there():
    """What stands in `KNOWN` breaks the contract; mended, it must leave it."""
    for name, dtype, what in KNOWN:
        if dtype not in DTYPES:
            pytest.skip("this backend has not the dtype")
        index = next(i for i, e in enumerate(ENTRIES) if e.name == name)
        figures = _check(index, SHORT, "eager")
        assert getattr(figures[dtype], what) > BOUND[name.split(".")[0]]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("index", range(len(ENTRIES)), ids=IDS)
def test_full_grid_keeps_the_contract(index, mode):
    """The function is within the contract on a fine grid."""
    _check(index, LONG, mode)
