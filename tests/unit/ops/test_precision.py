"""Dtypes: which is computed in, which is answered."""

import numpy as np
import pytest

from stablekeras import ops
from stablekeras.ops.precision import compute_dtype, finfo

pytestmark = pytest.mark.backends


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_limits_are_those_of_numpy(dtype):
    """Epsilon, smallest normal and largest number agree with NumPy."""
    ours, theirs = finfo(dtype), np.finfo(dtype)
    assert (ours.eps, ours.tiny, ours.max) == (
        theirs.eps,
        theirs.tiny,
        theirs.max,
    )


def test_limits_of_integers_are_refused():
    """An integer dtype has no epsilon."""
    with pytest.raises(TypeError, match=r"Received: dtype='int32'"):
        finfo("int32")


def test_only_float64_is_computed_in_float64():
    """16-bit inputs are computed in float32."""
    assert {d: compute_dtype(d) for d in ("float16", "float64")} == {
        "float16": "float32",
        "float64": "float64",
    }


def test_sixteen_bits_are_rounded_once():
    """float16 gives the float32 result, rounded."""
    x = np.linspace(-8, 8, 257).astype("float16")
    for function in (ops.softplus, ops.sigmoid, ops.log_cosh, ops.tanh):
        wide = np.asarray(function(x.astype("float32")))
        half = np.asarray(function(x))
        assert (half == wide.astype("float16")).all()
