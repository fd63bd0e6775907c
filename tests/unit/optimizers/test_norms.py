"""Norms without overflow and underflow, against float64."""

import math

import numpy as np
import pytest
import tensorflow as tf

from stablekeras.optimizers import backends, norms

CASES = {
    "ordinary": [[3.0, 4.0], [12.0]],
    "squares overflow": [[1e20, -1e20], [3e19]],
    "largest floats": [[3.4e38, 1e30], [1.0]],
    "squares underflow": [[1e-30, 2e-30], [-2e-30]],
    "zeros": [[0.0, 0.0], [0.0]],
    "mixed": [[1e20, 1e-30], [1.0]],
}


@pytest.mark.parametrize("jit_compile", [None, False, True])
@pytest.mark.parametrize("tensors", CASES.values(), ids=CASES)
def test_tensor_norms_agree_with_float64(tensors, jit_compile):
    """Each norm and the norm of all are those of float64, within 1e-6."""

    def compute(*xs):
        return norms.tensor_norms(list(xs), "float32", every_tensor=True)

    if jit_compile is not None:
        compute = tf.function(compute, jit_compile=jit_compile)
    each, together = compute(*[tf.constant(x) for x in tensors])
    exact = [np.linalg.norm(np.array(x, "float64")) for x in tensors]
    np.testing.assert_allclose(each, exact, rtol=1e-6)
    np.testing.assert_allclose(together, np.linalg.norm(exact), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("other", [1.0, 1e20, 1e-30])
def test_one_bad_entry_makes_the_norm_non_finite(bad, other):
    """A norm is finite only if all entries are, whatever stands beside."""
    each, together = norms.tensor_norms(
        [tf.constant([other, bad]), tf.constant([other])], "float32"
    )
    assert np.isfinite(each).tolist() == [False, True]
    assert not np.isfinite(together)


def test_missing_and_empty_tensors_count_as_zero():
    """`None` and tensors without entries have the norm 0."""
    each, together = norms.tensor_norms(
        [None, tf.zeros((0, 3)), tf.constant([3.0])], "float32"
    )
    assert each.numpy().tolist() == [0.0, 0.0, 3.0]
    assert float(together) == 3.0


def test_float16_entries_are_squared_in_float32():
    """A float16 tensor whose squares overflow float16 has its true norm."""
    each, _ = norms.tensor_norms(
        [tf.constant([60000.0, 60000.0], "float16")], "float32"
    )
    exact = np.linalg.norm(np.full(2, np.float16(60000.0), "float64"))
    np.testing.assert_allclose(each[0], exact, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_unit_norms_agree_with_float64(scale):
    """Norms along axes are those of float64, within 1e-6."""
    x = np.random.default_rng(0).standard_normal((4, 3)) * scale
    x = x.astype("float32")
    exact = np.linalg.norm(x.astype("float64"), axis=0, keepdims=True)
    np.testing.assert_allclose(norms.unit_norms(x, (0,)), exact, rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [None, False, True])
@pytest.mark.parametrize("shape", [(1000,), (100, 100), (257, 3), (10**7,)])
def test_equal_entries_keep_their_norm(shape, jit_compile):
    """Rounding errors that all point the same way do not add up."""

    def compute(x):
        return norms.tensor_norms([x], "float32")[1]

    if jit_compile is not None:
        compute = tf.function(compute, jit_compile=jit_compile)
    for value in np.float32([1.1, 1.7, 2.9, 3.3]):
        exact = math.sqrt(math.prod(shape)) * float(value)
        norm = float(compute(tf.fill(shape, value)))
        assert norm == pytest.approx(exact, rel=4e-7)


def test_summed_at_once_equal_entries_lose_a_digit():
    """The plain sum is further off than that, in one of four cases at least."""
    values = np.float32([1.1, 1.7, 2.9, 3.3])
    halves = [float(tf.nn.l2_loss(tf.fill((10**6,), v))) for v in values]
    errors = [
        abs(math.sqrt(2 * half / 1e6) / float(v) - 1)
        for half, v in zip(halves, values, strict=True)
    ]
    assert max(errors) > 4e-7


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("scale", [0.1, 1e-21, 1e25])
def test_rows_of_an_embedding_are_summed_as_exactly(jit_compile, scale):
    """Of 128,000 equal entries the norm is right within 1e-6."""

    @tf.function(jit_compile=jit_compile)
    def norm(rows, indices):
        rows = tf.IndexedSlices(rows, indices, (9000, 16))
        rows = backends.sum_duplicates(rows)
        return norms.tensor_norms([rows], "float32")[1]

    rows = tf.fill((8000, 16), tf.constant(scale, "float32"))
    exact = np.linalg.norm(rows.numpy().astype("float64"))
    np.testing.assert_allclose(norm(rows, tf.range(8000)), exact, rtol=1e-6)
