"""Scalars that are finite exactly if a tensor is: cheap to ask every step."""

import tensorflow as tf

__all__ = ["half_square", "presence", "values"]


def values(tensor):
    """Returns the entries of a tensor or of `tf.IndexedSlices`."""
    return tensor.values if isinstance(tensor, tf.IndexedSlices) else tensor


def half_square(x):
    """Returns half the sum of squares, in float32 at least.

    Not finite if an entry is not, nor if a square overflows: what an
    optimizer with second moments may not survive.
    """
    if x.dtype.size < 4:  # The square of 300 overflows float16.
        x = tf.cast(x, tf.float32)
    return tf.nn.l2_loss(x)


def presence(x):
    """Returns a float32 scalar that is finite exactly if all of `x` is."""
    x = tf.convert_to_tensor(x)
    if x.dtype.size < 4:
        x = tf.cast(x, tf.float32)
    # Scaled, so that the squares of what is large but sound do not overflow.
    scale = 1e-160 if x.dtype == tf.float64 else 1e-25
    return tf.cast(tf.nn.l2_loss(x * tf.constant(scale, x.dtype)), tf.float32)
