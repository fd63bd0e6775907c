"""Division by zero, and functions kept away from where they fail."""

from keras import ops as kops

from stablekeras.ops.gradient import with_derivatives
from stablekeras.ops.precision import answered
from stablekeras.ops.symbolic import stable

__all__ = ["divide_no_nan", "masked"]


def _quotient(x, y):
    zero = kops.equal(y, 0)
    out = x / kops.where(zero, 1.0, y)
    return kops.where(zero, 0.0, out)


def _by_denominator(x, y):
    return -divide_no_nan_kernel(divide_no_nan_kernel(x, y), y)


def _by_numerator(x, y):
    return divide_no_nan_kernel(kops.ones_like(x), y)


divide_no_nan_kernel = with_derivatives(
    _quotient, _by_numerator, _by_denominator
)


@stable
def divide_no_nan(x1, x2):
    """Compute `x1 / x2`, 0 where `x2 == 0`."""
    return answered(divide_no_nan_kernel, x1, x2)


def masked(function, x, mask, *, safe=0.5, otherwise=0.0):
    """Apply `function` where `mask` is true, and nowhere else.

    Where `mask` is false the function sees `safe`, its result is replaced by
    `otherwise`, and neither value nor gradient of `x` passes.
    """
    x = kops.convert_to_tensor(x)
    mask = kops.cast(mask, "bool")
    inside = function(kops.where(mask, x, kops.cast(safe, x.dtype)))
    return kops.where(mask, inside, kops.cast(otherwise, inside.dtype))
