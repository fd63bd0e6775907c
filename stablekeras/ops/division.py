"""Division by zero, and functions kept away from where they fail."""

from keras import ops as kops

from stablekeras.ops.precision import stable, to_compute

__all__ = ["divide_no_nan", "masked"]


@stable
def divide_no_nan(x1, x2):
    """Computes `x1 / x2`, 0 where `x2 == 0`."""
    dtype, (x, y) = to_compute(x1, x2)
    zero = kops.equal(y, 0)
    out = x / kops.where(zero, 1.0, y)
    return kops.cast(kops.where(zero, 0.0, out), dtype)


def masked(function, x, mask, *, safe=0.5, otherwise=0.0):
    """Applies `function` where `mask` is true, and nowhere else.

    Where `mask` is false the function sees `safe`, its result is replaced by
    `otherwise`, and neither value nor gradient of `x` passes.
    """
    x = kops.convert_to_tensor(x)
    mask = kops.cast(mask, "bool")
    inside = function(kops.where(mask, x, kops.cast(safe, x.dtype)))
    return kops.where(mask, inside, kops.cast(otherwise, inside.dtype))
