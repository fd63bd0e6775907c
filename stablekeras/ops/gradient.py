"""Functions that carry their own derivative: the one place that knows how.

Differentiating an accurate formula need not give an accurate gradient: the
branch that was not taken, a tie, or two large terms that cancel may spoil it.
So each function here names its derivative, which may again be such a
function; that gives second derivatives of the same quality.
"""

import keras
from keras import ops as kops

from stablekeras.ops.axes import rank_of

__all__ = [
    "broadcast",
    "custom_gradient",
    "no_gradient",
    "remembered",
    "with_derivative",
    "with_derivatives",
    "with_memory",
    "with_pullback",
]

_TENSORFLOW = keras.backend.backend() == "tensorflow"


def custom_gradient(function):
    """Does what `keras.ops.custom_gradient` does, in every direction.

    JAX differentiates the forward pass of a differentiated function as it is
    written, if it is differentiated again: that pass must be the function
    itself, not the formula of its value. TensorFlow's forward mode follows the
    formula as long as it finds tangents there, and the gradient otherwise; in
    a graph it knows the formula alone.

    Args:
        function: Function of tensors that returns its value, and the function
            that makes gradients of an upstream gradient.

    Returns:
        A function of tensors.
    """
    if _TENSORFLOW:
        return kops.custom_gradient(_without_tangents(function))
    if keras.backend.backend() != "jax":
        return kops.custom_gradient(function)
    import jax

    @jax.custom_vjp
    def call(*xs):
        return function(*xs)[0]

    def forward(*xs):
        return call(*xs), xs

    def backward(xs, upstream):
        gradients = function(*xs)[1](upstream)
        return gradients if isinstance(gradients, tuple) else (gradients,)

    call.defvjp(forward, backward)
    return call


def _without_tangents(function):
    import tensorflow as tf

    def call(*xs):
        value, gradient = function(*xs)
        if tf.executing_eagerly():
            value = tf.nest.map_structure(tf.stop_gradient, value)
        return value, gradient

    return call


def with_pullback(value, pullback):
    """Return the function `value` with a given reverse-mode derivative.

    Args:
        value: Function of `n` tensors.
        pullback: Function of the upstream gradient and the `n` tensors that
            returns the `n` gradients as a tuple. It must be differentiable
            itself if second derivatives are wanted.

    Returns:
        A function of `n` tensors.
    """

    @custom_gradient
    def function(*xs):
        def gradient(*args, upstream=None):
            if upstream is None:
                gradients = pullback(args[0], *xs)
            else:  # torch hands the saved inputs back, and names the upstream
                gradients = pullback(upstream, *args)
            return gradients if len(xs) > 1 else gradients[0]

        return value(*xs), gradient

    return function


def with_derivative(value, derivative, singular=False):
    """Return the elementwise function `value` with a given derivative.

    Args:
        value: Function of one tensor.
        derivative: Its derivative, a differentiable function of one tensor.
        singular: Whether the derivative is infinite somewhere. If so, an
            upstream gradient of exactly zero selects it away there: what a
            `where` did not choose cannot reach the gradient as `0 * inf`.

    Returns:
        A function of one tensor.
    """
    scale = _selected if singular else _product
    return with_pullback(value, lambda u, x: (scale(u, derivative(x)),))


def with_memory(memory, value, slope, second):
    """Return an elementwise function whose derivative reuses an intermediate.

    Outside XLA each operation is a pass over memory, so what the value and
    its derivative share is worth keeping.

    Args:
        memory: Function of one tensor: what both need, a tensor or a tuple.
        value: Function of the tensor and its memory.
        slope: The derivative, as a function of the tensor and its memory.
        second: The second derivative, a function of the tensor alone.

    Returns:
        A function of one tensor.
    """

    def remembering(value, slope):
        return with_pullback(
            value,
            lambda u, x, *m: (u * slope(x, *m), *map(no_gradient, m)),
        )

    derivative = remembering(slope, lambda x, *m: second(x))
    kept = remembering(value, derivative)

    def function(x):
        m = memory(x)
        m = m if isinstance(m, tuple) else (m,)
        return kept(x, *map(remembered, m))

    return function


def remembered(x):
    """Return an intermediate as an input whose gradient is `no_gradient`."""
    # Behind a stop TensorFlow's forward mode would find no tangent.
    return x if _TENSORFLOW else kops.stop_gradient(x)


def no_gradient(x):
    """Return the gradient of what is `remembered`: it is not followed back."""
    return None if _TENSORFLOW else kops.zeros_like(x)


def with_derivatives(value, *partials):
    """Return a function of several tensors with given partial derivatives.

    Args:
        value: Elementwise function of `n` tensors of one shape.
        *partials: Its `n` partial derivatives, each a function of `n` tensors.

    Returns:
        A function of `n` tensors that broadcasts them first. An upstream
        gradient of exactly zero selects an infinite derivative away.
    """
    function = with_pullback(
        value, lambda u, *xs: tuple(_selected(u, p(*xs)) for p in partials)
    )

    # Outside the custom gradient, so that gradients are summed back.
    return lambda *xs: function(*broadcast(*xs))


def broadcast(*xs):
    """Return tensors of one shape; those known to be of one stay as they are.

    A gradient of one's own has the shape of what it is the gradient by.
    """
    shapes = {tuple(x.shape) if rank_of(x) is not None else None for x in xs}
    if len(shapes) > 1 or any(s is None or None in s for s in shapes):
        ones = 1
        for x in xs:
            ones = ones * kops.stop_gradient(kops.ones_like(x))
        xs = tuple(x * ones for x in xs)
    return xs


def _product(upstream, slope):
    return upstream * slope


def _selected(upstream, slope):
    dead = kops.logical_and(
        kops.equal(upstream, 0), kops.logical_not(kops.isfinite(slope))
    )
    return upstream * kops.where(dead, kops.zeros_like(slope), slope)
