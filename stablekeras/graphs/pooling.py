"""Show the NaN that max pooling hides.

Where a window holds nothing but NaN, TensorFlow's kernel for a CPU gives the
lowest finite number and XLA gives -Inf: the fault seems to begin later, where
a sum of such numbers overflows, or in a step run op by op not at all. A window
that holds a number as well is left as it is: training goes on from that.
"""

import tensorflow as tf

__all__ = ["MAX_POOLS", "with_nan"]

MAX_POOLS = frozenset({"MaxPool", "MaxPoolV2", "MaxPool3D"})


def with_nan(execute, args, results):
    """Returns the results of a max pooling, NaN where all of a window is.

    Args:
        execute: Runs the same op on other arguments.
        args: The arguments it ran on.
        results: What it gave.
    """
    missing = tf.math.is_nan(args[0])
    if not bool(tf.reduce_any(missing)):
        return results
    present = tf.cast(tf.logical_not(missing), args[0].dtype)
    (found,) = execute([present, *args[1:]])
    (pooled,) = results
    return [tf.where(found == 0, tf.cast(float("nan"), pooled.dtype), pooled)]
