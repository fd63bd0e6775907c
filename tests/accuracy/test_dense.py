"""Slopes of the self-gated activations where no grid crowds."""

import numpy as np
import pytest

from tests.accuracy.backends import DTYPES, MODES
from tests.accuracy.formats import format_of
from tests.accuracy.measure import measure, truths_of
from tests.accuracy.registry import ENTRIES

GATED = [
    e
    for e in ENTRIES
    if e.name in ("activations.gelu", "activations.mish", "activations.silu")
]
IDS = ["gelu", "gelu_approximate", "mish", "silu"]
WIDE = [d for d in DTYPES if d in ("float32", "float64")]


@pytest.mark.parametrize("entry", GATED, ids=IDS)
def test_slopes_keep_the_contract_between_the_tails(entry):
    """Every dtype is within 4 ULP at points spread evenly over [-4, 4]."""
    rng = np.random.default_rng(7)
    asked = {}
    for dtype in WIDE:
        fmt = format_of(dtype)
        rows = fmt.round(rng.uniform(-4, 4, (1000, 1)))
        asked[dtype] = truths_of(entry, fmt, rows, [1.0])
    for mode in (MODES[0], MODES[-1]):
        figures = measure(entry, asked, mode)
        worst = {d: (f.value, f.gradient) for d, f in figures.items()}
        assert all(max(w) <= 4 for w in worst.values()), worst
        assert all(f.curve <= 16 for f in figures.values())
