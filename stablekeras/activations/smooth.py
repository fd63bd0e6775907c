"""Smooth activations: exponentials, sigmoids and roots."""

import fractions
import math

from keras import ops as kops

from stablekeras.activations.gated import bounded
from stablekeras.ops.elementary import (
    expm1_kernel,
    reciprocal,
    sech2_kernel,
    split,
    tanh_kernel,
    terms,
    x_coth_minus_one,
)
from stablekeras.ops.gradient import with_derivative
from stablekeras.ops.precision import answered, finfo
from stablekeras.ops.provenance import remember_logits
from stablekeras.ops.sigmoids import log_sigmoid as _log_sigmoid
from stablekeras.ops.sigmoids import sigmoid as _sigmoid
from stablekeras.ops.sigmoids import softplus_kernel
from stablekeras.ops.symbolic import stable

__all__ = [
    "celu",
    "elu",
    "exponential",
    "log_sigmoid",
    "selu",
    "sigmoid",
    "softplus",
    "softsign",
    "squareplus",
    "tanh",
    "tanh_shrink",
]


def _negative_part(x):
    return kops.where(x > 0, 0.0, x)


def _reciprocal_parts(number):
    """Return `1 / number` as a float and what that leaves over."""
    exact = 1 / fractions.Fraction(float(number))
    return float(exact), float(exact - fractions.Fraction(float(exact)))


def _elu_kernel(scale, alpha, width):
    """`scale * x` above 0, `scale * alpha * (exp(x / width) - 1)` below."""
    outer, steep = scale * alpha, scale * alpha / width
    inverse = _reciprocal_parts(width)

    def exponent(x):
        # Graphs divide by a number by multiplying with its reciprocal, which
        # is rounded once less here.
        x = _negative_part(x)
        return x if width == 1 else x * split(inverse, x)[0]

    def power(x):
        y = exponent(x)
        high, low = split(inverse, y)
        if not low:
            return kops.exp(y)
        # The exponential magnifies what the reciprocal leaves over.
        y = bounded(y)
        return kops.exp(y) * (1 + y * (low / high))

    def value(x):
        y = exponent(x)
        low = outer * expm1_kernel(y)
        if abs(width) > 1:  # `y` may be flushed to zero where `x` is not
            tiny = kops.abs(y) < 0.25 * finfo(y.dtype).eps
            low = kops.where(tiny, steep * x, low)
        return kops.where(x > 0, scale * x, low)

    def slope(x):
        # Not a bare number, which torch would round to float32.
        return kops.where(x > 0, kops.full_like(x, scale), steep * power(x))

    def second(x):
        return kops.where(x > 0, 0.0, steep / width * power(x))

    return with_derivative(value, with_derivative(slope, second))


@stable
def elu(x, alpha=1.0):
    """Compute `x` above zero and `alpha * (exp(x) - 1)` below.

    Args:
        x: Input tensor.
        alpha: Float, the depth below 0.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.3 in float16, 0.4 in bfloat16, 0.5 in float32, 0.3 in
        float64; gradient 0.4, 0.3, 0.7, 0.5.
    Gradient: 1 above 0, `alpha * exp(x)` at and below.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.elu([-1.0, 0.0, 2.0])]
    [-0.6321, 0.0, 2.0]

    Reference: Clevert, Unterthiner and Hochreiter (2016), arXiv:1511.07289.
    """
    return answered(_elu_kernel(1.0, alpha, 1.0), x)


@stable
def celu(x, alpha=1.0):
    """Compute `x` above zero and `alpha * (exp(x / alpha) - 1)` below.

    Args:
        x: Input tensor.
        alpha: Float, not 0, the depth below 0.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Raises:
        ValueError: If `alpha` is 0.

    Accuracy: worst ULP 0.5 in float16, 0.4 in bfloat16, 2.4 in float32, 0.9 in
        float64; gradient 0.5, 0.5, 0.6, 0.9.
    Gradient: 1 above 0, `exp(x / alpha)` at and below.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.celu([-1.0, 0.0, 2.0])]
    [-0.6321, 0.0, 2.0]

    Reference: Barron (2017), arXiv:1704.07483.
    """
    if alpha == 0:
        raise ValueError(
            f"alpha must not be 0. Received: alpha={alpha}. "
            "Use relu for a flat negative side."
        )
    return answered(_elu_kernel(1.0, alpha, alpha), x)


_SELU = _elu_kernel(
    1.0507009873554804934193349852946, 1.6732632423543772848170429916717, 1.0
)


@stable
def selu(x):
    """Compute the scaled exponential linear unit.

    `scale * elu(x, alpha)` with `scale = 1.05070098...` and
    `alpha = 1.67326324...`.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.5 in float16, 0.4 in bfloat16, 0.8 in float32, 0.8 in
        float64; gradient 0.5, 0.5, 0.9, 0.5.
    Gradient: `scale` above 0, `scale * alpha * exp(x)` at and below.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.selu([-1.0, 0.0, 2.0])]
    [-1.1113, 0.0, 2.1014]

    Reference: Klambauer et al. (2017), arXiv:1706.02515.
    """
    return answered(_SELU, x)


@stable
def exponential(x):
    """Compute `exp(x)`.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.4 in float16, 0.3 in bfloat16, 0.5 in float32, 0.4 in
        float64; gradient 0.4, 0.3, 0.5, 0.4.
    Gradient: `exp(x)`.

    Example:
    >>> from stablekeras import activations
    >>> [
    ...     round(float(v), 4)
    ...     for v in activations.exponential([-1.0, 0.0, 1.0])
    ... ]
    [0.3679, 1.0, 2.7183]
    """
    return answered(kops.exp, x)


@stable
def sigmoid(x):
    """Compute `1 / (1 + exp(-x))`.

    The output remembers its logits, so that a cross-entropy can use them.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.5 in float16, 0.5 in bfloat16, 1.6 in float32, 1.3 in
        float64; gradient 0.5, 0.5, 2.0, 1.2.
    Gradient: `sigmoid(x) * sigmoid(-x)`, without cancellation.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.sigmoid([-100.0, 0.0, 2.0])]
    [0.0, 0.5, 0.8808]
    """
    return remember_logits(_sigmoid(x), x)


@stable
def log_sigmoid(x):
    """Compute `log(sigmoid(x))`.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.5 in float16, 0.4 in bfloat16, 0.8 in float32, 1.1 in
        float64; gradient 0.5, 0.5, 0.9, 0.8.
    Gradient: `sigmoid(-x)`.

    Example:
    >>> from stablekeras import activations
    >>> [
    ...     round(float(v), 4)
    ...     for v in activations.log_sigmoid([-1000.0, 0.0, 2.0])
    ... ]
    [-1000.0, -0.6931, -0.1269]
    """
    return _log_sigmoid(x)


@stable
def softplus(x):
    """Compute `log(1 + exp(x))`.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.5 in float16, 0.5 in bfloat16, 1.2 in float32, 0.8 in
        float64; gradient 0.5, 0.5, 1.0, 0.7.
    Gradient: `sigmoid(x)`.

    Example:
    >>> from stablekeras import activations
    >>> [
    ...     round(float(v), 4)
    ...     for v in activations.softplus([-2.0, 0.0, 1000.0])
    ... ]
    [0.1269, 0.6931, 1000.0]
    """
    return answered(softplus_kernel, x)


@stable
def tanh(x):
    """Compute the hyperbolic tangent.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.0 in float16, 0.1 in bfloat16, 0.5 in float32, 0.5 in
        float64; gradient 0.5, 0.4, 2.0, 1.6.
    Gradient: `1 - tanh(x)**2`, without cancellation.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.tanh([-1.0, 0.0, 0.5])]
    [-0.7616, 0.0, 0.4621]
    """
    return answered(tanh_kernel, x)


def _tanh_shrink_value(x):
    a = kops.abs(x)
    near = a < 0.85
    # x - tanh(x) = x (C - 1) / C with C = x coth(x)
    y = kops.where(near, x, 0.0)
    c = x_coth_minus_one(y, terms(x, 7, 16))
    small = y * (c / (1 + c))
    e = kops.exp(-2 * a)
    large = (a - 1) + 2 * (e / (1 + e))
    return kops.where(near, small, kops.where(x < 0, -large, large))


def _tanh_shrink_second(x):
    return 2 * tanh_kernel(x) * sech2_kernel(x)


_tanh_shrink = with_derivative(
    _tanh_shrink_value,
    with_derivative(lambda x: kops.square(tanh_kernel(x)), _tanh_shrink_second),
)


@stable
def tanh_shrink(x):
    """Compute `x - tanh(x)`.

    Right near 0 too, where it is about `x**3 / 3`.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.0 in float16, 0.0 in bfloat16, 0.0 in float32, 0.1 in
        float64; gradient 0.4, 0.1, 0.8, 1.2.
    Gradient: `tanh(x)**2`.

    Example:
    >>> from stablekeras import activations
    >>> float(activations.tanh_shrink(0.5)) - 0.0379 < 1e-4
    True
    """
    return answered(_tanh_shrink, x)


def _softsign_value(x):
    a = kops.abs(x)
    far = a > 1
    big = 1 / (1 + 1 / kops.where(far, a, 1.0))
    big = kops.where(x < 0, -big, big)
    return kops.where(far, big, x / (1 + kops.where(far, 1.0, a)))


def _softsign_slope(x):
    return reciprocal(kops.square(1 + kops.abs(x)))


def _softsign_second(x):
    r = reciprocal(1 + kops.abs(x))
    return (-2 * kops.sign(x)) * r * r * r


_softsign = with_derivative(
    _softsign_value, with_derivative(_softsign_slope, _softsign_second)
)


@stable
def softsign(x):
    """Compute `x / (1 + |x|)`.

    Args:
        x: Input tensor.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Accuracy: worst ULP 0.4 in float16, 0.3 in bfloat16, 1.8 in float32, 0.7 in
        float64; gradient 0.5, 0.4, 1.8, 2.1.
    Gradient: `1 / (1 + |x|)**2`.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.softsign([-1.0, 0.0, 3.0])]
    [-0.5, 0.0, 0.75]
    """
    return answered(_softsign, x)


def _squareplus_kernel(b):
    c = math.sqrt(b)

    def hypotenuse(x):
        a = kops.abs(x)
        least = kops.full_like(a, c)
        m = kops.where(a > c, a, least)
        low = kops.where(a > c, least, a)
        ratio = low / (m if c else kops.where(a > 0, m, 1.0))
        return m * kops.sqrt(1 + ratio * ratio)

    def value(x):
        h = hypotenuse(x)
        a = kops.abs(x)
        # Not 0.5 * a + 0.5 * h: XLA would add first, and overflow.
        gap = kops.where(kops.equal(h, a), 0.0, h - a)
        mean = h - 0.5 * gap
        # x + h cancels below zero; (h + x)(h - x) = b.
        low = x < 0
        size = kops.where(low, mean, 1.0)
        below = reciprocal(size) if b == 4 else (0.25 * b) / size
        return kops.where(low, below, mean)

    def slope(x):
        # Two equal infinities have no quotient.
        y = bounded(x, finfo(x.dtype).max)
        h = hypotenuse(y)
        if not b:
            return kops.where(y > 0, 1.0, 0.0 * y)
        # (1 + x / h) / 2 has fewer roundings, but cancels far below 0.
        return kops.where(y > -0.5 * c, 0.5 + 0.5 * (y / h), value(y) / h)

    def second(x):
        h = hypotenuse(x)
        if not b:
            return kops.zeros_like(x)
        # Not `b / h / h / h`: XLA would divide by the cube of h, which may be
        # infinite, or 0.
        share = c / h
        return share * share * (share * (0.5 / c))

    return with_derivative(value, with_derivative(slope, second))


@stable
def squareplus(x, b=4):
    """Compute `(x + sqrt(x**2 + b)) / 2`.

    Neither overflows for large `x` nor cancels for negative ones.

    Args:
        x: Input tensor.
        b: Number >= 0, the smoothness.

    Returns:
        Tensor of the shape and floating dtype of `x`. NaN stays NaN.

    Raises:
        ValueError: If `b` is negative.

    Accuracy: worst ULP 0.5 in float16, 0.5 in bfloat16, 1.6 in float32, 1.8 in
        float64; gradient 0.5, 0.5, 0.5, 1.2.
    Gradient: `squareplus(x) / sqrt(x**2 + b)`.

    Example:
    >>> from stablekeras import activations
    >>> [round(float(v), 4) for v in activations.squareplus([-3.0, 0.0, 2.0])]
    [0.3028, 1.0, 2.4142]

    Reference: Barron (2021), arXiv:2112.11687.
    """
    if b < 0:
        raise ValueError(
            f"b must be >= 0. Received: b={b}. Keras' default is 4."
        )
    return answered(_squareplus_kernel(b), x)
