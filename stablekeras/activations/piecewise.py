"""Activations made of straight lines and parabolas.

The exact value needs one or two roundings; what matters here is that NaN
stays NaN, that an infinity gives the limit, and that a branch that was not
chosen cannot spoil the gradient.
"""

import math

import keras
from keras import ops as kops

from stablekeras.ops.axes import check_axis
from stablekeras.ops.gradient import with_derivative
from stablekeras.ops.precision import (
    answered,
    compute_dtype,
    largest,
    to_compute,
)
from stablekeras.ops.symbolic import stable

__all__ = [
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "relu",
    "relu6",
    "soft_shrink",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "threshold",
]


def _integer(x):
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        dtype = kops.convert_to_tensor(x).dtype
    return "float" not in keras.backend.standardize_dtype(dtype)


def _three(x, low, high, below, between, above):
    """Choose by `x <= low`, `x >= high`; a NaN takes the middle."""
    return kops.where(x <= low, below, kops.where(x >= high, above, between))


def _leaky(x, slope):
    # A slope of 0 must not meet an infinity.
    below = slope * x if slope else kops.zeros_like(x)
    return kops.where(x <= 0, below, x)


@stable
def relu(x, negative_slope=0.0, max_value=None, threshold=0.0):
    """Compute `max(x, 0)`.

    `negative_slope * (x - threshold)` below the threshold; never above
    `max_value`. Integers give integers, as in Keras.

    Args:
        x: Input tensor.
        negative_slope: Float, the slope below the threshold.
        max_value: Float, the largest value returned, or `None`.
        threshold: Float, below which the input is damped.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.4 in float16, 0.0 in bfloat16, 0.5 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: 1 above the threshold, `negative_slope` at and below it, 0 above
        `max_value`.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.relu([-3.0, 0.0, 2.0])]
    [0.0, 0.0, 2.0]
    """
    if _integer(x):
        return keras.activations.relu(x, negative_slope, max_value, threshold)

    def kernel(x):
        if negative_slope:
            below = negative_slope * (x - threshold)
        else:
            below = kops.zeros_like(x)
        out = kops.where(x <= threshold, below, x)
        if max_value is not None:
            out = kops.where(
                out > max_value, kops.full_like(out, max_value), out
            )
        return out

    return answered(kernel, x)


@stable
def leaky_relu(x, negative_slope=0.2):
    """Compute `x` above zero and `negative_slope * x` below.

    Args:
        x: Input tensor.
        negative_slope: Float, the slope below 0.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.4, 0.2, 0.2, 0.4.
    Gradient: 1 above 0, `negative_slope` at and below it.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.leaky_relu([-3.0, 0.0, 2.0])]
    [-0.6, 0.0, 2.0]
    """
    return answered(lambda x: _leaky(x, negative_slope), x)


@stable
def relu6(x):
    """Compute `min(max(x, 0), 6)`.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: 1 between 0 and 6, 0 elsewhere.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.relu6([-3.0, 2.0, 9.0])]
    [0.0, 2.0, 6.0]
    """
    if _integer(x):
        return keras.activations.relu6(x)
    return answered(lambda x: _three(x, 0, 6, 0.0, x, 6.0), x)


@stable
def hard_tanh(x):
    """Compute `min(max(x, -1), 1)`.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: 1 between -1 and 1, 0 elsewhere.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.hard_tanh([-3.0, 0.5, 9.0])]
    [-1.0, 0.5, 1.0]
    """
    return answered(lambda x: _three(x, -1, 1, -1.0, x, 1.0), x)


@stable
def hard_shrink(x, threshold=0.5):
    """Compute `x` where `|x| > threshold`, 0 elsewhere.

    Args:
        x: Input tensor.
        threshold: Float >= 0.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: 1 where `x` passes, 0 elsewhere.

    Example:
    >>> from stablekeras import activations
    >>> [
    ...     round(float(v), 4)
    ...     for v in activations.hard_shrink([-3.0, 0.25, 1.0])
    ... ]
    [-3.0, 0.0, 1.0]
    """
    return answered(lambda x: kops.where(kops.abs(x) <= threshold, 0.0, x), x)


@stable
def soft_shrink(x, threshold=0.5):
    """Compute `x` moved towards zero by `threshold`, or 0.

    Args:
        x: Input tensor.
        threshold: Float >= 0.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: 1 beyond the threshold, 0 within.

    Example:
    >>> from stablekeras import activations
    >>> [
    ...     round(float(v), 4)
    ...     for v in activations.soft_shrink([-3.0, 0.25, 1.0])
    ... ]
    [-2.5, 0.0, 0.5]
    """

    def kernel(x):
        return _three(
            x,
            -threshold,
            threshold,
            x + threshold,
            kops.where(kops.isnan(x), x, 0.0),
            x - threshold,
        )

    return answered(kernel, x)


@stable
def threshold(x, threshold, default_value):
    """Compute `x` where `x > threshold`, `default_value` elsewhere.

    Args:
        x: Input tensor.
        threshold: Float; `x` passes above it.
        default_value: Float, returned elsewhere.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: 1 where `x` passes, 0 elsewhere.

    Example:
    >>> from stablekeras import activations
    >>> [
    ...     round(float(v), 4)
    ...     for v in activations.threshold([-3.0, 0.25, 1.0], 0.5, 0.0)
    ... ]
    [0.0, 0.0, 1.0]
    """
    if _integer(x):
        return keras.activations.threshold(x, threshold, default_value)
    return answered(
        lambda x: kops.where(
            x <= threshold, kops.full_like(x, default_value), x
        ),
        x,
    )


def _bounded(x, low, high):
    """Clip; NaN stays NaN."""
    return _three(x, low, high, low, x, high)


_hard_sigmoid = with_derivative(
    lambda x: _three(x, -3, 3, 0.0, (x + 3) / 6, 1.0),
    lambda x: _three(x, -3, 3, 0.0, kops.ones_like(x) / 6, 0.0),
)


@stable
def hard_sigmoid(x):
    """Compute `(x + 3) / 6`, clipped to [0, 1].

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.5 in float16, 0.3 in bfloat16, 0.9 in float32, 0.9 in
        float64; gradient 0.3, 0.3, 0.3, 0.3.
    Gradient: 1/6 between -3 and 3, 0 elsewhere.

    Example:
    >>> from stablekeras import activations
    >>> [
    ...     round(float(v), 4)
    ...     for v in activations.hard_sigmoid([-4.0, 0.0, 1.0])
    ... ]
    [0.0, 0.5, 0.6667]
    """
    return answered(_hard_sigmoid, x)


_sparse_sigmoid = with_derivative(
    lambda x: _three(x, -1, 1, 0.0, 0.5 * (x + 1), 1.0),
    lambda x: _three(x, -1, 1, 0.0, 0.5 * kops.ones_like(x), 0.0),
)


@stable
def sparse_sigmoid(x):
    """Compute `(x + 1) / 2`, clipped to [0, 1].

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.4 in float16, 0.2 in bfloat16, 0.3 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: 1/2 between -1 and 1, 0 elsewhere.

    Example:
    >>> from stablekeras import activations
    >>> [
    ...     round(float(v), 4)
    ...     for v in activations.sparse_sigmoid([-4.0, 0.0, 0.5])
    ... ]
    [0.0, 0.5, 0.75]

    Reference: Blondel, Martins and Niculae (2019), arXiv:1901.02324.
    """
    return answered(_sparse_sigmoid, x)


_hard_silu_slope = with_derivative(
    lambda x: _three(x, -3, 3, 0.0, (2 * x + 3) / 6, 1.0),
    lambda x: _three(x, -3, 3, 0.0, kops.ones_like(x) / 3, 0.0),
)


def _hard_silu_value(x):
    inner = _bounded(x, -3.0, 3.0)
    # Not x (x + 3) / 6: TensorFlow's graphs divide x first, which may flush.
    return _three(x, -3, 3, 0.0, inner * (0.5 + inner / 6), x)


_hard_silu = with_derivative(_hard_silu_value, _hard_silu_slope)


@stable
def hard_silu(x):
    """Compute `x * hard_sigmoid(x)`.

    0 below -3, `x` above 3, `x * (x + 3) / 6` between. Also `hard_swish`.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.1 in float16, 0.2 in bfloat16, 1.0 in float32, 0.7 in
        float64; gradient 0.4, 0.4, 0.5, 0.7.
    Gradient: `(2 * x + 3) / 6` between -3 and 3, 0 below, 1 above.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.hard_silu([-4.0, 1.0, 5.0])]
    [0.0, 0.6667, 5.0]

    Reference: Howard et al. (2019), arXiv:1905.02244.
    """
    return answered(_hard_silu, x)


def _sparse_plus_value(x):
    inner = _bounded(x, -1.0, 1.0)
    return _three(x, -1, 1, 0.0, 0.25 * kops.square(inner + 1), x)


_sparse_plus = with_derivative(_sparse_plus_value, _sparse_sigmoid)


@stable
def sparse_plus(x):
    """Compute the integral of the sparse sigmoid.

    0 below -1, `x` above 1, `(x + 1)**2 / 4` between.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.4 in float16, 0.2 in bfloat16, 0.2 in float32, 0.1 in
        float64; gradient 0.3, 0.2, 0.1, 0.0.
    Gradient: `sparse_sigmoid(x)`.

    Example:
    >>> from stablekeras import activations
    >>> [
    ...     round(float(v), 4)
    ...     for v in activations.sparse_plus([-4.0, 0.0, 5.0])
    ... ]
    [0.0, 0.25, 5.0]

    Reference: Blondel, Martins and Niculae (2019), arXiv:1901.02324.
    """
    return answered(_sparse_plus, x)


def linear(x):
    """Return the input unmodified.

    Args:
        x: Anything.

    Returns:
        `x` itself.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.0 in
        float64; gradient 0.0, 0.0, 0.0, 0.0.
    Gradient: 1.

    Example:
    >>> from stablekeras import activations
    >>> activations.linear(3.0)
    3.0
    """
    return x


@stable
def sparsemax(x, axis=-1):
    """Project onto the probability simplex.

    `max(x - t, 0)`, with the threshold `t` for which the entries sum to 1.
    Keras' own is wrong for more than one entry above the threshold.

    Args:
        x: Input tensor.
        axis: Integer, the axis of the classes.

    Returns:
        Tensor of the shape of `x`. An entry of `-inf` has share 0, one
        of `inf` has all. A row of `-inf` is 0, not NaN.

    Accuracy: worst ULP 0.1 in float16, 0.1 in bfloat16, 0.3 in float32, 0.2 in
        float64; gradient 0.3, 0.3, 0.7, 0.7.
    Gradient: `u - mean(u)` over the support, for the upstream `u`; 0 outside.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.sparsemax([1.0, 0.5, -1.0])]
    [0.75, 0.25, 0.0]

    Reference: Martins and Astudillo (2016), arXiv:1602.02068.
    """
    dtype, (x,) = to_compute(x)
    check_axis(x, axis)
    peak = kops.stop_gradient(largest(x, axis))
    # XLA's maximum passes over NaN.
    missing = kops.any(kops.isnan(x), axis=axis, keepdims=True)
    infinite = kops.equal(kops.abs(peak), math.inf)
    limit = kops.where(kops.equal(x, peak), 0.0, -math.inf)
    x = kops.where(infinite, limit, x)
    z = x - kops.where(infinite, 0.0, peak)
    # The support: the longest prefix of the sorted scores whose last member
    # stays above the threshold that the prefix implies.
    ordered = kops.flip(kops.sort(kops.stop_gradient(z), axis=axis), axis=axis)
    # Never in the support below -2; no inf - inf.
    ordered = kops.where(ordered < -2.0, -2.0, ordered)
    wide = compute_dtype(dtype)
    rank = kops.cumsum(kops.ones_like(ordered), axis=axis, dtype=wide)
    inside = 1 + rank * ordered > kops.cumsum(ordered, axis=axis, dtype=wide)
    size = kops.sum(kops.cast(inside, z.dtype), axis=axis, keepdims=True)
    kept = kops.where(inside, ordered, 0.0)
    total = kops.sum(kept, axis=axis, keepdims=True)
    cut = (total - 1) / size
    support = kops.stop_gradient(z) > cut
    s = kops.where(support, z, 0.0)
    count = kops.sum(kops.cast(support, z.dtype), axis=axis, keepdims=True)
    cut = (kops.sum(s, axis=axis, keepdims=True) - 1) / count
    out = kops.where(support, s - cut, 0.0)
    out = kops.where(kops.equal(peak, -math.inf), 0.0, out)
    nan = kops.full_like(out, math.nan)
    return kops.cast(kops.where(missing, nan, out), dtype)
