"""Show the NaN and the -Inf that max pooling hides.

Where a window holds nothing else, TensorFlow's kernel for a CPU gives the
lowest finite number, XLA -Inf: the fault seems to begin later, where a sum of
such numbers overflows, or in a step that is run op by op not at all. A window
that holds another number is left as it is: training goes on from that.
"""

import tensorflow as tf

__all__ = ["MAX_POOLS", "with_hidden"]

MAX_POOLS = frozenset({"MaxPool", "MaxPoolV2", "MaxPool3D"})


def with_hidden(execute, args, results):
    """Returns the results of a max pooling with what it hid.

    Args:
        execute: Runs the same op on other arguments.
        args: The arguments it ran on.
        results: What it gave.
    """
    x, *others = args
    known = x > -float("inf")  # False for NaN as well.
    if bool(tf.reduce_all(known)):
        return results
    (pooled,) = results
    (found,) = execute([tf.cast(known, x.dtype), *others])
    (nans,) = execute([tf.cast(tf.math.is_nan(x), x.dtype), *others])
    hidden = tf.where(nans > 0, float("nan"), -float("inf"))
    return [tf.where(found == 0, tf.cast(hidden, x.dtype), pooled)]
