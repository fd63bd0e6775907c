"""A loop over time that compiles under XLA, second derivatives included."""

import keras
from keras import ops as kops

__all__ = ["scan"]


def scan(step, init, xs, reverse=False):
    """Carries a state over the first axis of tensors.

    `keras.ops.scan` gives TensorFlow's loop no bound on its iterations, which
    XLA needs to differentiate it.

    Args:
        step: Function `(carry, x) -> (carry, y)`; `y` like the carry's first
            element, a tuple of tensors.
        init: Tuple, the first carry.
        xs: Tuple of tensors of one length.
        reverse: Whether to start at the end.

    Returns:
        `(carry, ys)`: the last carry and the stacked `y`, in time's order.
    """
    if keras.config.backend() != "tensorflow":
        return kops.scan(step, init, xs, reverse=reverse)
    import tensorflow as tf

    count = xs[0].shape[0]
    bound = count
    if count is None:
        count = tf.shape(xs[0])[0]
    arrays = [
        tf.TensorArray(x.dtype, size=count, element_shape=x.shape[1:]).unstack(
            x
        )
        for x in xs
    ]
    outs = tuple(
        tf.TensorArray(x.dtype, size=count, element_shape=x.shape)
        for x in init[0]
    )

    def body(i, carry, outs):
        at = count - 1 - i if reverse else i
        carry, y = step(carry, tuple(a.read(at) for a in arrays))
        outs = tuple(o.write(at, v) for o, v in zip(outs, y, strict=True))
        return i + 1, carry, outs

    _, carry, outs = tf.while_loop(
        lambda i, *_: i < count,
        body,
        (tf.constant(0), init, outs),
        maximum_iterations=bound,
    )
    return carry, tuple(o.stack() for o in outs)
