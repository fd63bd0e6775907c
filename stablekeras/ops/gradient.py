"""Functions that carry their own derivative: the one place that knows how.

Automatic differentiation of an accurate formula need not give an accurate
gradient: the branch that was not taken, a tie, or two large terms that cancel
may spoil it. So each function here names its derivative, which is again such
a function; that gives second derivatives of the same quality.
"""

from keras import ops as kops

__all__ = ["with_derivative", "with_derivatives"]


def with_derivative(value, derivative):
    """Returns the elementwise function `value` with a given derivative.

    Args:
        value: Function of one tensor.
        derivative: Its derivative, a differentiable function of one tensor.

    Returns:
        A function of one tensor. Where the upstream gradient is zero and the
        derivative is infinite, their product is zero: what a `where` did not
        select cannot reach the gradient.
    """

    @kops.custom_gradient
    def function(x):
        def gradient(*args, upstream=None):
            point = x
            if upstream is None:
                (upstream,) = args
            else:  # torch hands the saved inputs back
                (point,) = args
            return scaled(derivative(point), upstream)

        return value(x), gradient

    return function


def with_derivatives(value, *partials):
    """As `with_derivative`, for an elementwise function of several tensors.

    The tensors must have one shape; broadcast them before.

    Args:
        value: Function of `n` tensors.
        *partials: Its `n` partial derivatives, each a function of `n` tensors.
    """

    @kops.custom_gradient
    def function(*xs):
        def gradient(*args, upstream=None):
            points = xs
            if upstream is None:
                (upstream,) = args
            else:
                points = args
            return tuple(scaled(p(*points), upstream) for p in partials)

        return value(*xs), gradient

    return function


def scaled(slope, upstream):
    """Multiplies, where 0 times infinity or NaN is 0."""
    dead = kops.logical_and(
        kops.equal(upstream, 0), kops.logical_not(kops.isfinite(slope))
    )
    return upstream * kops.where(dead, kops.zeros_like(slope), slope)
