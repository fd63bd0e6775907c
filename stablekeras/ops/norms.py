"""Lengths and distances, scaled so that no square over- or underflows.

A vector divided by its largest entry has a harmless sum of squares. The
length is homogeneous, so the scale needs no gradient of its own.
"""

import math

import keras
from keras import ops as kops

from stablekeras.ops.axes import check_axis
from stablekeras.ops.elementary import reciprocal
from stablekeras.ops.gradient import with_pullback
from stablekeras.ops.powers import power_kernel, sqrt_kernel
from stablekeras.ops.precision import (
    compute_dtype,
    finfo,
    largest,
    to_compute,
)
from stablekeras.ops.symbolic import stable

__all__ = [
    "cdist",
    "global_norm",
    "length_kernel",
    "norm",
    "normalize",
    "safe_scale_of",
    "scale_of",
]


def scale_of(x, axis):
    """Return about the largest size along `axis`; 1 for zero and infinity.

    At most a quarter of the largest number, so that it has a reciprocal: XLA
    may divide by a broadcast number by multiplying with that.
    """
    m = largest(kops.abs(x), axis)
    usable = kops.logical_and(m > 0, m < math.inf)
    m = kops.where(m > 1, 0.25 * m, m)
    return kops.stop_gradient(kops.where(usable, m, 1.0))


def safe_scale_of(x, axis):
    """Return `scale_of`, but 1 where squares of the entries are harmless.

    Dividing by 1 is exact.
    """
    m = scale_of(x, axis)
    eps = finfo(x.dtype).eps
    harmless = kops.logical_and(m > eps, m < 1 / eps)
    return kops.where(harmless, 1.0, m)


def _unit(x, axis):
    """Return the direction of vectors, and their scale and scaled length."""
    m = safe_scale_of(x, axis)
    y = x / m
    n = sqrt_kernel(kops.sum(kops.square(y), axis=axis, keepdims=True))
    # Not `y / n`: XLA would divide by m * n, which may be infinite.
    return y * reciprocal(kops.where(kops.equal(n, 0), 1.0, n)), m, n


def length_kernel(x, axis):
    """Compute the 2-norm along `axis`, which stays with size one.

    The gradient is the direction of the vector, found without the length:
    it is right even where the length overflows.
    """

    def value(x):
        _, m, n = _unit(x, axis)
        return m * n

    return with_pullback(value, lambda u, x: (u * _unit(x, axis)[0],))(x)


def _euclidean(order, axis):
    vector = axis is None or isinstance(axis, int) or len(axis) == 1
    return order in (None, "fro") or (order == 2 and vector), vector


def _power_mean_kernel(x, p, axis):
    """Compute `sum(|x|**p)**(1/p)` along `axis` for `0 < p < inf`."""

    def parts(x):
        m = scale_of(x, axis)
        a = kops.abs(x) / m
        # Entries of 4, as `scale_of` leaves them, overflow in a large power.
        lift = kops.where(largest(a, axis) > 2, kops.full_like(m, 4.0), 1.0)
        a = a / lift
        exponent = kops.convert_to_tensor(float(p), x.dtype)
        total = kops.sum(power_kernel(a, exponent), axis=axis, keepdims=True)
        return m, lift, a, total, exponent

    def value(x):
        m, lift, _, total, exponent = parts(x)
        return m * (lift * power_kernel(total, 1 / exponent))

    def pullback(u, x):
        m, lift, a, total, exponent = parts(x)
        # Where an entry is 0 so is the slope, or it is vertical.
        zero = kops.equal(x, 0)
        if p < 2:  # where a share is flushed to zero, its power need not be
            high = power_kernel(
                kops.where(zero, 1.0, kops.abs(x)), exponent - 1
            )
            high = high * power_kernel(m * lift, 1 - exponent)
        else:
            high = power_kernel(kops.where(zero, 1.0, a), exponent - 1)
        total = kops.where(kops.equal(total, 0), 1.0, total)
        slope = high / power_kernel(total, (exponent - 1) / exponent)
        return (u * (kops.sign(x) * kops.where(zero, 0.0, slope)),)

    return with_pullback(value, pullback)(x)


def _inverse_mean_kernel(x, q, axis):
    """Compute `sum(|x|**-q)**(-1/q)` along `axis` for `0 < q < inf`."""

    def parts(x):
        a = kops.abs(x)
        m = kops.stop_gradient(-largest(-a, axis))
        zero = kops.equal(a, 0)
        # Two zeros, or two infinities, are of one size.
        same = kops.logical_and(
            kops.equal(a, m), kops.logical_or(zero, kops.equal(a, math.inf))
        )
        ratio = kops.where(same, 1.0, m / kops.where(zero, 1.0, a))
        exponent = kops.convert_to_tensor(float(q), x.dtype)
        total = kops.sum(power_kernel(ratio, exponent), axis, keepdims=True)
        return m, ratio, total, exponent

    def value(x):
        m, _, total, exponent = parts(x)
        return m * power_kernel(total, -1 / exponent)

    def pullback(u, x):
        _, ratio, total, exponent = parts(x)
        steep = exponent + 1
        slope = power_kernel(ratio, steep) * power_kernel(
            total, -steep / exponent
        )
        return (u * (kops.sign(x) * slope),)

    return with_pullback(value, pullback)(x)


def _order_length(x, order, axis):
    """Compute a norm that is not the 2-norm; `axis` stays with size one."""
    vector = _euclidean(order, axis)[1]
    if vector and order == 1:
        return kops.sum(kops.abs(x), axis=axis, keepdims=True)
    if vector and isinstance(order, (int, float)) and 0 < order < math.inf:
        return _power_mean_kernel(x, order, axis)
    if vector and isinstance(order, (int, float)) and -math.inf < order < 0:
        return _inverse_mean_kernel(x, -order, axis)
    # A count, extremes and sums of sizes overflow only where the norm does; a
    # scale would flush the entries or rows that are the smallest.
    m = scale_of(x, axis) if order in (2, -2, "nuc") else 1
    out = m * kops.norm(x / m, ord=order, axis=axis, keepdims=True)
    if order in (0, 2, -2, "nuc"):
        return out
    # XLA's extremes leave NaN out.
    missing = kops.any(kops.isnan(x), axis=axis, keepdims=True)
    return kops.where(missing, kops.full_like(out, math.nan), out)


def _checked_axis(x, order, axis):
    """Return the axis of a norm, as in NumPy; raise where there is none."""
    rank = len(x.shape)
    if axis is None and order is not None and rank <= 2:
        axis = tuple(range(rank))
    axes = (axis,) if isinstance(axis, int) else axis
    if axes is not None and (
        not 1 <= len(axes) <= 2 or not all(-rank <= a < rank for a in axes)
    ):
        raise ValueError(
            "axis must name one or two axes of x. "
            f"Received: axis={axis}, x.shape={tuple(x.shape)}. "
            "Pass an integer for vectors, a pair for matrices."
        )
    matrix = axes is not None and len(axes) == 2
    if matrix and order not in (None, "fro", "nuc", *_MATRIX_ORDERS):
        raise ValueError(
            f"ord must be an order of matrix norms. Received: ord={order}, "
            f"axis={axis}. Use 'fro', 'nuc', 1, 2 or inf, or their negatives."
        )
    if not matrix and isinstance(order, str):
        raise ValueError(
            f"ord={order!r} is a matrix norm. Received: axis={axis}, "
            f"x.shape={tuple(x.shape)}. Pass a pair of axes."
        )
    return axis


_MATRIX_ORDERS = (1, -1, 2, -2, math.inf, -math.inf)


@stable
def norm(x, ord=None, axis=None, keepdims=False):
    """Compute a vector or matrix norm.

    A vector of entries near 1e20 or 1e-30 has the right length in float32.

    Args:
        x: Tensor of any shape; integers are taken as floats.
        ord: `None`, `"fro"`, `"nuc"`, a number or infinity, as in NumPy.
        axis: Integer for vectors, pair of integers for matrices, or `None`
            for all.
        keepdims: Whether to keep `axis` with size one.

    Returns:
        Tensor without `axis`.

    Raises:
        ValueError: If `axis` does not exist, or `ord` does not go with it.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.2 in
        float64; gradient 0.5, 0.4, 1.8, 1.7.
    Gradient: `x / norm`, and 0 for a zero vector; finite even where the length
        overflows.

    Example:
    >>> from stablekeras import ops
    >>> float(ops.norm([3e30, 4e30])) / 1e30
    4.999999924121604
    """
    dtype, (x,) = to_compute(x)
    axis = _checked_axis(x, ord, axis)
    if _euclidean(ord, axis)[0]:
        out = length_kernel(x, axis)
    else:
        out = _order_length(x, ord, axis)
    if not keepdims:
        out = kops.sum(out, axis=axis)  # over dimensions of size one
    return kops.cast(out, dtype)


@stable
def normalize(x, axis=-1, order=2, epsilon=None):
    """Divide by the norm.

    However small the vector, its direction is kept; Keras' default divides by
    no less than 1e-7.

    Args:
        x: Tensor of any shape; integers are taken as floats.
        axis: Integer or tuple, the axis of the vectors.
        order: Integer >= 1, the order of the norm.
        epsilon: Float, the least length to divide by; `None` for no bound.

    Returns:
        Tensor of the shape of `x`; a zero vector stays zero.

    Raises:
        ValueError: If `order` is not an integer >= 1, or `axis` is not one
            of `x`.

    Accuracy: worst ULP 0.5 in float16, 0.4 in bfloat16, 1.6 in float32, 0.7 in
        float64; gradient 0.0, 0.0, 1.5, 0.8.
    Gradient: `(u - y * sum(y * u)) / norm` for the upstream `u`; a zero vector
        counts as one of length 1. Its ULPs are counted on the size of its
        terms, `|u| / norm`.

    Example:
    >>> from stablekeras import ops
    >>> [round(float(v), 4) for v in ops.normalize([3e-30, 4e-30])]
    [0.6, 0.8]
    """
    if not isinstance(order, int) or order < 1:
        raise ValueError(
            "Argument `order` must be an int >= 1. "
            f"Received: order={order!r}. Divide by ops.norm for others."
        )
    dtype, (x,) = to_compute(x)
    if len(x.shape) == 0:  # as in Keras, a number is a vector of one
        x = kops.reshape(x, (1,))
    check_axis(x, axis)
    m = safe_scale_of(x, axis)
    y = x / m
    # Of several axes too the entries make up one vector.
    if order == 2:
        n = length_kernel(y, axis)
    elif order == 1:
        # An entry that the scale flushes to zero still has a sign.
        signs = kops.stop_gradient(kops.sign(x))
        n = kops.sum(signs * y, axis=axis, keepdims=True)
    else:
        n = _order_length(y, order, axis)
    if epsilon is not None:
        least = epsilon / m
        n = kops.where(n < least, least, n)
    n = kops.where(kops.equal(n, 0), 1.0, n)
    return kops.cast(y * reciprocal(n), dtype)


@stable
def global_norm(tensors):
    """Compute the 2-norm of all entries of several tensors.

    Args:
        tensors: Tensors in any nested structure; `None` and empty tensors do
            not count. Sparse gradients with repeated rows are summed first.

    Returns:
        Scalar in float32, or in float64 if a tensor is.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.2, 0.3, 1.0, 1.4.
    Gradient: `x / norm`, and 0 if all are zero.

    Example:
    >>> from stablekeras import ops
    >>> round(float(ops.global_norm([[3.0], None, [[4.0]]])), 4)
    5.0
    """
    tensors = [t for t in keras.tree.flatten(tensors) if t is not None]
    if not tensors:
        return kops.zeros((), "float32")
    dtype, tensors = to_compute(*tensors)
    flat = [kops.reshape(t, (-1,)) for t in tensors if 0 not in tuple(t.shape)]
    if not flat:
        return kops.zeros((), compute_dtype(dtype))

    def value(*xs):
        m, n = _joint(xs)
        return m * n

    def pullback(u, *xs):
        m, n = _joint(xs)
        n = reciprocal(kops.where(kops.equal(n, 0), 1.0, n))
        return tuple(u * (x / m * n) for x in xs)

    return with_pullback(value, pullback)(*flat)


def _joint(xs):
    """Return the common scale of several vectors and their scaled length."""
    peaks = [kops.max(kops.abs(x)) for x in xs]
    m = kops.reshape(safe_scale_of(kops.stack(peaks), axis=None), ())
    squares = [kops.sum(kops.square(x / m)) for x in xs]
    return m, sqrt_kernel(sum(squares))


@stable
def cdist(x, y):
    """Compute all distances between the rows of `x` and those of `y`.

    Args:
        x: Tensor of shape `(..., m, d)`.
        y: Tensor of shape `(..., n, d)`.

    Returns:
        Tensor of shape `(..., m, n)`.

    Raises:
        ValueError: If `x` or `y` has no rows, or the sizes of their rows
            differ.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.5, 0.3, 2.1, 1.4.
    Gradient: The direction from one row to the other, and 0 for equal rows.

    Example:
    >>> from stablekeras import ops
    >>> [
    ...     round(float(v), 4)
    ...     for v in ops.cdist([[0.0, 0.0]], [[3.0, 4.0], [0.0, 0.0]])[0]
    ... ]
    [5.0, 0.0]
    """
    dtype, (x, y) = to_compute(x, y)
    if min(len(x.shape), len(y.shape)) < 2 or x.shape[-1] != y.shape[-1]:
        raise ValueError(
            "x and y must have rows of one size. Received: "
            f"x.shape={tuple(x.shape)}, y.shape={tuple(y.shape)}. "
            "Pass (..., m, d) and (..., n, d)."
        )
    x, y = kops.expand_dims(x, -2), kops.expand_dims(y, -3)
    # Two numbers near the end of the format may differ by more than it holds.
    limit = finfo(compute_dtype(dtype)).max / 4
    far = kops.logical_or(
        largest(kops.abs(x), -1) > limit, largest(kops.abs(y), -1) > limit
    )
    half = kops.cast(kops.where(far, 0.5, 1.0), x.dtype)
    out = length_kernel(x * half - y * half, -1) / half
    out = kops.squeeze(out, -1)
    return kops.cast(out, dtype)
