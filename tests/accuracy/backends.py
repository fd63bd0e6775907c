"""Value, gradient and second derivative of a function, on every backend."""

import keras
import numpy as np

from tests.accuracy import formats

__all__ = ["DTYPES", "MODES", "derivatives"]

_BACKEND = keras.backend.backend()

MODES = {
    "tensorflow": ("eager", "graph", "xla"),
    "jax": ("eager", "xla"),
    "torch": ("eager",),
}[_BACKEND]


def _has_float64():
    """Whether there is float64: JAX must be asked for it before it starts."""
    if _BACKEND != "jax":
        return True
    import jax

    return bool(jax.config.jax_enable_x64)


DTYPES = tuple(d for d in formats.DTYPES if d != "float64" or _has_float64())


def derivatives(function, inputs, weights, mode, second=True):
    """Differentiates `sum(weights * function(*columns))`.

    Args:
        function: Function of one tensor of shape `(rows, n)`.
        inputs: List of NumPy arrays of shape `(rows, n)`, one per dtype; all
            are compiled into one program.
        weights: Array broadcast against the output.
        mode: One of `MODES`.
        second: Whether to differentiate twice.

    Returns:
        For each input `(value, gradient, curve)` as float64 arrays, where
        `curve` is the gradient of the first column of the gradient.
    """
    run = {
        "tensorflow": _tensorflow,
        "jax": _jax,
        "torch": _torch,
    }[_BACKEND]
    return run(function, inputs, weights, mode, second)


def _numpy(x):
    x = keras.ops.cast(x, "float64") if _BACKEND != "jax" else x
    return np.asarray(keras.ops.convert_to_numpy(x)).astype("float64")


def _tensorflow(function, inputs, weights, mode, second):
    import tensorflow as tf

    def one(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = function(x)
                total = tf.reduce_sum(y * tf.cast(weights, y.dtype))
            gradient = inner.gradient(total, x, unconnected_gradients="zero")
            column = tf.reduce_sum(gradient[:, 0])
        if not second:
            return y, gradient, tf.zeros_like(x)
        curve = outer.gradient(column, x, unconnected_gradients="zero")
        return y, gradient, curve

    def every(*xs):
        return [one(x) for x in xs]

    if mode != "eager":
        every = tf.function(every, jit_compile=mode == "xla", autograph=False)
    xs = [tf.constant(x) for x in inputs]
    return [tuple(_numpy(t) for t in r) for r in every(*xs)]


def _jax(function, inputs, weights, mode, second):
    import jax
    import jax.numpy as jnp

    def total(x):
        y = function(x)
        return jnp.sum(y * jnp.asarray(weights, y.dtype))

    def one(x):
        gradient = jax.grad(total)(x)
        if not second:
            return function(x), gradient, jnp.zeros_like(x)
        curve = jax.grad(lambda v: jnp.sum(jax.grad(total)(v)[:, 0]))(x)
        return function(x), gradient, curve

    run = jax.jit(one) if mode == "xla" else one
    return [tuple(_numpy(t) for t in run(jnp.asarray(x))) for x in inputs]


def _torch(function, inputs, weights, mode, second):
    import torch

    results = []
    for array in inputs:
        # Without its name Keras would make float64 the default float.
        x = keras.ops.convert_to_tensor(array, dtype=array.dtype.name)
        x = x.detach().requires_grad_(True)
        y = function(x)
        w = torch.as_tensor(np.asarray(weights, "float64")).to(y.dtype)
        gradient = _torch_gradient(torch.sum(y * w), x, second)
        curve = torch.zeros_like(x)
        if second and gradient.requires_grad:
            curve = _torch_gradient(torch.sum(gradient[:, 0]), x, False)
        results.append(tuple(_numpy(t.detach()) for t in (y, gradient, curve)))
    return results


def _torch_gradient(total, x, keep):
    import torch

    (gradient,) = torch.autograd.grad(
        total, x, create_graph=keep, allow_unused=True
    )
    return torch.zeros_like(x) if gradient is None else gradient
