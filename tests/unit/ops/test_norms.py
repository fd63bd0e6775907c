"""Lengths and distances of vectors that are tiny, huge or zero."""

import keras
import numpy as np
import pytest

from stablekeras import ops
from tests.accuracy.backends import MODES, derivatives
from tests.unit.ops.calculus import INF, slope, value

pytestmark = pytest.mark.backends

SIZES = [1e-30, 1.0, 1e30]


def _norm(x, **kwargs):
    return ops.norm(x, axis=-1, **kwargs)


@pytest.mark.parametrize("size", SIZES)
def test_norm_does_not_square(size):
    """A vector of any size has its length and its direction."""
    rows = [[3 * size, 4 * size]]
    assert value(_norm, rows)[0] == pytest.approx(5 * size, rel=1e-6)
    assert slope(_norm, rows) == pytest.approx(np.array([[0.6, 0.8]]))


def test_norm_of_a_zero_vector_has_gradient_zero():
    """Where Keras' gradient is NaN ours is 0."""
    assert slope(_norm, [[0.0, 0.0]]).tolist() == [[0.0, 0.0]]


def test_the_direction_survives_a_length_that_does_not():
    """The length of (3e38, 3e38) is no float32; its direction is."""
    rows = [[3e38, 3e38]]
    assert value(_norm, rows).tolist() == [INF]
    assert slope(_norm, rows) == pytest.approx(np.sqrt([[0.5, 0.5]]))


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("order", [-1, -2, -0.5])
def test_negative_orders_scale(order, size):
    """The smallest entries count, and neither over- nor underflow."""
    x = np.array([[1.0, -2.0, 4.0]])
    sums = (np.abs(x) ** order).sum(-1, keepdims=True)
    direction = np.sign(x) * np.abs(x) ** (order - 1) * sums ** (1 / order - 1)
    function = lambda x: ops.norm(x, ord=order, axis=-1)  # noqa: E731
    assert np.ravel(value(function, x * size)) == pytest.approx(
        np.ravel(sums ** (1 / order)) * size, rel=1e-6
    )
    assert slope(function, x * size) == pytest.approx(direction, rel=1e-6)


@pytest.mark.parametrize("order", [-1, -2, -0.5])
def test_negative_orders_at_zero_have_gradient_zero(order):
    """One zero makes the norm 0, whatever the others are."""
    x = [[0.0, 1.0, -2.0], [0.0, 0.0, 0.0]]
    function = lambda x: ops.norm(x, ord=order, axis=-1)  # noqa: E731
    assert np.ravel(value(function, x)).tolist() == [0.0, 0.0]
    assert slope(function, x).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize(
    "order", [None, 1, -1, 2, -2, 3, 0.5, -0.5, np.inf, -np.inf, 0]
)
def test_vector_orders_are_those_of_numpy(order):
    """Every order of a vector norm agrees with NumPy."""
    x = np.array([[3.0, -4.0, 1.0], [0.25, 2.0, -1.0]])
    expected = np.linalg.norm(x, ord=order, axis=-1)
    got = np.asarray(ops.norm(np.float32(x), ord=order, axis=-1))
    assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("order", [None, "fro", "nuc", 1, -1, 2, np.inf])
def test_matrix_orders_are_those_of_numpy(order):
    """Every order of a matrix norm agrees with NumPy, at 1e25 too."""
    x = np.array([[3.0, -4.0], [0.25, 2.0]]) * 1e25
    expected = np.linalg.norm(x, ord=order)
    got = np.asarray(ops.norm(np.float32(x), ord=order))
    assert float(got) == pytest.approx(expected, rel=1e-5)
    kept = ops.norm(np.float32(x), ord=order, axis=(0, 1), keepdims=True)
    assert np.asarray(kept).shape == (1, 1)


@pytest.mark.parametrize(
    ("order", "axis", "message"),
    [
        (None, 2, r"axis must name.*Received: axis=2"),
        ("fro", 0, r"matrix norm.*Received: axis=0"),
        (3, (0, 1), r"Received: ord=3"),
    ],
)
def test_norms_that_do_not_exist_are_refused(order, axis, message):
    """An axis or order that makes no sense is an error."""
    with pytest.raises(ValueError, match=message):
        ops.norm(np.ones((2, 2), "float32"), ord=order, axis=axis)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_normalize_keeps_the_direction_of_any_vector(size, order):
    """Without an epsilon nothing is divided by more than the norm."""
    x = np.array([[3.0, 4.0]])
    expected = x / np.linalg.norm(x[0], ord=order)
    got = np.asarray(ops.normalize(np.float32(x * size), order=order))
    assert got == pytest.approx(expected, rel=1e-6)


def test_normalize_of_zero_is_zero_with_a_finite_gradient():
    """A zero vector stays zero and does not break the step."""
    assert value(ops.normalize, [[0.0, 0.0]]).tolist() == [[0.0, 0.0]]
    assert np.isfinite(slope(ops.normalize, [[0.0, 0.0]])).all()


def test_an_epsilon_bounds_the_divisor():
    """With an epsilon, normalize is that of Keras."""
    got = np.asarray(ops.normalize(np.float32([[3e-4, 4e-4]]), epsilon=1e-2))
    assert got == pytest.approx(np.array([[0.03, 0.04]]), rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_global_norm_is_that_of_all_tensors(size):
    """Tensors of several shapes count as one vector; None does not."""
    tensors = [
        np.float32([[3.0 * size]]),
        None,
        np.float32([0.0, 4.0 * size]),
        np.zeros((0, 2), "float32"),
    ]
    got = float(ops.global_norm(tensors))
    assert got == pytest.approx(5 * size, rel=1e-6)


def test_global_norm_of_nothing_is_zero():
    """No tensor, or none with an entry, has norm 0."""
    assert float(ops.global_norm([])) == 0.0
    assert float(ops.global_norm([None, np.zeros((0,), "float32")])) == 0.0


def test_global_norm_sums_repeated_rows():
    """A sparse gradient with a repeated row counts the row's sum."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("sparse gradients of this kind are TensorFlow's")
    import tensorflow as tf

    slices = tf.IndexedSlices(
        tf.constant([[3.0], [3.0]]), tf.constant([1, 1]), tf.constant([4, 1])
    )
    assert float(ops.global_norm([slices])) == 6.0


def test_equal_rows_have_distance_and_gradient_zero():
    """cdist of a row to itself has gradient 0, where Keras' is NaN."""
    rows = [[1.0, 2.0, 1.0, 2.0], [1e30, 0.0, 1e30, 0.0]]

    def distance(x):
        return ops.cdist(x[:, None, :2], x[:, None, 2:])[:, 0, 0]

    assert value(distance, rows).tolist() == [0.0, 0.0]
    assert slope(distance, rows).tolist() == np.zeros((2, 4)).tolist()


def test_cdist_broadcasts_over_batches():
    """All pairs of rows, for each member of the batch."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 4))
    expected = np.linalg.norm(x[:, :, None] - y[:, None], axis=-1)
    got = np.asarray(ops.cdist(np.float32(x), np.float32(y)))
    assert got == pytest.approx(expected, rel=1e-5)


def test_empty_tensors_have_empty_norms():
    """A share of a batch without rows does not end the training."""
    x = np.zeros((0, 3), "float32")
    assert tuple(ops.norm(x, axis=-1).shape) == (0,)
    assert tuple(ops.normalize(x).shape) == (0, 3)
    assert tuple(ops.cdist(x, x[:, :3]).shape) == (0, 0)
    assert tuple(ops.std(x, axis=-1).shape) == (0,)


def test_normalize_over_several_axes_takes_them_as_one_vector():
    """As in Keras, order 2 over a pair of axes is not the spectral norm."""
    x = np.array([[3.0, 4.0], [0.0, 12.0]], "float32")
    got = np.asarray(ops.normalize(x, axis=(0, 1)))
    assert got == pytest.approx(x / 13, rel=1e-6)
    assert np.asarray(ops.normalize(2.0)).tolist() == [1.0]


def test_cdist_needs_rows():
    """A vector has no rows to compare."""
    with pytest.raises(ValueError, match=r"Received: x.shape=\(3,\)"):
        ops.cdist(np.ones(3, "float32"), np.ones((2, 3), "float32"))


def test_the_least_entry_is_not_lost_beside_the_largest():
    """The norm of order -inf is the smallest size, however large the rest."""
    function = lambda x: ops.norm(x, ord=-INF, axis=-1)  # noqa: E731
    rows = [[1e30, -1e-20]]
    assert value(function, rows)[0] == pytest.approx(1e-20, rel=1e-6, abs=0)
    assert slope(function, rows).tolist() == [[0.0, -1.0]]


@pytest.mark.parametrize("order", [-1, -INF])
def test_the_least_row_is_not_lost_beside_the_largest(order):
    """Neither is the least sum of a row or column of a matrix."""
    x = np.float32([[1e30, 1e-20], [1e-20, 1e-20]])
    got = float(np.asarray(ops.norm(x, ord=order)))
    assert got == pytest.approx(2e-20, rel=1e-6, abs=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("order", [40, 100, 400])
def test_a_large_order_does_not_overflow(order, size):
    """Of entries that differ the largest is all that a large order sees."""
    function = lambda x: ops.norm(x, ord=order, axis=-1)  # noqa: E731
    rows = [[3 * size, size]]
    assert value(function, rows)[0] == pytest.approx(3 * size, rel=1e-6, abs=0)
    got = slope(function, rows)[0]
    # Each ULP of an entry counts so many times.
    assert got[0] == pytest.approx(1.0, rel=1e-6)
    assert got[1] == pytest.approx(3.0 ** (1 - order), rel=1e-4, abs=1e-37)


@pytest.mark.parametrize("order", [0.5, 1.5])
def test_a_small_order_sees_entries_of_every_size(order):
    """The power of a share is a number though the share is none."""
    function = lambda x: ops.norm(x, ord=order, axis=-1)  # noqa: E731
    got = slope(function, [[1e-30, 1e20]])
    assert got[0, 0] == pytest.approx(1e-50 ** (order - 1), rel=1e-5, abs=0)


def test_a_share_that_is_flushed_has_a_gradient():
    """The sum of sizes changes with each entry, however small beside it."""
    function = lambda x: ops.normalize(x, order=1)  # noqa: E731
    got = slope(function, [[1e-30, 1e20]], [1.0, 2.0])
    assert got[0, 0] == pytest.approx(-1e-20, rel=1e-6, abs=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", [1, 2, 3, -1, INF, -INF])
def test_nan_is_not_left_out_of_a_norm(order, mode):
    """What a program's largest and smallest numbers pass over is seen."""
    x = np.float32([[1.0, np.nan, 2.0], [1.0, 3.0, 2.0]])
    got = derivatives(
        lambda x: ops.norm(x, ord=order, axis=-1), [x], 1.0, mode, second=False
    )[0][0]
    assert np.isnan(got).tolist() == [True, False]


@pytest.mark.parametrize("order", [1, -1, INF, -INF])
def test_nan_is_not_left_out_of_a_matrix_norm(order):
    """Nor in sums of rows and columns."""
    x = np.float32([[1.0, np.nan], [1.0, 3.0]])
    assert np.isnan(np.asarray(ops.norm(x, ord=order)))
