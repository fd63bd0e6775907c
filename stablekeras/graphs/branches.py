"""Branches of a graph that cost nothing while they are not taken."""

import tensorflow as tf

from stablekeras.graphs import resources
from stablekeras.graphs.xla import under_xla

__all__ = ["commit_or", "rarely"]

# Entries of the largest variable that is rather selected than branched on,
# and how many variables there must be.
_SMALL = 1 << 14
_MANY = 48


def rarely(function):
    """Makes one node of a branch that is hardly ever taken.

    Each node of the branch not taken costs time in a graph; a call that is
    not inlined is one node.
    """
    if tf.executing_eagerly():
        return function
    return tf.function(
        function,
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def commit_or(flag, commit, figures, refuse):
    """Returns `figures` after `commit` where `flag` is up, else `refuse()`.

    XLA cannot fuse an update with what is around its branch, and copies what
    a branch takes and gives: with many small variables that is a large part
    of an update. There the update is always computed, and of each variable
    the new or the old value is selected, bit for bit. Large variables are
    worth a branch.

    Args:
        flag: Boolean scalar tensor.
        commit: Takes and returns nothing; writes variables.
        figures: What is returned of a step that commits.
        refuse: Takes nothing, returns a tensor like `figures`.
    """
    update, written = commit, []
    if under_xla() and not tf.distribute.has_strategy():
        update = tf.function(commit, autograph=False).get_concrete_function()
        written = resources.written(update.graph)

    def committed():
        update()
        return figures

    if not _many_and_small(written):
        return tf.cond(flag, committed, refuse)
    before = [resources.read(v) for v in written]
    update()
    for variable, old in zip(written, before, strict=True):
        new = resources.read(variable)
        resources.assign(variable, tf.where(flag, new, old))
    return tf.cond(flag, lambda: figures, refuse)


def _many_and_small(variables):
    sizes = [v.shape.num_elements() for v in variables]
    small = all(size and size <= _SMALL for size in sizes)
    return small and len(sizes) >= _MANY
