"""Sums of exponentials: logsumexp, softmax and their relatives.

In all of them an entry of `-inf` takes no part, and so does one where `where`
is false, whatever stands there.
"""

import math

import keras
from keras import ops as kops

from stablekeras.ops.axes import check_axis, rank_of
from stablekeras.ops.elementary import log1p_kernel
from stablekeras.ops.gradient import no_gradient, remembered, with_pullback
from stablekeras.ops.precision import at_most, finfo, largest, to_compute
from stablekeras.ops.provenance import made_by
from stablekeras.ops.symbolic import stable

__all__ = ["log_softmax", "logmeanexp", "logsumexp", "softmax"]


def _selected(x, where):
    if where is None:
        return x
    return kops.where(kops.cast(where, "bool"), x, -math.inf)


def _peak(x, axis):
    return kops.stop_gradient(largest(x, axis))


def _shares(x, peak, axis):
    """Sum `exp(x - peak)`; return two summands of the sum, and the base.

    The largest terms are exactly 1. They are counted, not added, so that the
    logarithm of 1 plus a little keeps all its digits. The sum is 1 plus the
    two.
    """
    dead = kops.equal(x, -math.inf)
    top = kops.cast(kops.equal(x, peak), x.dtype)
    base = kops.where(kops.equal(kops.abs(peak), math.inf), 0.0, peak)
    z = kops.where(dead, 0.0, x - base)
    e = kops.where(dead, 0.0, kops.exp(z))
    rest = kops.sum(e - top, axis=axis, keepdims=True)
    more = kops.sum(top, axis=axis, keepdims=True) - 1
    # Without any part, `more` is -1 only where the peak is NaN.
    return rest, kops.where(more < 0, 0.0, more), base


def _empty(peak, total):
    """Whether a row has no part, by its peak and a sum that NaN would reach.

    XLA's maximum passes over NaN: of nothing else it is minus infinity.
    """
    low = kops.equal(peak, -math.inf)
    return kops.logical_and(low, kops.logical_not(kops.isnan(total)))


@stable
def logsumexp(x, axis=None, keepdims=False, *, where=None):
    """Compute `log(sum(exp(x)))`.

    Args:
        x: Tensor of any shape; integers are taken as floats.
        axis: Integer or tuple, along which to sum; `None` for all.
        keepdims: Whether to keep `axis` with size one.
        where: Boolean tensor that broadcasts with `x`: the entries that take
            part, or `None` for all. What stands at the others, even NaN,
            reaches neither value nor gradient.

    Returns:
        Tensor without `axis`. `-inf` for entries that are all `-inf`;
        0, not NaN, where `where` selects none.

    Accuracy: worst ULP 0.4 in float16, 0.4 in bfloat16, 0.6 in float32, 0.9 in
        float64; gradient 0.2, 0.2, 1.0, 0.6.
    Gradient: The softmax, 0 for entries of `-inf` and for those not selected.

    Example:
    >>> from stablekeras import ops
    >>> round(float(ops.logsumexp([1000.0, 1000.0])), 4)
    1000.6932
    """
    dtype, (x,) = to_compute(x)
    check_axis(x, axis)
    x = _selected(x, where)
    peak = _peak(x, axis)
    rest, more, base = _shares(x, peak, axis)
    log = kops.log1p(rest + more)
    nothing = -math.inf
    if where is not None:
        chosen = kops.logical_and(where, kops.ones_like(x, "bool"))
        chosen = kops.any(chosen, axis=axis, keepdims=True)
        nothing = kops.where(chosen, nothing, kops.zeros_like(peak))
    out = kops.where(_empty(peak, rest), nothing, log + base)
    if not keepdims:
        out = kops.sum(out, axis=axis)  # over dimensions of size one
    out = kops.cast(out, dtype)
    whole = keepdims and where is None and axis is not None
    return made_by(out, "logsumexp", x, axis) if whole else out


@stable
def logmeanexp(x, axis=None, keepdims=False):
    """Compute `log(mean(exp(x)))`.

    Args:
        x: Tensor of any shape; integers are taken as floats.
        axis: Integer or tuple, along which to average; `None` for all.
        keepdims: Whether to keep `axis` with size one.

    Returns:
        Tensor without `axis`.

    Accuracy: worst ULP 0.2 in float16, 0.2 in bfloat16, 1.3 in float32, 0.4 in
        float64; gradient 0.2, 0.2, 1.1, 0.6.
    Gradient: The softmax.

    Example:
    >>> from stablekeras import ops
    >>> round(float(ops.logmeanexp([1000.0, 1000.0])), 4)
    1000.0
    """
    dtype, (x,) = to_compute(x)
    check_axis(x, axis)
    peak = _peak(x, axis)
    rest, more, base = _shares(x, peak, axis)
    count = kops.sum(kops.ones_like(x), axis=axis, keepdims=True)
    # The mean share less 1; of equal entries nothing is left. Not the
    # difference of two logarithms, which for many entries are large.
    gap = (rest + (more + 1 - count)) / count
    near = gap > -0.5
    far = kops.log(kops.where(near, 1.0, (1 + more + rest) / count))
    log = kops.where(near, log1p_kernel(kops.where(near, gap, 0.0)), far)
    out = kops.where(_empty(peak, rest), -math.inf, log + base)
    if not keepdims:
        out = kops.sum(out, axis=axis)  # over dimensions of size one
    return kops.cast(out, dtype)


# What is special about a row is decided once a row, not once an entry:
# outside XLA each decision is a pass over memory.


def _unless(empty, x):
    """Return `x`, 0 in the rows that are `empty`, whatever stands there."""
    if keras.backend.backend() == "tensorflow":
        # Its `where` takes twice as long.
        alive = kops.cast(kops.logical_not(empty), x.dtype)
        return kops.divide_no_nan(x, alive)
    return kops.where(empty, 0.0, x)


def _softmax_value(x, axis):
    total = kops.stop_gradient(kops.sum(x, axis=axis, keepdims=True))
    empty = _empty(_peak(x, axis), total)
    # Infinite entries share.
    x = at_most(x, finfo(x.dtype).max)
    if rank_of(x) is None:  # Keras' own asks for it
        e = kops.exp(x - _peak(x, axis))
        return _unless(empty, e / kops.sum(e, axis=axis, keepdims=True))
    return _unless(empty, kops.softmax(x, axis=axis))


def _log_softmax_value(x, axis):
    peak = _peak(x, axis)
    low = kops.equal(peak, -math.inf)
    base = kops.where(low, 0.0, at_most(peak, finfo(x.dtype).max))
    # 0 at the peak even where it is infinite.
    z = at_most(x - base, 0.0)
    # The peaks are 1, all else is less. They are counted, not added, so that
    # the logarithm of 1 plus a little keeps all its digits.
    e = kops.exp(z)
    top = kops.floor(e)
    more = kops.sum(top, axis=axis, keepdims=True) - 1
    rest = kops.sum(e - top, axis=axis, keepdims=True)
    empty = _empty(peak, rest)
    log = kops.log1p(rest + kops.where(empty, 0.0, more))
    return _unless(empty, z - log)


def _along(value, pullback, axis):
    """Differentiate a function by its own output, which is kept.

    Args:
        value: Function of a tensor and the axis.
        pullback: Function of the upstream gradient, the tensor, the output
            and the axis that returns the gradient.
        axis: Integer or tuple.
    """

    def gradient(u, x, y):
        # Again a function of `x`, for the second derivative.
        return pullback(u, x, kept(x, y), axis), no_gradient(y)

    kept = with_pullback(lambda x, y: y, gradient)
    return lambda x: kept(x, remembered(value(x, axis)))


def _softmax_pullback(u, x, p, axis):
    return p * (u - kops.sum(p * u, axis=axis, keepdims=True))


def _log_softmax_pullback(u, x, y, axis):
    u = kops.where(kops.equal(x, -math.inf), 0.0, u)
    return u - kops.exp(y) * kops.sum(u, axis=axis, keepdims=True)


@stable
def softmax(x, axis=-1, *, where=None):
    """Compute `exp(x) / sum(exp(x))`.

    Args:
        x: Tensor of any shape; integers are taken as floats.
        axis: Integer or tuple, the axis of the classes.
        where: Boolean tensor that broadcasts with `x`: the classes that take
            part, or `None` for all. What stands at the others, even NaN,
            reaches neither value nor gradient.

    Returns:
        Tensor of the shape of `x`. An entry of `-inf` has share 0, one
        of `inf` has all (several of them share). A row without any part
        is 0, not NaN.

    Accuracy: worst ULP 0.2 in float16, 0.2 in bfloat16, 0.9 in float32, 1.3 in
        float64; gradient 0.1, 0.1, 1.1, 2.5.
    Gradient: `p * (u - sum(p * u))` for the upstream `u`; 0 for a row without
        any part.

    Example:
    >>> from stablekeras import ops
    >>> [
    ...     round(float(v), 4)
    ...     for v in ops.softmax([1000.0, 1000.0, -float('inf')])
    ... ]
    [0.5, 0.5, 0.0]
    """
    dtype, (x,) = to_compute(x)
    check_axis(x, axis)
    function = _along(_softmax_value, _softmax_pullback, axis)
    out = kops.cast(function(_selected(x, where)), dtype)
    return out if where is not None else made_by(out, "softmax", x, axis)


@stable
def log_softmax(x, axis=-1, *, where=None):
    """Compute `x - logsumexp(x)`.

    The largest entry keeps its digits: `log_softmax([0, -30])[0]` is -9.4e-14,
    not 0.

    Args:
        x: Tensor of any shape; integers are taken as floats.
        axis: Integer or tuple, the axis of the classes.
        where: Boolean tensor that broadcasts with `x`: the classes that take
            part, or `None` for all. What stands at the others, even NaN,
            reaches neither value nor gradient.

    Returns:
        Tensor of the shape of `x`: `-inf` for entries that take no
        part, but 0, not NaN, in a row without any part.

    Accuracy: worst ULP 0.4 in float16, 0.4 in bfloat16, 0.8 in float32, 1.0 in
        float64; gradient 0.5, 0.4, 1.6, 1.2.
    Gradient: `u - softmax(x) * sum(u)` for the upstream `u`; 0 for entries that
        take no part.

    Example:
    >>> from stablekeras import ops
    >>> [round(float(v), 4) for v in ops.log_softmax([1000.0, 1000.0])]
    [-0.6931, -0.6931]
    """
    dtype, (x,) = to_compute(x)
    check_axis(x, axis)
    function = _along(_log_softmax_value, _log_softmax_pullback, axis)
    out = kops.cast(function(_selected(x, where)), dtype)
    return out if where is not None else made_by(out, "log_softmax", x, axis)
