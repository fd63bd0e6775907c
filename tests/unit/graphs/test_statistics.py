"""What is measured of a tensor."""

import ml_dtypes
import numpy as np
import pytest

from stablekeras.graphs.statistics import bad_mask, measure, rows_of


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16]
)
def test_counts_and_range(dtype):
    """NaN, both infinities and zeros are counted, the range is finite."""
    array = np.array([[np.nan, np.inf, -np.inf], [0.0, -2.0, 8.0]], dtype)
    stats = measure(array, "t:0", rows=(0,))
    assert (stats.nan, stats.posinf, stats.neginf) == (1, 1, 1)
    assert (stats.zeros, stats.min, stats.max) == (1, -2.0, 8.0)
    assert (stats.size, stats.finite, stats.shape) == (6, 3, (2, 3))
    assert stats.rows == (0,)
    assert stats.dtype == np.dtype(dtype).name


def test_an_empty_tensor():
    """A tensor without entries has no range and counts nothing."""
    stats = measure(np.zeros((0, 3), "float32"))
    assert (stats.size, stats.min, stats.max, stats.zeros) == (0, None, None, 0)


def test_a_tensor_without_a_finite_entry():
    """Without a finite entry there is no range."""
    stats = measure(np.full(3, np.nan, "float32"))
    assert (stats.nan, stats.min, stats.max) == (3, None, None)


def test_the_largest_half_is_finite():
    """65504 is the greatest float16, and is finite."""
    array = np.array([65504.0, -65504.0], "float16")
    assert bad_mask(array) is None
    assert measure(array).max == 65504.0


def test_rows_of_a_merged_axis():
    """Entry i of an axis of factor 3 belongs to row i // 3."""
    mask = np.zeros((12, 2), bool)
    mask[[4, 11], 0] = True
    assert rows_of(mask, (0, 3)) == (1, 3)
    assert rows_of(mask.T, (1, 3)) == (1, 3)
    assert rows_of(mask, None) == ()
