"""Patterns over producers, on a run."""

import numpy as np
import pytest
import tensorflow as tf

from stablekeras.graphs.match import anything, constant, either, op
from stablekeras.graphs.run import run
from stablekeras.graphs.trace import trace
from stablekeras.graphs.views import NodeView
from stablekeras.hazards.formulas import NORM, SIGMOID, SOFTMAX, SPREAD

X = np.random.default_rng(0).uniform(1, 2, (3, 4)).astype("float32")


def _view(fn):
    traced = trace(fn, (X,))
    execution = run(traced)
    return NodeView(execution, execution.ref(traced.outputs[0][1]))


def _exp_over_sum(x):
    e = tf.exp(x - tf.reduce_max(x, axis=1, keepdims=True))
    return e / tf.reduce_sum(e, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("pattern", "fn"),
    [
        (SOFTMAX, lambda x: tf.nn.softmax(x)),
        (SOFTMAX, _exp_over_sum),
        (SOFTMAX, lambda x: tf.cast(tf.nn.softmax(x)[:, 0], "float64")),
        (SIGMOID, lambda x: 1.0 / (1.0 + tf.exp(-x))),
        (SIGMOID, lambda x: tf.exp(x) / (tf.exp(x) + 1.0)),
        (SIGMOID, lambda x: tf.math.reciprocal(tf.exp(-x) + 1.0)),
        (SIGMOID, lambda x: 0.5 * (tf.tanh(x / 2.0) + 1.0)),
        (NORM, lambda x: tf.norm(x, axis=1)),
        (NORM, lambda x: tf.sqrt(tf.reduce_sum(x * x, axis=1))),
        (SPREAD, lambda x: tf.math.reduce_std(x, axis=1)),
    ],
)  # fmt: skip
def test_formulas_are_recognised(pattern, fn):
    """Each way to write a formula matches its pattern."""
    assert pattern.match(_view(fn)) is not None


@pytest.mark.parametrize(
    ("pattern", "fn"),
    [
        (SOFTMAX, lambda x: tf.exp(x) / tf.reduce_sum(tf.exp(2.0 * x))),
        (SIGMOID, lambda x: 1.0 / (2.0 + tf.exp(-x))),
        (NORM, lambda x: tf.sqrt(tf.reduce_sum(x))),
        (SPREAD, lambda x: tf.sqrt(tf.reduce_mean(x))),
    ],
)
def test_what_only_looks_alike_is_not(pattern, fn):
    """A formula with another constant or another operand does not match."""
    assert pattern.match(_view(fn)) is None


def test_the_same_name_is_the_same_tensor():
    """A name captured twice must be one tensor."""
    pattern = op("Mul", anything("x"), anything("x"))
    assert pattern.match(_view(lambda x: x * x)) is not None
    assert pattern.match(_view(lambda x: x * (x + 1.0))) is None


def test_sums_match_in_both_orders():
    """A constant may stand on either side of a sum."""
    pattern = op(("Add", "AddV2"), constant(1.0), anything("x"))
    assert pattern.match(_view(lambda x: x + 1.0)) is not None
    assert pattern.match(_view(lambda x: 1.0 + x)) is not None
    assert pattern.match(_view(lambda x: x + 2.0)) is None


def test_the_first_that_fits_is_taken():
    """`either` captures by the first pattern that matches."""
    pattern = either(op("Exp", anything("a")), op("Log", anything("b")))
    assert set(pattern.match(_view(tf.math.log))) == {"b"}
