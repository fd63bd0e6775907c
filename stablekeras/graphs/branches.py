"""Branches of a graph that cost nothing while they are not taken."""

import tensorflow as tf

__all__ = ["rarely"]


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
