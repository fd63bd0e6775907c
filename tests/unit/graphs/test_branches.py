"""An update that is kept or undone, by a branch or by selecting."""

import numpy as np
import pytest
import tensorflow as tf

from stablekeras.graphs.branches import commit_or

MANY, FEW = 50, 3


def _variables(count, entries):
    rng = np.random.default_rng(0)
    return [
        tf.Variable(rng.normal(size=entries).astype("float32"))
        for _ in range(count)
    ]


def _step(variables):
    @tf.function(autograph=False, jit_compile=True)
    def step(flag, value):
        def commit():
            for v in variables:
                v.assign(v * value)

        def refuse():
            return value - 1.0

        return commit_or(flag, commit, value, refuse)

    return step


CASES = [(MANY, 4), (FEW, 4), (MANY, 1 << 15)]


@pytest.mark.parametrize(("count", "entries"), CASES)
def test_a_commit_is_kept(count, entries):
    """With the flag up the variables hold what was written."""
    variables = _variables(count, entries)
    wanted = [v.numpy() * np.float32(3.0) for v in variables]
    figures = _step(variables)(tf.constant(True), tf.constant(3.0))
    assert float(figures) == 3.0
    for v, expected in zip(variables, wanted, strict=True):
        np.testing.assert_array_equal(v.numpy(), expected)


@pytest.mark.parametrize(("count", "entries"), CASES)
def test_a_refusal_leaves_every_bit(count, entries):
    """With the flag down not even a NaN changes what the variables held."""
    variables = _variables(count, entries)
    before = [v.numpy().tobytes() for v in variables]
    figures = _step(variables)(tf.constant(False), tf.constant(np.nan))
    assert np.isnan(float(figures))
    assert [v.numpy().tobytes() for v in variables] == before


@pytest.mark.parametrize(
    ("count", "entries", "selects"),
    [(MANY, 4, MANY), (FEW, 4, 0), (MANY, 1 << 15, 0)],
)
def test_only_many_small_variables_are_selected(count, entries, selects):
    """Each is selected by itself; others are updated in a branch."""
    step = _step(_variables(count, entries))
    graph = step.get_concrete_function(
        tf.TensorSpec((), tf.bool), tf.TensorSpec((), tf.float32)
    ).graph
    kinds = [op.type for op in graph.get_operations()]
    assert kinds.count("SelectV2") == selects
