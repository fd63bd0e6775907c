"""Sums of exponentials: logsumexp, softmax and their relatives."""

from keras import ops as kops

from stablekeras.ops.precision import stable, to_compute

__all__ = ["log_softmax", "logaddexp", "logmeanexp", "logsumexp", "softmax"]


def _selected(x, where):
    if where is None:
        return x
    where = kops.cast(where, "bool")
    return kops.where(where, x, kops.cast(float("-inf"), x.dtype))


def _peak(x, axis):
    m = kops.max(x, axis=axis, keepdims=True)
    return kops.stop_gradient(kops.where(kops.isfinite(m), m, 0.0))


def _exps(x, axis):
    dead = kops.equal(x, float("-inf"))
    z = kops.where(dead, 0.0, x) - _peak(x, axis)
    return kops.where(dead, 0.0, kops.exp(z)), z, dead


@stable
def logsumexp(x, axis=None, keepdims=False, where=None):
    """Computes `log(sum(exp(x)))`; 0 for a row with nothing selected."""
    dtype, (x,) = to_compute(x)
    x = _selected(x, where)
    e, _, _ = _exps(x, axis)
    s = kops.sum(e, axis=axis, keepdims=True)
    empty = kops.equal(s, 0)
    out = kops.log(kops.where(empty, 1.0, s)) + _peak(x, axis)
    lowest = 0.0 if where is not None else float("-inf")
    out = kops.where(empty, lowest, out)
    if not keepdims:
        out = kops.squeeze(out, axis=axis)
    return kops.cast(out, dtype)


@stable
def logmeanexp(x, axis=None, keepdims=False):
    """Computes `log(mean(exp(x)))`."""
    x = kops.convert_to_tensor(x)
    total = logsumexp(x, axis=axis, keepdims=keepdims)
    n = kops.size(x) / kops.size(total)
    return total - kops.cast(kops.log(kops.cast(n, "float32")), total.dtype)


@stable
def softmax(x, axis=-1, where=None):
    """Computes `exp(x) / sum(exp(x))`; 0 for a row with nothing selected."""
    dtype, (x,) = to_compute(x)
    e, _, _ = _exps(_selected(x, where), axis)
    s = kops.sum(e, axis=axis, keepdims=True)
    return kops.cast(e / kops.where(kops.equal(s, 0), 1.0, s), dtype)


@stable
def log_softmax(x, axis=-1, where=None):
    """Computes `x - logsumexp(x)`; 0 for a row with nothing selected."""
    dtype, (x,) = to_compute(x)
    e, z, dead = _exps(_selected(x, where), axis)
    s = kops.sum(e, axis=axis, keepdims=True)
    empty = kops.equal(s, 0)
    out = z - kops.log(kops.where(empty, 1.0, s))
    out = kops.where(dead, float("-inf"), out)
    return kops.cast(kops.where(empty, 0.0, out), dtype)


@stable
def logaddexp(x1, x2):
    """Computes `log(exp(x1) + exp(x2))`."""
    dtype, (x, y) = to_compute(x1, x2)
    x, y = x + kops.zeros_like(y), y + kops.zeros_like(x)
    return logsumexp(kops.cast(kops.stack([x, y]), dtype), axis=0)
