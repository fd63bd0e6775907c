"""Variance and standard deviation, with gradient 0 for constant data."""

from keras import ops as kops

from stablekeras.ops.axes import check_axis, rank_of
from stablekeras.ops.gradient import with_pullback
from stablekeras.ops.norms import safe_scale_of
from stablekeras.ops.powers import sqrt_kernel
from stablekeras.ops.precision import largest, to_compute
from stablekeras.ops.symbolic import stable

__all__ = ["std", "var"]


def _centred(x, axis):
    """Return the scale, the scaled distances from the mean, their number."""
    m = safe_scale_of(x, axis)
    y = x / m
    # Not kops.mean, which narrows float64 on torch.
    count = kops.sum(kops.ones_like(x), axis=axis, keepdims=True)
    # Each sum is of distances: XLA's may be off by more than its last bits,
    # and of equal numbers nothing must be left.
    peak = kops.stop_gradient(largest(y, axis))
    d = y - (peak + kops.sum(y - peak, axis=axis, keepdims=True) / count)
    # What the rounding of the mean left over.
    d = d - kops.sum(d, axis=axis, keepdims=True) / count
    return m, d, count


def _mean_square(d, count, axis):
    return kops.sum(kops.square(d), axis=axis, keepdims=True) / count


def _reduced(value, pullback, x, axis, keepdims):
    dtype, (x,) = to_compute(x)
    check_axis(x, axis)
    out = with_pullback(value, pullback)(x)
    if not keepdims:
        out = kops.sum(out, axis=axis)  # over dimensions of size one
    elif axis is None and rank_of(x) is not None:  # torch has dropped them
        out = kops.reshape(out, (1,) * len(x.shape))
    return kops.cast(out, dtype)


@stable
def var(x, axis=None, keepdims=False):
    """Compute the variance.

    Args:
        x: Tensor of any shape; integers are taken as floats.
        axis: Integer or tuple, along which to reduce; `None` for all.
        keepdims: Whether to keep `axis` with size one.

    Returns:
        Tensor without `axis`.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 1.1 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 1.0, 0.3.
    Gradient: `2 * (x - mean) / n`, through the mean as well.

    Example:
    >>> from stablekeras import ops
    >>> round(float(ops.var([1.0, 2.0, 3.0, 4.0])), 4)
    1.25
    """

    def value(x):
        m, d, count = _centred(x, axis)
        return m * (m * _mean_square(d, count, axis))

    def pullback(u, x):
        m, d, count = _centred(x, axis)
        return (u * (m * (2 * d / count)),)

    return _reduced(value, pullback, x, axis, keepdims)


@stable
def std(x, axis=None, keepdims=False):
    """Compute the standard deviation.

    The mean may be as large, and the spread as small, as the dtype can tell
    apart.

    Args:
        x: Tensor of any shape; integers are taken as floats.
        axis: Integer or tuple, along which to reduce; `None` for all.
        keepdims: Whether to keep `axis` with size one.

    Returns:
        Tensor without `axis`.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.3 in float32, 0.3 in
        float64; gradient 0.5, 0.5, 1.9, 1.7.
    Gradient: `(x - mean) / (n * std)`, and 0 for constant data.

    Example:
    >>> from stablekeras import ops
    >>> round(float(ops.std([1.0, 2.0, 3.0, 4.0])), 4)
    1.118
    """

    def value(x):
        m, d, count = _centred(x, axis)
        return m * sqrt_kernel(_mean_square(d, count, axis))

    def pullback(u, x):
        _, d, count = _centred(x, axis)
        s = sqrt_kernel(_mean_square(d, count, axis))
        return (u * (d / kops.where(kops.equal(s, 0), 1.0, s) / count),)

    return _reduced(value, pullback, x, axis, keepdims)
