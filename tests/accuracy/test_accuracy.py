"""Values and derivatives against the exact oracle, in every dtype and mode.

The contract: value and gradient within 4 ULP (8 for losses), counted on the
exact value, beyond what one ULP of input error causes. Second derivatives are
finite where the truth is, and within 16 ULP.
"""

import functools

import keras
import pytest

from tests.accuracy.backends import DTYPES, MODES
from tests.accuracy.measure import measure, questions
from tests.accuracy.registry import ENTRIES

BOUND = {"ops": 4.0, "activations": 4.0, "losses": 8.0}
SECOND_BOUND = 16.0

IDS = [
    f"{entry.name}-{sum(e.name == entry.name for e in ENTRIES[:i])}"
    for i, entry in enumerate(ENTRIES)
]
LOSSES = [i for i, e in enumerate(ENTRIES) if e.name.startswith("losses.")]
SHORT, LONG = (12, 0), (90, 1)
JAX = keras.backend.backend() == "jax"
# JAX compiles a program for each dtype of each loss.
TINY, FEW = (6, 0), ("bfloat16", "float32")


@functools.lru_cache(maxsize=4)
def _asked(index, count, seed):
    entry = ENTRIES[index]
    dtypes = FEW if (count, seed) == TINY else DTYPES
    return questions(
        entry, count, seed, tuple(d for d in entry.dtypes if d in dtypes)
    )


def _check(index, form, mode):
    entry = ENTRIES[index]
    if not set(entry.dtypes) & set(DTYPES):
        pytest.skip("this backend has none of its dtypes")
    figures = measure(entry, _asked(index, *form), mode)
    bound = BOUND[entry.name.split(".")[0]]
    broken = [
        (dtype, what, getattr(f, what), getattr(f, f"{what}_at"))
        for dtype, f in figures.items()
        for what, limit in (
            ("value", bound),
            ("gradient", bound),
            ("curve", SECOND_BOUND),
        )
        if getattr(f, what) > limit
    ]
    assert broken == []


def _quick():
    """Yields entries and modes, without what is slow to compile.

    That is losses, which the long form compiles, and on JAX every single
    operation of the eager mode.
    """
    for i, entry in enumerate(ENTRIES):
        loss = entry.name.startswith("losses.")
        for mode in MODES[-1:] if JAX else MODES[:1] if loss else MODES:
            yield pytest.param(
                i, mode, id=f"{IDS[i]}-{mode}", marks=pytest.mark.backends
            )


@pytest.mark.parametrize(("index", "mode"), [*_quick()])
def test_reduced_grid_keeps_the_contract(index, mode):
    """The function is within the contract on a compact grid."""
    loss = ENTRIES[index].name.startswith("losses.")
    _check(index, TINY if JAX and loss else SHORT, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("index", range(len(ENTRIES)), ids=IDS)
def test_full_grid_keeps_the_contract(index, mode):
    """The function is within the contract on a fine grid."""
    _check(index, LONG, mode)


def _second_derivative(function):
    """Returns a graph that differentiates a function of rows twice."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def twice(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = function(x)
            slope = inner.gradient(value, x, unconnected_gradients="zero")
        return outer.gradient(slope, x, unconnected_gradients="zero")

    return twice


@pytest.mark.skipif(len(MODES) < 3, reason="needs a TensorFlow graph")
@pytest.mark.parametrize("index", LOSSES, ids=[IDS[i] for i in LOSSES])
def test_a_loss_is_differentiated_twice_in_a_graph(index):
    """Two tapes in one graph can be traced, and give the shape of the input."""
    entry = ENTRIES[index]
    twice = _second_derivative(entry.function)
    import tensorflow as tf

    graph = twice.get_concrete_function(tf.TensorSpec((2, entry.arity)))
    assert graph.structured_outputs.shape == (2, entry.arity)
