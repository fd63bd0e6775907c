"""Values and gradients of a function of numbers, on every backend."""

import numpy as np
import pytest

from tests.accuracy.backends import DTYPES, derivatives

__all__ = ["double", "slope", "value", "with_float64"]

INF = float("inf")
NAN = float("nan")

with_float64 = pytest.mark.skipif(
    "float64" not in DTYPES, reason="this backend has no float64"
)


def _run(function, x, weights):
    x = np.asarray(x, "float32")
    rows = x.reshape(-1, 1) if x.ndim < 2 else x
    got = derivatives(function, [rows], np.asarray(weights), "eager")[0]
    return got[0], got[1].reshape(x.shape)


def value(function, x):
    """The value at a vector of numbers, or at a matrix of rows."""
    out = _run(function, x, 1.0)[0]
    return out.reshape(-1) if np.ndim(x) < 2 else out


def slope(function, x, weights=1.0):
    """The gradient of the weighted sum of the values."""
    return _run(function, x, weights)[1]


def double(function, x):
    """The first value and slope of a function of one row, in float64."""
    row = np.array([[x]], "float64")
    got = derivatives(function, [row], 1.0, "eager", second=False)[0]
    return np.ravel(got[0])[0], np.ravel(got[1])[0]
