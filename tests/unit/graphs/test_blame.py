"""Which op made an entry not finite, entry by entry."""

import numpy as np
import pytest
import tensorflow as tf

from stablekeras.graphs.blame import blame
from stablekeras.graphs.run import run
from stablekeras.graphs.trace import trace


def _roots(fn, x):
    traced = trace(fn, (np.asarray(x, "float32"),))
    execution = run(traced, rows=len(x))
    found = blame(execution, [execution.ref(t) for _, t in traced.outputs])
    return [(r.node.type, [tuple(p) for p in np.argwhere(r.born)]) for r in
            found.roots], found, execution  # fmt: skip


def test_an_infinity_that_recovers_is_not_met():
    """exp(1000) under 1 / (1 + exp) is no root; log(0) after it is."""
    roots, _, _ = _roots(
        lambda x: tf.math.log(1.0 / (1.0 + tf.exp(x))), [1.0, 1000.0]
    )
    assert roots == [("Log", [(1,)])]


def test_entries_of_one_tensor_are_told_apart():
    """An op that gets an Inf in one row may be the root in another."""

    def fn(x):
        return 1.0 / (tf.exp(x) - 1.0)

    roots, _, _ = _roots(fn, [0.0, 1000.0, 1.0])
    assert roots == [("RealDiv", [(0,)])]


MOVES = {
    "reshape": lambda t: tf.reshape(t, (2, 3)),
    "transpose": lambda t: tf.transpose(tf.reshape(t, (2, 3))),
    "slice": lambda t: t[1:5],
    "gather": lambda t: tf.gather(t, [4, 1, 1]),
    "concat": lambda t: tf.concat([t, tf.ones(2)], 0),
    "stack": lambda t: tf.stack([t, t + 1.0]),
    "split": lambda t: tf.split(t, 2)[0],
    "tile": lambda t: tf.tile(t, [2]),
    "pad": lambda t: tf.pad(t, [[1, 1]]),
    "sum": lambda t: tf.reduce_sum(tf.reshape(t, (2, 3)), axis=1),
    "matmul": lambda t: tf.matmul(tf.reshape(t, (2, 3)), tf.ones((3, 2))),
    "softmax": lambda t: tf.nn.log_softmax(tf.reshape(t, (2, 3))),
    "broadcast": lambda t: t[:, None] + tf.ones((6, 2)),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_entries_are_followed_through(move):
    """Whatever moves, sums or mixes the entries, log(0) is the only root."""
    roots, _, _ = _roots(lambda x: move(tf.math.log(x)), [1, 0, 1, 2, 3, 4])
    assert roots == [("Log", [(1,)])]


def test_a_select_is_followed_by_what_it_chose():
    """The branch that a select did not take is not blamed."""

    def fn(x):
        return tf.where(x > 0.5, 1.0 / (x - 1.0), tf.math.log(x - 2.0))

    roots, _, _ = _roots(fn, [1.0, 2.0])
    assert [kind for kind, _ in roots] == ["RealDiv"]


def test_a_finite_result_has_no_root():
    """Without an entry that is not finite nothing is blamed."""
    roots, found, _ = _roots(tf.exp, [1.0])
    assert roots == []
    assert found.sinks == ()


def test_the_chain_leads_from_root_to_sink():
    """The chain names each op on the way, in order."""
    _, found, execution = _roots(
        lambda x: -tf.reduce_mean(tf.math.log(x)), [0.0, 1.0]
    )
    root = found.roots[0]
    chain = found.chain((root.node.number, root.output))
    kinds = [execution.nodes[number].type for number in chain]
    assert kinds == ["Log", "Mean", "Neg"]
