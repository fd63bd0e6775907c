"""Softmax, logsumexp and their relatives at their edges."""

import numpy as np
import pytest

from stablekeras import ops
from tests.accuracy.backends import MODES, derivatives
from tests.unit.ops.calculus import INF, NAN, slope, value

pytestmark = pytest.mark.backends

FULL = np.array([[1.0, 2.0, 3.0]])


@pytest.mark.parametrize(
    ("row", "shares"),
    [
        ([0.0, 0.0], [0.5, 0.5]),
        ([-INF, 0.0], [0.0, 1.0]),
        ([INF, 3.0], [1.0, 0.0]),
        ([INF, INF], [0.5, 0.5]),
        ([-INF, -INF], [0.0, 0.0]),
        ([INF, -INF], [1.0, 0.0]),
        ([3e38, -3e38], [1.0, 0.0]),
    ],
)
def test_softmax_of_infinities_is_the_limit(row, shares):
    """An infinite logit has all, a negative infinite one nothing."""
    assert value(ops.softmax, [row]).tolist() == [shares]


@pytest.mark.parametrize(
    "function", [ops.softmax, ops.log_softmax, ops.logsumexp]
)
def test_nan_stays_nan(function):
    """A NaN logit is not hidden, next to an infinite one neither."""
    for row in ([NAN, 0.0], [NAN, INF], [NAN, -INF]):
        assert np.isnan(value(function, [row])).any()


@pytest.mark.parametrize(
    ("function", "empty"),
    [
        (ops.softmax, [0.0, 0.0, 0.0]),
        (ops.log_softmax, [0.0, 0.0, 0.0]),
    ],
)
def test_a_fully_masked_row_is_zero(function, empty):
    """A row with nothing selected gives 0, with gradient 0, whatever it is."""
    row = np.array([[NAN, INF, 1.0]])
    where = np.zeros((1, 3), bool)

    def masked(x):
        return function(x, where=where)

    assert value(masked, row).tolist() == [empty]
    assert slope(masked, row, [[1.0, 2.0, 3.0]]).tolist() == [[0.0] * 3]


def test_logsumexp_of_nothing():
    """Nothing selected is 0; nothing but -inf is -inf, as the sum says."""
    where = np.zeros((1, 3), bool)
    nothing = value(lambda x: ops.logsumexp(x, axis=-1, where=where), FULL)
    assert nothing.tolist() == [0.0]
    assert value(ops.logsumexp, [[-INF, -INF]]).tolist() == -INF


def test_logsumexp_of_selected_minus_infinities():
    """To select all is to select nothing away: -inf stays -inf."""
    x = np.array([[-INF, -INF], [-INF, 0.0], [-INF, 0.0]])
    where = np.array([[True, True], [True, False], [False, False]])
    got = value(lambda x: ops.logsumexp(x, axis=-1, where=where), x)
    assert got.tolist() == [-INF, -INF, 0.0]


@pytest.mark.parametrize("poison", [NAN, INF, -INF, 3e38])
@pytest.mark.parametrize(
    "function", [ops.softmax, ops.log_softmax, ops.logsumexp]
)
def test_what_is_masked_reaches_nothing(function, poison):
    """A masked entry changes neither value nor gradient of the others."""
    where = np.array([[True, True, False]])

    def masked(x):
        return function(x, axis=-1, where=where)

    bad = np.array([[1.0, 2.0, poison]])
    weights = 1.0 if function is ops.logsumexp else [[1.0, -2.0, 0.0]]
    good_slope = slope(
        lambda x: function(x[:, :2], axis=-1),
        FULL,
        1.0 if function is ops.logsumexp else [[1.0, -2.0]],
    )
    assert slope(masked, bad, weights).tolist() == good_slope.tolist()
    assert (
        value(masked, bad).reshape(-1)[:1].tolist()
        == value(lambda x: function(x[:, :2], axis=-1), FULL)
        .reshape(-1)[:1]
        .tolist()
    )


def test_the_largest_log_share_keeps_its_digits():
    """log_softmax of a sure class is -exp(-30), not 0."""
    sure = value(ops.log_softmax, [[0.0, -30.0]])[0, 0]
    assert sure == pytest.approx(-np.exp(-30.0), rel=1e-6)


def test_axes_and_keepdims_are_those_of_keras():
    """Tuples of axes, None and keepdims have NumPy's meaning."""
    x = np.arange(24, dtype="float32").reshape(2, 3, 4) / 7
    expected = np.log(np.exp(x.astype("float64")).sum((0, 2), keepdims=True))
    got = np.asarray(ops.logsumexp(x, axis=(0, 2), keepdims=True))
    assert got.shape == (1, 3, 1)
    assert got == pytest.approx(expected, rel=1e-6)
    assert np.asarray(ops.logsumexp(x)).shape == ()
    assert np.asarray(ops.softmax(x, axis=(1, 2))).sum((1, 2)) == (
        pytest.approx([1.0, 1.0])
    )


def test_the_gradient_of_a_sure_log_share_keeps_its_digits():
    """Where one class has nearly all, `u - p * sum(u)` is within 4 ULP."""
    x = np.zeros((500, 4), "float32")
    x[:, 0], x[:, 3] = np.linspace(4, 9, 500), -1.3
    u = np.array([1.0, -0.5, 2.0, 0.25])
    p = np.exp(x.astype("float64"))
    p /= p.sum(-1, keepdims=True)
    exact = u - p * u.sum()
    ulps = np.spacing(np.float32(np.maximum(np.abs(exact), 1)))
    got = slope(ops.log_softmax, x, np.tile(u, (500, 1)))
    assert (np.abs(got - exact) / ulps).max() < 4


def test_logmeanexp_is_the_log_of_the_mean():
    """Equal entries have themselves as mean, however large."""
    assert value(ops.logmeanexp, [[1e4, 1e4]]).tolist() == 1e4
    assert value(ops.logmeanexp, [[0.0] * 7]).tolist() == 0.0


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_an_empty_tensor_has_empty_shares(shape):
    """A share of a batch without rows does not end the training."""
    x = np.zeros(shape, "float32")
    for function in (ops.softmax, ops.log_softmax):
        assert tuple(function(x).shape) == shape
    totals = np.asarray(ops.logsumexp(x, axis=-1)).tolist()
    assert totals == [-INF] * shape[0]


@pytest.mark.parametrize("count", [3, 5, 1000])
def test_the_mean_of_equal_entries_is_that_entry(count):
    """No difference of two logarithms blurs a small one."""
    rows = np.full((1, count), 0.011, "float32")
    got = value(lambda x: ops.logmeanexp(x, axis=-1), rows)
    assert np.ravel(got).tolist() == [np.float32(0.011)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "function", [ops.logsumexp, ops.logmeanexp, ops.softmax, ops.log_softmax]
)
def test_a_row_of_nan_is_not_an_empty_one(function, mode):
    """XLA finds the maximum of nothing in one; the answer is NaN."""
    x = np.float32([[NAN, NAN, NAN], [-INF, NAN, -INF], [1.0, 2.0, 3.0]])
    got = derivatives(
        lambda x: function(x, axis=-1), [x], 1.0, mode, second=False
    )[0][0]
    missing = np.isnan(got.reshape(3, -1)).any(-1)
    assert missing.tolist() == [True, True, False]
