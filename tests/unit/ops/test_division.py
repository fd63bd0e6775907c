"""Division by zero, and the double where as a function."""

import keras
import numpy as np
import pytest

from stablekeras import ops
from tests.unit.ops.calculus import INF, NAN, slope, value

pytestmark = pytest.mark.backends


def test_division_by_zero_is_zero_with_gradient_zero():
    """Value and both gradients are 0 where the denominator is."""
    rows = [[1.0, 0.0], [NAN, 0.0], [INF, 0.0], [1.0, 4.0]]

    def quotient(x):
        return ops.divide_no_nan(x[:, 0], x[:, 1])

    assert np.ravel(value(quotient, rows)).tolist() == [0.0, 0.0, 0.0, 0.25]
    assert slope(quotient, rows).tolist() == [
        [0.0, 0.0],
        [0.0, 0.0],
        [0.0, 0.0],
        [0.25, -0.0625],
    ]


def test_a_nan_divided_stays_nan():
    """Only a zero denominator is special."""
    got = ops.divide_no_nan(np.float32([NAN, 1.0]), np.float32([2.0, NAN]))
    assert np.isnan(np.asarray(got)).all()


@pytest.mark.parametrize(
    "function",
    [
        keras.ops.log,
        keras.ops.sqrt,
        keras.ops.rsqrt,
        keras.ops.arccos,
        keras.ops.reciprocal,
    ],
)
def test_a_masked_entry_reaches_neither_value_nor_gradient(function):
    """What stands where the mask is false, even NaN, has no effect."""
    x = [NAN, INF, -2.0, 0.0, 0.25]
    mask = np.array([[False], [False], [False], [False], [True]])

    def masked(v):
        return ops.masked(function, v, mask, otherwise=7.0)

    assert value(masked, x).tolist()[:4] == [7.0] * 4
    assert slope(masked, x).tolist()[:4] == [0.0] * 4
    assert np.isfinite([value(masked, x)[4], slope(masked, x)[4]]).all()


def test_a_single_where_is_not_enough():
    """The trap that `masked` is for: one `where` gives a NaN gradient."""
    log = keras.ops.log
    trap = slope(lambda v: keras.ops.where(v > 0, log(v), 0.0), [0.0, 4.0])
    kept = slope(lambda v: ops.masked(log, v, v > 0), [0.0, 4.0])
    assert np.isnan(trap[0])
    assert kept.tolist() == [0.0, 0.25]


def test_masked_wants_a_function_first():
    """Swapped arguments are an error that names the order."""
    with pytest.raises(TypeError, match=r"function must be callable.*first"):
        ops.masked([1.0], keras.ops.log, [True])
