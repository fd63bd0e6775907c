"""The backend interface on TensorFlow: sparse gradients, graphs, replicas."""

import tensorflow as tf

from stablekeras.graphs.branches import rarely
from stablekeras.graphs.updates import frugal
from stablekeras.graphs.xla import under_xla

__all__ = [
    "add_to",
    "all_reduce",
    "at_once",
    "cond",
    "do_not_convert",
    "frugal",
    "half_sum_of_squares",
    "indices_of",
    "map_values",
    "may_raise_here",
    "rarely",
    "share_of_replica",
    "sum_duplicates",
    "transact",
    "usable_here",
    "values_of",
]

at_once = tf.init_scope
cond = tf.cond
do_not_convert = tf.autograph.experimental.do_not_convert


def may_raise_here():
    """Whether an error raised by Python now ends the step at hand."""
    return tf.executing_eagerly() and _several_replicas() is None


def values_of(x):
    """Returns the values of an `IndexedSlices`, or the tensor itself."""
    return x.values if isinstance(x, tf.IndexedSlices) else x


def indices_of(x):
    """Returns the indices of an `IndexedSlices`, `None` for a tensor."""
    return x.indices if isinstance(x, tf.IndexedSlices) else None


def map_values(function, x):
    """Applies `function` to a tensor, or to the values of an `IndexedSlices`.

    The function must map 0 to 0, or rows that are absent would be wrong.
    """
    if isinstance(x, tf.IndexedSlices):
        return tf.IndexedSlices(function(x.values), x.indices, x.dense_shape)
    return function(x)


def sum_duplicates(x):
    """Adds up the rows of an `IndexedSlices` that have the same index.

    A row looked up twice in a batch arrives as two rows, whose sum is the
    gradient; its norm is not that of the two.
    """
    if not isinstance(x, tf.IndexedSlices):
        return tf.convert_to_tensor(x)
    rows = tf.convert_to_tensor(x.indices)
    indices, position = tf.unique(rows)
    if under_xla():
        # As many rows as came, for XLA knows no other number: those at the
        # end are zeros at index 0.
        indices = tf.math.unsorted_segment_max(rows, position, tf.size(rows))
        indices = tf.maximum(indices, 0)
    values = tf.math.unsorted_segment_sum(x.values, position, tf.size(indices))
    shape = x.dense_shape
    if shape is not None and not tf.is_tensor(shape):
        shape = tf.constant(list(shape))
    return tf.IndexedSlices(values, indices, shape)


def half_sum_of_squares(x):
    """Computes half the sum of the squares of a tensor.

    In rows, and their sums again: one entry after the other, the rounding
    errors of equal entries all point the same way and add up, to 2e-6 of a
    norm of 10,000 entries. In rows they stay below 3e-7 at any length.
    """
    if x.shape.num_elements() is None:  # The rows of an embedding.
        if under_xla():
            # They cannot be put in rows of another length; to add them up in
            # float64 takes no longer.
            total = tf.reduce_sum(tf.square(tf.cast(x, tf.float64)))
            return tf.cast(0.5 * total, x.dtype)
        return tf.nn.l2_loss(x)
    if under_xla():
        # XLA waits for each addition; a product with ones it splits into
        # lanes: half the time.
        sums = tf.square(x)
        while sums.shape.num_elements() > 128:
            rows = _rows(sums, 128)
            sums = tf.linalg.matvec(rows, tf.ones((128,), rows.dtype))
        return 0.5 * tf.reduce_sum(sums)
    while x.shape.num_elements() > 1024:
        # Square, sum and root are one operation; so is the last line.
        fitting = x.shape.rank > 1 and 64 <= x.shape[-1] <= 512
        rows = x if fitting else _rows(x, 256)
        x = tf.math.reduce_euclidean_norm(rows, -1)
    return tf.nn.l2_loss(x)


def _rows(x, length):
    """Returns the entries of a tensor in rows, the last filled with zeros."""
    flat = tf.reshape(x, (-1,))
    missing = -flat.shape[0] % length
    if missing:
        flat = tf.pad(flat, [[0, missing]])
    return tf.reshape(flat, (-1, length))


def add_to(variable, value):
    """Adds to a variable: one operation, where Keras reads, adds and writes."""
    variable.value.assign_add(value)


def usable_here(x):
    """Whether a tensor kept from an earlier call belongs to this step.

    To this graph, or to one that this graph is a branch of.
    """
    if tf.executing_eagerly():
        return isinstance(x, tf.__internal__.EagerTensor)
    graph, origin = tf.compat.v1.get_default_graph(), getattr(x, "graph", None)
    while graph is not origin and graph is not None:
        graph = getattr(graph, "outer_graph", None)
    return graph is not None


def _several_replicas():
    context = tf.distribute.get_replica_context()
    return context if context and context.num_replicas_in_sync > 1 else None


def all_reduce(tensors):
    """Sums each tensor over the replicas; `None` stays `None`."""
    context = _several_replicas()
    present = [x for x in tensors if x is not None]
    if context is None or not present:
        return tensors
    reduced = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present))
    return [None if x is None else next(reduced) for x in tensors]


def share_of_replica(tensors):
    """Splits reduced tensors so that their sum over replicas is right again.

    The inner optimizer will sum what it gets over the replicas. The first
    replica hands in everything and the others zeros, which is exact for any
    number of replicas and keeps the rows of an `IndexedSlices` unique.
    """
    context = _several_replicas()
    if context is None:
        return tensors
    first = tf.equal(context.replica_id_in_sync_group, 0)

    def share(x):
        if isinstance(x, tf.IndexedSlices):
            rows = tf.shape(x.indices)[0] * tf.cast(first, tf.int32)
            return tf.IndexedSlices(
                x.values[:rows], x.indices[:rows], x.dense_shape
            )
        return tf.where(first, x, tf.zeros_like(x))

    return [None if x is None else share(x) for x in tensors]


def transact(condition, commit, skip, arguments):
    """Calls `commit(*arguments)` if the condition holds, else `skip`.

    Both change variables and return nothing. Under a strategy that merges its
    replicas for an update, a conditional must stand outside of them: a branch
    inside of a replica could not wait for the others. The condition must be
    the same on all replicas.
    """
    if tf.__internal__.distribute.strategy_supports_no_merge_call():
        tf.cond(
            condition,
            lambda: commit(*arguments),
            rarely(lambda: skip(*arguments)),
        )
        return

    def merged(strategy, condition, *arguments):
        def on_each(function):
            strategy.extended.call_for_each_replica(function, args=arguments)

        decided = strategy.experimental_local_results(condition)[0]
        tf.cond(decided, lambda: on_each(commit), lambda: on_each(skip))

    tf.distribute.get_replica_context().merge_call(
        merged, args=(condition, *arguments)
    )
