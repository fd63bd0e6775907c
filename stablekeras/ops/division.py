"""Division by zero, and functions kept away from where they fail."""

from keras import ops as kops

from stablekeras.ops.gradient import with_derivatives
from stablekeras.ops.precision import answered, exact_number
from stablekeras.ops.symbolic import stable

__all__ = ["divide_no_nan", "masked"]


def _quotient(x, y):
    zero = kops.equal(y, 0)
    out = x / kops.where(zero, 1.0, y)
    return kops.where(zero, 0.0, out)


def _by_denominator(x, y):
    return -divide_no_nan_kernel(divide_no_nan_kernel(x, y), y)


def _by_numerator(x, y):
    # Not 1 / y, see `reciprocal`.
    return divide_no_nan_kernel(2 * kops.ones_like(x), 2 * y)


divide_no_nan_kernel = with_derivatives(
    _quotient, _by_numerator, _by_denominator
)


@stable
def divide_no_nan(x1, x2):
    """Compute `x1 / x2`, 0 where `x2 == 0`.

    Args:
        x1: Tensor.
        x2: Tensor that broadcasts with `x1`.

    Returns:
        Tensor of the broadcast shape: 0 where `x2` is 0, whatever `x1`
        is.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: `1 / x2` and `-x1 / x2**2`, both 0 where `x2 == 0`.

    Example:
    >>> from stablekeras import ops
    >>> [
    ...     round(float(v), 4)
    ...     for v in ops.divide_no_nan([1.0, 1.0], [0.0, 4.0])
    ... ]
    [0.0, 0.25]
    """
    return answered(divide_no_nan_kernel, x1, x2)


def masked(function, x, mask, *, safe=0.5, otherwise=0.0):
    """Apply `function` where `mask` is true, and nowhere else.

    Where `mask` is false the function sees `safe`, and its result is replaced
    by `otherwise`. Neither value nor gradient of `x` passes there, be it NaN.
    A single `where` after the function does not do that: the gradient of the
    branch that was not chosen is `0 * inf = NaN`.

    Args:
        function: Function of one tensor that returns a tensor of its shape.
        x: Tensor.
        mask: Boolean tensor that broadcasts with `x`.
        safe: Number the function can take. Defaults to 0.5, which suits
            logarithms, roots, quotients and inverse functions alike.
        otherwise: Number to return where `mask` is false. Defaults to 0.

    Returns:
        Tensor of the shape and dtype that `function` returns.

    Raises:
        TypeError: If `function` is not callable.

    Accuracy: worst ULP 0.0 in float16, 0.1 in bfloat16, 0.0 in float32, 0.1 in
        float64; gradient 0.5, 0.5, 0.5, 0.5.
    Gradient: That of `function` where `mask` is true, 0 elsewhere.

    Example:
    >>> import keras
    >>> from stablekeras import ops
    >>> x = keras.ops.convert_to_tensor([-1.0, 1.0, 2.0])
    >>> [round(float(v), 4) for v in ops.masked(keras.ops.log, x, x > 0)]
    [0.0, 0.0, 0.6931]
    """
    if not callable(function):
        raise TypeError(
            f"function must be callable. Received: function={function!r}. "
            "Pass the function first, then the tensor and the mask."
        )
    x = kops.convert_to_tensor(x)
    mask = kops.cast(mask, "bool")
    inside = function(kops.where(mask, x, exact_number(safe, x.dtype)))
    return kops.where(mask, inside, exact_number(otherwise, inside.dtype))
