"""Activations made of straight lines and parabolas.

The exact value needs one or two roundings; what matters here is that NaN
stays NaN, that an infinity gives the limit, and that a branch that was not
chosen cannot spoil the gradient.
"""

import math

import keras
from keras import ops as kops

from stablekeras.ops.gradient import with_derivative
from stablekeras.ops.precision import answered, to_compute
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
    """Compute `max(x, 0)`."""
    if _integer(x):
        return keras.activations.relu(x, negative_slope, max_value, threshold)

    def kernel(x):
        if negative_slope:
            below = negative_slope * (x - threshold)
        else:
            below = kops.zeros_like(x)
        out = kops.where(x <= threshold, below, x)
        if max_value is not None:
            out = kops.where(out > max_value, max_value, out)
        return out

    return answered(kernel, x)


@stable
def leaky_relu(x, negative_slope=0.2):
    """Compute `x` above zero and `negative_slope * x` below."""
    return answered(lambda x: _leaky(x, negative_slope), x)


@stable
def relu6(x):
    """Compute `min(max(x, 0), 6)`."""
    if _integer(x):
        return keras.activations.relu6(x)
    return answered(lambda x: _three(x, 0, 6, 0.0, x, 6.0), x)


@stable
def hard_tanh(x):
    """Compute `min(max(x, -1), 1)`."""
    if _integer(x):
        return keras.activations.hard_tanh(x)
    return answered(lambda x: _three(x, -1, 1, -1.0, x, 1.0), x)


@stable
def hard_shrink(x, threshold=0.5):
    """Compute `x` where `|x| > threshold`, 0 elsewhere."""
    if _integer(x):
        return keras.activations.hard_shrink(x, threshold)
    return answered(lambda x: kops.where(kops.abs(x) <= threshold, 0.0, x), x)


@stable
def soft_shrink(x, threshold=0.5):
    """Compute `x` moved towards zero by `threshold`, or 0."""

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
    """Compute `x` where `x > threshold`, `default_value` elsewhere."""
    if _integer(x):
        return keras.activations.threshold(x, threshold, default_value)
    return answered(lambda x: kops.where(x <= threshold, default_value, x), x)


def _bounded(x, low, high):
    """Clip without a gradient; NaN stays NaN."""
    return kops.stop_gradient(_three(x, low, high, low, x, high))


_hard_sigmoid = with_derivative(
    lambda x: _three(x, -3, 3, 0.0, (x + 3) / 6, 1.0),
    lambda x: _three(x, -3, 3, 0.0, kops.ones_like(x) / 6, 0.0),
)


@stable
def hard_sigmoid(x):
    """Compute `(x + 3) / 6`, clipped to [0, 1]."""
    return answered(_hard_sigmoid, x)


_sparse_sigmoid = with_derivative(
    lambda x: _three(x, -1, 1, 0.0, 0.5 * (x + 1), 1.0),
    lambda x: _three(x, -1, 1, 0.0, 0.5 * kops.ones_like(x), 0.0),
)


@stable
def sparse_sigmoid(x):
    """Compute `(x + 1) / 2`, clipped to [0, 1]."""
    return answered(_sparse_sigmoid, x)


_hard_silu_slope = with_derivative(
    lambda x: _three(x, -3, 3, 0.0, (2 * x + 3) / 6, 1.0),
    lambda x: _three(x, -3, 3, 0.0, kops.ones_like(x) / 3, 0.0),
)


def _hard_silu_value(x):
    inner = _bounded(x, -3.0, 3.0)
    return _three(x, -3, 3, 0.0, inner * (inner + 3) / 6, x)


_hard_silu = with_derivative(_hard_silu_value, _hard_silu_slope)


@stable
def hard_silu(x):
    """Compute `x * hard_sigmoid(x)`."""
    return answered(_hard_silu, x)


def _sparse_plus_value(x):
    inner = _bounded(x, -1.0, 1.0)
    return _three(x, -1, 1, 0.0, 0.25 * kops.square(inner + 1), x)


_sparse_plus = with_derivative(_sparse_plus_value, _sparse_sigmoid)


@stable
def sparse_plus(x):
    """Compute the integral of the sparse sigmoid."""
    return answered(_sparse_plus, x)


def linear(x):
    """Return the input unmodified."""
    return x


@stable
def sparsemax(x, axis=-1):
    """Project onto the probability simplex."""
    dtype, (x,) = to_compute(x)
    peak = kops.stop_gradient(kops.max(x, axis=axis, keepdims=True))
    infinite = kops.equal(kops.abs(peak), math.inf)
    limit = kops.where(kops.equal(x, peak), 0.0, -math.inf)
    x = kops.where(infinite, limit, x)
    z = x - kops.where(infinite, 0.0, peak)
    # The support: the longest prefix of the sorted scores whose last member
    # stays above the threshold that the prefix implies.
    ordered = kops.flip(kops.sort(kops.stop_gradient(z), axis=axis), axis=axis)
    ordered = kops.maximum(ordered, -2.0)  # never in the support; no inf - inf
    rank = kops.cumsum(kops.ones_like(ordered), axis=axis)
    inside = 1 + rank * ordered > kops.cumsum(ordered, axis=axis)
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
    return kops.cast(kops.where(kops.isnan(peak), peak, out), dtype)
