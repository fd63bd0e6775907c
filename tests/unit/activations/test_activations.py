"""Every activation: signature, limits, NaN, and what Keras' own gets wrong."""

import inspect

import keras
import numpy as np
import pytest

from stablekeras import activations
from tests.accuracy.backends import MODES, derivatives
from tests.unit.ops.calculus import INF, NAN, slope, value

pytestmark = pytest.mark.backends

NAMES = [
    n
    for n in activations.__all__
    if n not in ("get", "serialize", "deserialize")
]
# Called with these where the function has parameters without default.
ARGUMENTS = {"threshold": (0.5, 0.0)}
ELEMENTWISE = [
    n
    for n in NAMES
    if n not in ("softmax", "log_softmax", "sparsemax", "glu", "linear")
]


def _function(name):
    function = getattr(activations, name)
    return lambda x: function(x, *ARGUMENTS.get(name, ()))


def test_every_name_of_keras_is_there():
    """The module can be swapped whole."""
    theirs = {n for n in dir(keras.activations) if not n.startswith("_")}
    assert theirs - set(activations.__all__) == set()


@pytest.mark.parametrize("name", activations.__all__)
def test_signature_is_that_of_keras(name):
    """Names, order and defaults of the parameters are Keras'."""
    ours = inspect.signature(getattr(activations, name))
    assert ours == inspect.signature(getattr(keras.activations, name))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_nan_stays_nan(name):
    """No branch turns NaN into a number."""
    assert np.isnan(value(_function(name), [NAN])).all()


LIMITS = {
    # name: (at -inf, at inf)
    "celu": (-1.0, INF),
    "elu": (-1.0, INF),
    "exponential": (0.0, INF),
    "gelu": (0.0, INF),
    "hard_shrink": (-INF, INF),
    "hard_sigmoid": (0.0, 1.0),
    "hard_silu": (0.0, INF),
    "hard_swish": (0.0, INF),
    "hard_tanh": (-1.0, 1.0),
    "leaky_relu": (-INF, INF),
    "log_sigmoid": (-INF, 0.0),
    "mish": (0.0, INF),
    "relu": (0.0, INF),
    "relu6": (0.0, 6.0),
    "selu": (-1.7580993408473768, INF),
    "sigmoid": (0.0, 1.0),
    "silu": (0.0, INF),
    "soft_shrink": (-INF, INF),
    "softplus": (0.0, INF),
    "softsign": (-1.0, 1.0),
    "sparse_plus": (0.0, INF),
    "sparse_sigmoid": (0.0, 1.0),
    "squareplus": (0.0, INF),
    "swish": (0.0, INF),
    "tanh": (-1.0, 1.0),
    "tanh_shrink": (-INF, INF),
    "threshold": (0.0, INF),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_infinity_gives_the_limit(name):
    """Value and gradient at both infinities are finite limits or infinite."""
    low, high = value(_function(name), [-INF, INF])
    assert (low, high) == pytest.approx(LIMITS[name], rel=1e-6)
    if name != "exponential":
        assert np.isfinite(slope(_function(name), [-INF, INF])).all()


def test_approximate_gelu_has_the_same_limits():
    """The approximation is 0 at -inf and does not overflow at 1e20."""

    def gelu(x):
        return activations.gelu(x, approximate=True)

    assert value(gelu, [-INF, -1e20, 1e20]).tolist() == [
        0.0,
        0.0,
        np.float32(1e20),
    ]
    assert slope(gelu, [-1e20, 1e20]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1.0, 1.0, 0.0], [0.5, 0.5, 0.0]),
        ([0.5, 0.25, -4.0], [0.625, 0.375, 0.0]),
        ([3.0, 1.0, 0.0], [1.0, 0.0, 0.0]),
        ([0.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]),
        ([-INF, 0.0, 0.0], [0.0, 0.5, 0.5]),
        ([INF, 0.0, 0.0], [1.0, 0.0, 0.0]),
        ([-INF, -INF, -INF], [0.0, 0.0, 0.0]),
    ],
)
def test_sparsemax_projects_onto_the_simplex(row, expected):
    """The nearest point with entries >= 0 that sum to 1."""
    got = value(activations.sparsemax, [row])[0]
    assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_sparsemax_of_nothing(shape):
    """A share of a batch without rows does not end the training."""
    got = activations.sparsemax(np.zeros(shape, "float32"))
    assert tuple(got.shape) == shape


def test_squareplus_of_the_most_negative_number():
    """b / (4 |x|) is in the format though 2 |x| is not."""
    x = np.float32([-(2.0**127), -INF])
    got = value(lambda x: activations.squareplus(x, b=2.0**20), x)
    assert got.tolist() == [2.0**-109, 0.0]


def test_sparsemax_along_another_axis():
    """The axis of the classes need not be the last."""
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    down = np.asarray(activations.sparsemax(x, axis=0))
    across = np.asarray(activations.sparsemax(x.T, axis=-1)).T
    assert down == pytest.approx(across)
    assert down.sum(0) == pytest.approx(np.ones(5))


def test_integers_are_taken():
    """relu keeps integers, as in Keras; most others widen."""
    x = np.int32([-2, 0, 7])
    got = {
        name: keras.backend.standardize_dtype(
            getattr(activations, name)(x, *ARGUMENTS.get(name, ())).dtype
        )
        for name in ("relu", "hard_tanh", "softplus", "elu")
    }
    assert got == {
        "relu": "int32",
        "hard_tanh": "float32",
        "softplus": "float32",
        "elu": "float32",
    }
    assert np.asarray(activations.relu6(x)).tolist() == [0, 0, 6]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: activations.glu(x), r"even size.*Received: x.shape="),
        (lambda x: activations.squareplus(x, b=-1), r"Received: b=-1"),
        (lambda x: activations.celu(x, alpha=0), r"Received: alpha=0"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    """What has no answer is an error that says what was received."""
    with pytest.raises(ValueError, match=message):
        call(np.ones((2, 3), "float32"))


def test_probabilities_remember_their_logits():
    """A loss can find the logits behind our softmax and sigmoid, eagerly."""
    x = keras.ops.convert_to_tensor(np.float32([[1.0, 2.0]]))
    for function in (activations.softmax, activations.sigmoid):
        assert function(x)._keras_logits is x


def _every_mode(function, x):
    """Yields value, slope and second derivative at one float32 each."""
    rows = np.full((16, 1), x, "float32")  # enough for the kernels of many
    for mode in MODES:
        got = derivatives(function, [rows], 1.0, mode)[0]
        yield [float(np.ravel(part)[0]) for part in got]


def test_celu_is_the_identity_at_small_numbers():
    """They may not be flushed though their share of alpha is."""
    for got, slope_, _ in _every_mode(
        lambda x: activations.celu(x, alpha=8.0), -2e-38
    ):
        assert got == pytest.approx(-2e-38, rel=1e-6, abs=0)
        assert slope_ == pytest.approx(1.0)


def test_celu_divides_by_alpha_with_one_rounding():
    """An exponential magnifies the second, of a reciprocal of alpha."""
    x = np.float32(-0.07785731554031372)
    exact = np.exp(np.float64(x) / 0.001)
    # What an ULP of x causes, and 4 more.
    allowed = float(np.spacing(np.float32(-x))) / 0.001 + 4 * 2.0**-23
    for _, got, _ in _every_mode(lambda x: activations.celu(x, alpha=0.001), x):
        assert got == pytest.approx(exact, rel=allowed, abs=0)


@pytest.mark.parametrize("b", [1e-30, 4, 1e30])
def test_squareplus_bends_whatever_its_smoothness(b):
    """The cube of a length need not be in the format."""
    for _, _, curve in _every_mode(
        lambda x: activations.squareplus(x, b=b), 0.0
    ):
        assert curve == pytest.approx(0.5 / np.sqrt(b), rel=1e-6, abs=0)


def test_squareplus_keeps_its_digits_far_below_zero():
    """It is 1 / |x| there, which graphs compute in half the digits."""
    for got, _, _ in _every_mode(activations.squareplus, -1.4931166e35):
        assert got == pytest.approx(1 / 1.4931166e35, rel=1e-6, abs=0)


@pytest.mark.parametrize("mode", MODES)
def test_sparsemax_does_not_pass_over_nan(mode):
    """One NaN in a row makes the row NaN, wherever it stands."""
    x = np.float32([[NAN, 1.0], [1.0, NAN], [NAN, NAN], [1.0, 0.5]])
    got = derivatives(activations.sparsemax, [x], 1.0, mode, second=False)
    missing = np.isnan(got[0][0]).any(-1)
    assert missing.tolist() == [True, True, True, False]
