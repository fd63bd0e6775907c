"""Functions that carry their own derivative: the one place that knows how.

Differentiating an accurate formula need not give an accurate gradient: the
branch that was not taken, a tie, or two large terms that cancel may spoil it.
So each function here names its derivative, which may again be such a
function; that gives second derivatives of the same quality.
"""

from keras import ops as kops

__all__ = ["with_derivative", "with_derivatives"]


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

    @kops.custom_gradient
    def function(x):
        def gradient(*args, upstream=None):
            # Torch hands back the saved input and names the upstream.
            point, slope = (
                (x, args[0])
                if upstream is None
                else (
                    args[0],
                    upstream,
                )
            )
            return scale(slope, derivative(point))

        return value(x), gradient

    return function


def with_derivatives(value, *partials):
    """Return a function of several tensors with given partial derivatives.

    Args:
        value: Elementwise function of `n` tensors of one shape.
        *partials: Its `n` partial derivatives, each a function of `n` tensors.

    Returns:
        A function of `n` tensors that broadcasts them first. An upstream
        gradient of exactly zero selects an infinite derivative away.
    """

    @kops.custom_gradient
    def function(*xs):
        def gradient(*args, upstream=None):
            points, slope = (
                (xs, args[0])
                if upstream is None
                else (
                    args,
                    upstream,
                )
            )
            return tuple(_selected(slope, p(*points)) for p in partials)

        return value(*xs), gradient

    def broadcast(*xs):
        # Outside the custom gradient, so that it is summed back over.
        shapes = [tuple(x.shape) for x in xs]
        if any(None in s for s in shapes) or len(set(shapes)) > 1:
            total = sum(kops.zeros_like(x) for x in xs)
            xs = [x + total for x in xs]
        return function(*xs)

    return broadcast


def _product(upstream, slope):
    return upstream * slope


def _selected(upstream, slope):
    dead = kops.logical_and(
        kops.equal(upstream, 0), kops.logical_not(kops.isfinite(slope))
    )
    return upstream * kops.where(dead, kops.zeros_like(slope), slope)
