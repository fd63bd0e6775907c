"""What every elementary function should compute, as a textbook has it."""

import functools
import math

import mpmath
from keras import ops as kops
from mpmath import mpf

from stablekeras import ops
from tests.accuracy.jets import (
    Jet,
    acos,
    erfinv,
    exp,
    log,
    sigmoid,
    softplus,
    sqrt,
    tanh,
)
from tests.accuracy.measure import Entry

__all__ = ["ENTRIES", "NOT_NUMERIC"]

NOT_NUMERIC = set()
# Beyond the span a class has all or nothing: rows with the ends say so.
_SHARES = {
    "unit": lambda row: (1, 1, 1),
    "span": 120.0,
    "dps": 150,
    "rows": ((3e38, -3e38, 0, 1), (-6e4, -6e4, 6e4, 0), (0, 0, 0, 0)),
}


def _over_length(row):
    """Second derivatives of a length are differences of terms of this size."""
    return 0, 0, 1 / mpmath.norm(row) if any(row) else 0


POSITIVE = ((0.0, math.inf),)


def _columns(function):
    """A function of `n` tensors as one of a tensor with `n` columns."""

    def of_rows(x):
        return function(*(x[:, k] for k in range(x.shape[1])))

    return of_rows


def _unary(name, formula, rival=None, **kwargs):
    return Entry(
        f"ops.{name}",
        getattr(ops, name),
        lambda xs: formula(xs[0]),
        keras=rival or getattr(kops, name, None),
        **kwargs,
    )


def _binary(name, formula, rival=None, **kwargs):
    rival = rival or getattr(kops, name, None)
    return Entry(
        f"ops.{name}",
        _columns(getattr(ops, name)),
        lambda xs: formula(*xs),
        arity=2,
        keras=rival and _columns(rival),
        **kwargs,
    )


def _rows(name, formula, rival=True, arity=4, **kwargs):
    reduce = functools.partial(getattr(ops, name), axis=-1)
    twin = getattr(kops, name, None) if rival is True else rival
    return Entry(
        f"ops.{name}",
        reduce,
        formula,
        arity=arity,
        keras=functools.partial(twin, axis=-1) if twin else None,
        **kwargs,
    )


def _logsumexp(xs):
    peak = max(x.value for x in xs)
    return log(sum(exp(x - peak) for x in xs)) + peak


def _softmax(xs):
    total = _logsumexp(xs)
    return [exp(x - total) for x in xs]


def _log_softmax(xs):
    total = _logsumexp(xs)
    return [x - total for x in xs]


def _length(xs):
    return sqrt(sum(x * x for x in xs))


def _normalize(xs):
    n = _length(xs)
    return [Jet(0) for x in xs] if n == 0 else [x / n for x in xs]


def _variance(xs):
    mean = sum(xs) / len(xs)
    return sum((x - mean) * (x - mean) for x in xs) / len(xs)


def _xlogy(x, y):
    if x == 0 and y == 0:
        raise ValueError("the slope is infinite")
    return x * log(y)


def _xlog1py(x, y):
    if y == -1:
        raise ValueError("the slope is infinite")
    return x * log(1 + y)


def _clamped_log(floor):
    def formula(x):
        if x > floor:
            return log(x)
        # Below the floor the slope is the floor's: a convention.
        return Jet(mpmath.log(floor), x.slope / mpf(floor))

    return formula


def _entropy(xs):
    if any(x == 0 for x in xs):
        raise ValueError("the slope is infinite")
    return -sum(x * log(x) for x in xs)


def _power(x, y):
    if x == 0:
        if y > 1:
            return Jet(0)
        raise ValueError("the slope is infinite, or a convention")
    if x < 0:
        if mpmath.isint(y.value) and y.slope == 0:
            sign = -1 if int(y.value) % 2 else 1
            return exp(y * log(-x)) * sign
        raise ValueError("not real")
    return exp(y * log(x))


def _distances(xs):
    a, b = xs[:2], xs[2:]
    return _length([a[0] - b[0], a[1] - b[1]])


def _cdist(function):
    return lambda x: function(x[:, None, :2], x[:, None, 2:])[:, 0, 0]


def _global_norm(x):
    # One row at a time has no meaning for it: the whole is one vector.
    return kops.stack(
        [ops.global_norm([r[:2], r[2:]]) for r in kops.unstack(x)]
    )


def _raising_at_zero(formula):
    def guarded(x):
        if x == 0:
            raise ValueError("the slope is infinite")
        return formula(x)

    return guarded


ENTRIES = [
    _unary(
        "arccos",
        acos,
        domain=((-1.0, 1.0),),
        near=(0.0, 0.9),
        accept=lambda r: abs(r[0]) < 1,
    ),
    Entry(
        "ops.cdist",
        _cdist(ops.cdist),
        _distances,
        arity=4,
        keras=_cdist(kops.cdist) if hasattr(kops, "cdist") else None,
        accept=lambda r: r[0] != r[2] or r[1] != r[3],
        unit=lambda r: _over_length((r[0] - r[2], r[1] - r[3])),
    ),
    Entry(
        "ops.clamped_log",
        ops.clamped_log,
        lambda xs: _clamped_log(2.0**-46)(xs[0]),
        near=(0.0, 1.0),
        dtypes=("bfloat16", "float32"),
    ),
    Entry(
        "ops.clamped_log",
        ops.clamped_log,
        lambda xs: _clamped_log(2.0**-104)(xs[0]),
        near=(0.0, 1.0),
        dtypes=("float64",),
    ),
    _binary(
        "divide_no_nan",
        lambda x, y: Jet(0) if y == 0 else x / y,
    ),
    _rows(
        "entropy",
        _entropy,
        rival=None,
        domain=((0.0, 1.0),),
        near=(0.0, 1.0, 0.3679),
    ),
    _unary(
        "erfinv",
        erfinv,
        domain=((-1.0, 1.0),),
        near=(0.0, 0.85, -0.99),
        accept=lambda r: abs(r[0]) < 1,
    ),
    _unary("expm1", lambda x: exp(x) - 1),
    _binary("hypot", lambda x, y: _length([x, y])),
    _unary(
        "log1mexp",
        lambda x: log(1 - exp(-x)),
        domain=POSITIVE,
        near=(0.0, 0.6931),
    ),
    _unary(
        "log1p",
        lambda x: log(1 + x),
        domain=((-1.0, math.inf),),
        near=(0.0, -1.0, -0.5, 1.0),
    ),
    _unary(
        "log_cosh",
        lambda x: log((exp(x) + exp(-x)) / 2),
        near=(0.0, 1.0, -1.0),
    ),
    _unary("log_sigmoid", lambda x: -softplus(-x)),
    _rows("log_softmax", _log_softmax, outputs=4, **_SHARES),
    _binary(
        "log_sub_exp",
        lambda x, y: x + log(1 - exp(y - x)),
        near=(0.0, 1.0),
        accept=lambda r: r[0] > r[1],
    ),
    _binary(
        "logaddexp",
        lambda x, y: _logsumexp([x, y]),
        near=(0.0, -0.6931, 20.0),
    ),
    _unary(
        "logit",
        lambda x: log(x / (1 - x)),
        domain=((0.0, 1.0),),
        near=(0.0, 0.5, 1.0, 0.3333),
    ),
    _rows(
        "logmeanexp",
        lambda xs: _logsumexp(xs) - Jet(mpmath.log(len(xs))),
        rival=None,
        **_SHARES,
    ),
    _rows("logsumexp", _logsumexp, **_SHARES),
    Entry(
        "ops.masked",
        lambda x: ops.masked(kops.sqrt, x, x > 0.25, otherwise=-1.0),
        lambda xs: sqrt(xs[0]) if xs[0] > 0.25 else Jet(-1),
        near=(0.25,),
    ),
    Entry(
        "ops.global_norm",
        _global_norm,
        _length,
        arity=4,
        every=8,
        accept=any,
        unit=_over_length,
    ),
    _rows("norm", _length, accept=any, unit=_over_length),
    Entry(
        "ops.norm",
        lambda x: ops.norm(x, ord=3, axis=-1),
        lambda xs: exp(log(sum(abs(x) ** 3 for x in xs)) / 3),
        arity=3,
        keras=lambda x: kops.norm(x, ord=3, axis=-1),
        accept=any,
        unit=_over_length,
    ),
    _rows(
        "normalize",
        _normalize,
        outputs=4,
        accept=any,
        # The upstream gradient is up to 2, and so is each term.
        unit=lambda r: (0, 2 * _over_length(r)[2], 2 * _over_length(r)[2] ** 2),
    ),
    _binary(
        "power",
        _power,
        domain=((0.0, math.inf), (-math.inf, math.inf)),
        near=(0.0, 1.0, 2.0),
        rows=((-2.0, 3.0), (-3.0, -2.0), (0.0, 2.0), (0.0, 3.5)),
    ),
    _unary("rsqrt", lambda x: 1 / sqrt(x), domain=POSITIVE),
    _unary("sigmoid", sigmoid),
    _rows("softmax", _softmax, outputs=4, **_SHARES),
    _unary("softplus", softplus),
    _unary(
        "softplus_inverse",
        lambda x: log(exp(x) - 1),
        domain=POSITIVE,
        near=(0.0, 0.6931),
    ),
    _unary("sqrt", _raising_at_zero(sqrt), domain=POSITIVE),
    _rows(
        "std",
        lambda xs: sqrt(_variance(xs)),
        unit=lambda r: _over_length([x - sum(r) / len(r) for x in r]),
        accept=lambda r: len(set(r)) > 1,
    ),
    _unary("tanh", tanh, near=(0.0, 0.55)),
    _rows("var", _variance),
    _binary(
        "xlog1py",
        _xlog1py,
        domain=((-math.inf, math.inf), (-1.0, math.inf)),
        near=(0.0, -0.5, 1.0),
    ),
    _binary(
        "xlogy",
        _xlogy,
        domain=((-math.inf, math.inf), (0.0, math.inf)),
        near=(0.0, 1.0),
    ),
]
