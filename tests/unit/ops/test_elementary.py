"""The kernels that replace the backends' own."""

import math

import numpy as np
import pytest

from stablekeras import ops
from stablekeras.ops.elementary import _COTH, horner, split
from tests.unit.ops.calculus import value

pytestmark = pytest.mark.backends


def test_the_series_of_x_coth_x_starts_as_in_the_books():
    """1/3, -1/45, 2/945: Bernoulli numbers."""
    assert _COTH[:3] == pytest.approx([1 / 3, -1 / 45, 2 / 945])


def test_horner_takes_the_constant_first():
    """1 + 2x + 3x**2 at 2 is 17."""
    assert horner([1.0, 2.0, 3.0], 2.0) == 17.0


def test_split_gives_the_dtype_its_part():
    """The parts of a constant add up to it, the first in the dtype."""
    x = np.zeros(1, "float32")
    high, low = split((math.pi, 0.0), x)
    assert high == float(np.float32(math.pi))
    assert high + low == math.pi


@pytest.mark.parametrize("x", [1e-30, -1e-10, 1e-4])
def test_small_numbers_keep_their_digits(x):
    """expm1, log1p and tanh of a small number are about that number."""
    for function in (ops.expm1, ops.log1p, ops.tanh):
        got = value(function, [x])[0]
        assert got == pytest.approx(x, rel=1e-3)
        assert got != 0
