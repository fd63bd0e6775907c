"""The public functions look like their twins in `keras.ops`."""

import inspect

import keras
import pytest

from stablekeras import ops

pytestmark = pytest.mark.backends

DESIGN = [
    "clamped_log",
    "log1mexp",
    "log_sub_exp",
    "logaddexp",
    "logsumexp",
    "logmeanexp",
    "softmax",
    "log_softmax",
    "sigmoid",
    "log_sigmoid",
    "logit",
    "softplus",
    "softplus_inverse",
    "log_cosh",
    "xlogy",
    "xlog1py",
    "entropy",
    "divide_no_nan",
    "sqrt",
    "rsqrt",
    "power",
    "hypot",
    "norm",
    "normalize",
    "global_norm",
    "var",
    "std",
    "cdist",
    "erfinv",
    "arccos",
    "masked",
]
TWINS = [n for n in ops.__all__ if hasattr(keras.ops, n)]


def test_every_promised_name_is_there():
    """The names that others test against exist and are callable."""
    assert [n for n in DESIGN if not callable(getattr(ops, n, None))] == []


@pytest.mark.parametrize("name", TWINS)
def test_signature_is_that_of_keras(name):
    """Keras' parameters come first, with its names and defaults.

    What we add is keyword-only and has a default.
    """
    theirs = list(
        inspect.signature(getattr(keras.ops, name)).parameters.values()
    )
    ours = list(inspect.signature(getattr(ops, name)).parameters.values())
    assert ours[: len(theirs)] == theirs
    assert all(
        p.kind is p.KEYWORD_ONLY and p.default is not p.empty
        for p in ours[len(theirs) :]
    )


ONE = ["softplus", "sigmoid", "tanh", "log_cosh", "expm1", "sqrt", "softmax"]


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("float16", "float16"),
        ("bfloat16", "bfloat16"),
        ("float32", "float32"),
        ("int32", "float32"),
        ("bool", "float32"),
    ],
)
def test_the_answer_has_the_dtype_keras_gives(name, given, expected):
    """Floats keep their dtype; integers become the default float."""
    x = keras.ops.cast(keras.ops.convert_to_tensor([1, 0]), given)
    out = getattr(ops, name)(x)
    assert keras.backend.standardize_dtype(out.dtype) == expected


def test_python_numbers_follow_the_tensor():
    """A Python number does not widen a 16-bit tensor."""
    x = keras.ops.cast(keras.ops.convert_to_tensor([1.0]), "float16")
    out = ops.logaddexp(x, 0.0)
    assert keras.backend.standardize_dtype(out.dtype) == "float16"


def test_complex_numbers_are_refused():
    """A complex input is an error that says what to do."""
    x = keras.ops.convert_to_tensor([1 + 1j])
    with pytest.raises(TypeError, match=r"Received: dtype='complex"):
        ops.sigmoid(x)
