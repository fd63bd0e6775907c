"""Elementwise cores of the losses, each with its own derivative.

Automatic differentiation of these formulas would multiply 0 by infinity, or
subtract what cancels; and a derivative written by hand needs fewer passes
over memory.
"""

import math

import keras
from keras import ops as kops

from stablekeras.losses.totals import entries, total
from stablekeras.ops.elementary import log1p_kernel, tanh_kernel
from stablekeras.ops.gradient import custom_gradient, with_pullback
from stablekeras.ops.precision import at_least, at_most, finfo
from stablekeras.ops.sigmoids import sigmoid_slope

__all__ = [
    "binary_from_logits",
    "binary_from_probabilities",
    "categorical_from_probabilities",
    "clamp_floor",
    "divergence_from_probabilities",
    "huber_terms",
    "log1p_accurate",
    "overlap_loss",
    "poisson_terms",
    "rest_sums",
    "smooth_chances",
    "smooth_sides",
    "squared",
]


def clamp_floor(x):
    """Returns the floor of clamped logarithms in the dtype of `x`."""
    return finfo(keras.backend.standardize_dtype(x.dtype)).eps ** 2


def log1p_accurate(x):
    """Computes `log(1 + x)` for `x >= -1`.

    TensorFlow's float32 kernels are within 3.9 ULP; XLA's float64 is over 100
    off, so float64 takes the kernel of `stablekeras.ops`.
    """
    if keras.backend.standardize_dtype(x.dtype) == "float64":
        return log1p_kernel(x)
    return kops.log1p(x)


def _points(given, args, upstream):
    # Torch hands back the saved inputs and names the upstream gradient. What
    # the forward pass computed has no gradient there: compute it again.
    return (given, args[0]) if upstream is None else (args, upstream)


def _product(a, t):
    """Computes `a * t`, 0 where `t` is 0 whatever `a` is."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return tf.math.multiply_no_nan(a, t)
    gone = kops.equal(t, 0)
    return kops.where(gone, kops.zeros_like(a), a) * t


def _tanh(x):
    wide = keras.backend.standardize_dtype(x.dtype) == "float64"
    return tanh_kernel(x) if wide else kops.tanh(x)


def smooth_chances(y, smoothing):
    """Squeezes labels of two classes towards 0.5.

    `1 - y` of a label that is smoothed already would cancel: the label of the
    other side is smoothed like the one.
    """
    if not smoothing:
        return y
    return y * (1.0 - smoothing) + 0.5 * smoothing


def smooth_sides(y, smoothing):
    """Returns the squeezed labels of this class and of the other."""
    return smooth_chances(y, smoothing), smooth_chances(1 - y, smoothing)


def binary_from_logits(y, x, smoothing=0.0):
    """Computes `-y log(sigmoid(x)) - (1 - y) log(1 - sigmoid(x))`.

    With `t` the label of the other side, 0 if the prediction is on the right
    side, it is `t |x| + log(1 + exp(-|x|))`.

    Args:
        y: Tensor of labels in [0, 1].
        x: Tensor of logits.
        smoothing: Float in [0, 1]: squeezes labels towards 0.5.
    """

    def wrong(y, x):
        return smooth_chances(kops.where(x >= 0, 1 - y, y), smoothing)

    @custom_gradient
    def loss(y, x):
        def gradient(*args, upstream=None):
            (y_, x_), upstream = _points((y, x), args, upstream)
            return (smoothing - 1) * x_ * upstream, slope(y_, x_) * upstream

        # An infinite logit on the right side costs nothing.
        a = kops.abs(x)
        return _product(a, wrong(y, x)) + kops.log1p(kops.exp(-a)), gradient

    @custom_gradient
    def slope(y, x):
        """Computes `sigmoid(x) - y` without cancellation."""

        def gradient(*args, upstream=None):
            (_, x_), upstream = _points((y, x), args, upstream)
            return (smoothing - 1) * upstream, sigmoid_slope(x_) * upstream

        if smoothing == 1:  # every label is 0.5
            return 0.5 * _tanh(0.5 * x), gradient
        e = kops.exp(-kops.abs(x))
        s = wrong(y, x) - e / (1 + e)
        return kops.where(x >= 0, s, -s), gradient

    return loss(y, x)


# The upstream gradient is doubled, which a mean has made small: twice a large
# error overflows.
squared = with_pullback(kops.square, lambda u, e: ((2 * u) * e,))


def huber_terms(e, delta):
    """Computes `e**2 / 2`, linear beyond `delta`, for any error `e`."""

    @custom_gradient
    def terms(e):
        inner = kops.clip(e, -delta, delta)

        def gradient(*args, upstream=None):
            (e_,), upstream = _points((e,), args, upstream)
            return kops.clip(e_, -delta, delta) * upstream

        # Inside the second term is 0, outside the first is constant: neither
        # squares a large error.
        return 0.5 * inner * inner + delta * kops.abs(e - inner), gradient

    return terms(e)


def _where_moving(p, floor, slope):
    return kops.where(p > floor, slope, kops.zeros_like(slope))


@custom_gradient
def _poisson_slope(y, p):
    """Computes `1 - y / p`, clamped at the floor, as one quotient."""
    floor = clamp_floor(p)
    c = at_least(p, floor)

    def gradient(*args, upstream=None):
        (y_, p_), upstream = _points((y, p), args, upstream)
        c = at_least(p_, floor)
        of_p = _where_moving(p_, floor, y_ / c / c)
        return -upstream / c, of_p * upstream

    return (c - y) / c, gradient


def binary_from_probabilities(y, p, smoothing=0.0):
    """Computes `-y log(p) - (1 - y) log(1 - p)`, clamped at the floor.

    Args:
        y: Tensor of labels in [0, 1].
        p: Tensor of probabilities.
        smoothing: Float in [0, 1]: squeezes labels towards 0.5.
    """
    floor = clamp_floor(p)
    kept = 1.0 - smoothing

    def logs(p):
        log_p = kops.log(at_least(p, floor))
        log_q = log1p_accurate(-at_most(p, 1.0))
        return log_p, at_least(log_q, math.log(floor))

    @custom_gradient
    def loss(y, p):
        log_p, log_q = logs(p)

        def gradient(*args, upstream=None):
            fresh = upstream is None
            (y_, p_), upstream = _points((y, p), args, upstream)
            log_p_, log_q_ = (log_p, log_q) if fresh else logs(p_)
            return kept * (log_q_ - log_p_) * upstream, slope(y_, p_) * upstream

        one, other = smooth_sides(y, smoothing)
        return -(one * log_p + other * log_q), gradient

    @custom_gradient
    def slope(y, p):
        """Computes `(1 - y) / (1 - p) - y / p`, clamped at the floor."""
        one, other = smooth_sides(y, smoothing)
        q = 1 - p
        ends = other / at_least(q, floor) - one / at_least(p, floor)
        # Between the ends one quotient, which does not cancel near p = y.
        between = kops.logical_and(p > floor, q > 0)
        product = kops.where(between, p * q, kops.ones_like(p))

        def gradient(*args, upstream=None):
            (y_, p_), upstream = _points((y, p), args, upstream)
            one, other = smooth_sides(y_, smoothing)
            c, d = at_least(p_, floor), at_least(1 - p_, floor)
            of_p = _where_moving(p_, floor, one / c / c)
            of_p = of_p + _where_moving(1 - p_, floor, other / d / d)
            return -kept * (1 / c + 1 / d) * upstream, of_p * upstream

        return kops.where(between, (p - one) / product, ends), gradient

    return loss(y, p)


def categorical_from_probabilities(y, p, axis):
    """Computes `-sum(y log(p / sum(p)))`, clamped at the floor."""
    floor = clamp_floor(p)

    def total(p):
        s = kops.sum(p, axis=axis, keepdims=True)
        return kops.where(kops.equal(s, 0), kops.ones_like(s), s)

    @custom_gradient
    def crossentropy(y, p):
        s = total(p)
        log_q = kops.log(at_least(p / s, floor))

        def gradient(*args, upstream=None):
            fresh = upstream is None
            (y_, p_), upstream = _points((y, p), args, upstream)
            upstream = kops.expand_dims(upstream, axis)
            s_ = s if fresh else total(p_)
            q = p_ / s_
            log_q_ = log_q if fresh else kops.log(at_least(q, floor))
            scale = upstream / s_
            mass = kops.sum(y_, axis=axis, keepdims=True)
            of_p = scale * mass - scale * (y_ / at_least(q, floor))
            return -log_q_ * upstream, of_p

        return -kops.sum(y * log_q, axis=axis), gradient

    return crossentropy(y, p)


def _share_ratio(y, p):
    return y / at_least(at_most(p, 1.0), clamp_floor(p))


def _divergence_slope_value(y, p):
    return kops.where(p > 1, 0.0, _share_ratio(y, p))


def _divergence_slope_pullback(u, y, p):
    c = at_least(p, clamp_floor(p))
    of_p = kops.where(p > 1, 0.0, _where_moving(p, clamp_floor(p), -y / c / c))
    return kops.where(p > 1, 0.0, u / c), u * of_p


# y / p for `p` in [floor, 1], that of the floor below, and 0 above
_divergence_slope = with_pullback(
    _divergence_slope_value, _divergence_slope_pullback
)


def divergence_from_probabilities(y, p, axis):
    """Computes `sum(y log(y / p))`, with `p` clamped to the floor and to 1.

    Args:
        y: Tensor of probabilities.
        p: Tensor of the same shape.
        axis: Integer.

    Returns:
        Tensor without `axis`.
    """
    tiny = finfo(keras.backend.standardize_dtype(p.dtype)).tiny

    def log_ratio(y, p):
        # Finite where `y` is 0, and so is its product with 0.
        return kops.log(at_least(_share_ratio(y, p), tiny))

    @custom_gradient
    def divergence(y, p):
        def gradient(*args, upstream=None):
            (y_, p_), upstream = _points((y, p), args, upstream)
            upstream = kops.expand_dims(upstream, axis)
            of_y = upstream * (log_ratio(y_, p_) + 1)
            return of_y, -upstream * _divergence_slope(y_, p_)

        return kops.sum(y * log_ratio(y, p), axis=axis), gradient

    return divergence(y, p)


@custom_gradient
def poisson_terms(y, p):
    """Computes `p - y log(p)`, clamped at the floor."""
    floor = clamp_floor(p)

    def gradient(*args, upstream=None):
        (y_, p_), upstream = _points((y, p), args, upstream)
        log = kops.log(at_least(p_, floor))
        return -log * upstream, _poisson_slope(y_, p_) * upstream

    return p - y * kops.log(at_least(p, floor)), gradient


def overlap_loss(y, p, alpha, beta, epsilon, axis):
    """Computes `1 - t / (t + a)`, where `t = sum(y p)`.

    `a = alpha sum(y (1 - p)) + beta sum(p (1 - y)) + epsilon`. Neither the
    value nor the gradient subtracts what cancels, for `y`, `p` in [0, 1].
    """

    def whole_of(x):
        return total(x, axis, keepdims=True)

    def sums(y, p):
        z = y * p
        # For a label of 0 or 1 all of these round at most once.
        if alpha == beta:
            apart = alpha * whole_of(y + p * (1 - 2 * y))
        else:
            apart = alpha * whole_of(y - z) + beta * whole_of(p - z)
        return whole_of(z), apart + epsilon

    # The part of an entry in its own sums, which cancels, shows among few.
    few = 0 < entries(y.shape, axis) <= 64

    @custom_gradient
    def loss(y, p):
        both, apart = sums(y, p)

        def gradient(*args, upstream=None):
            fresh = upstream is None
            (y_, p_), upstream = _points((y, p), args, upstream)
            t, a = (both, apart) if fresh else sums(y_, p_)
            whole = t + a
            if few:
                scale = upstream / whole / whole

                def lone(x, z, weight, other):
                    rest = x * (other * whole_of(x) + epsilon)
                    return scale * (weight * _spread(x, z, t, whole_of) - rest)

                return lone(p_, y_, alpha, beta), lone(y_, p_, beta, alpha)
            t, a = upstream * t / whole / whole, upstream * a / whole / whole

            def side(x, weight, other):
                if weight > 4 * other:  # near x = 1 the sum below cancels
                    return weight * t * (1 - x) - x * (other * t + a)
                return weight * t - x * ((weight + other) * t + a)

            return side(p_, alpha, beta), side(y_, beta, alpha)

        return apart / (both + apart), gradient

    out = loss(y, p)
    return kops.squeeze(out, axis=axis)


def _spread(x, z, t, whole_of):
    """Computes `t - x sum(z)` for `t = sum(x z)`: the sum of `z (x' - x)`.

    The mean is taken out of `x` first: what all entries share cancels before
    it is rounded.
    """
    weight = whole_of(z)
    mean = t / kops.where(kops.equal(weight, 0), 1.0, weight)
    mean = kops.stop_gradient(mean)
    return whole_of(z * (x - mean)) - (x - mean) * weight


def rest_sums(x, axis):
    """Computes `log(1 - softmax(x))` without cancellation.

    For the largest class it is the logarithm of the sum of the others; every
    other probability is at most 1/2, where `1 - p` loses nothing.

    Args:
        x: Tensor of logits in the compute dtype.
        axis: Integer.

    Returns:
        `(log_p, log_rest)`, both of the shape of `x`.
    """
    from stablekeras.ops import log_softmax, logsumexp

    log_p = log_softmax(x, axis=axis)
    classes = kops.shape(x)[axis]
    place = axis % len(x.shape)  # one_hot knows of no other but -1
    top = kops.one_hot(
        kops.argmax(x, axis=axis), classes, axis=place, dtype="bool"
    )
    others = kops.where(top, kops.cast(-math.inf, x.dtype), x)
    rest = logsumexp(others, axis=axis, keepdims=True)
    whole = logsumexp(x, axis=axis, keepdims=True)
    p = kops.exp(kops.where(top, kops.cast(-1.0, x.dtype), log_p))
    return log_p, kops.where(top, rest - whole, log1p_accurate(-p))
