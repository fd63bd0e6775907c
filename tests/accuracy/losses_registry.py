"""What every loss should compute, as a textbook has it.

Labels are dyadic numbers, the same in every dtype. Where a loss takes targets
of any size, they are inputs too, and their gradients are measured as well.
"""

import itertools
import math

import keras
import mpmath
import numpy as np
from keras import ops as kops

from stablekeras import losses
from tests.accuracy.jets import (
    Jet,
    exp,
    jet,
    log,
    maximum,
    sigmoid,
    softplus,
    sqrt,
)
from tests.accuracy.measure import Entry

__all__ = ["ENTRIES", "NOT_NUMERIC"]

NOT_NUMERIC = {"deserialize", "get", "serialize", "Loss", "LossFunctionWrapper"}

# The floors of the clamped logarithm, eps**2 of the compute dtype.
# Shares of up to three of them stay above the floor.
_ALIVE = ((2.0**-44, 1.0),)
_DEEP = {"domain": ((2.0**-102, 1.0),), "dtypes": ("float64",)}
_CLASSES = {"unit": lambda row: (1, 1, 1), "dps": 150, "span": 120.0}
_ENDS = ((1.5e38, -1.5e38, 0.0), (-6e4, -6e4, 6e4), (0.0, 0.0, 0.0))


def _mean(xs):
    return sum(xs) / len(xs)


def _of_labels(name, labels, formula, arity=None, rival=True, **kwargs):
    """An entry whose inputs are predictions; the labels are given."""
    given = kwargs.pop("given", {})
    arity = arity or len(labels)
    y = np.asarray(labels)

    def made(module):
        function = getattr(module, name)

        def of_rows(x):
            wide = np.broadcast_to(y, (x.shape[0], *y.shape))
            return function(wide, x, **given)

        return of_rows

    return Entry(
        f"losses.{name}",
        made(losses),
        lambda xs: formula(labels, xs),
        arity=arity,
        keras=made(keras.losses) if rival else None,
        **kwargs,
    )


def _of_targets(name, formula, n=2, **kwargs):
    """An entry whose inputs are `n` targets, then `n` predictions."""
    given = kwargs.pop("given", {})

    def made(module):
        function = getattr(module, name)
        return lambda x: function(x[:, :n], x[:, n:], **given)

    return Entry(
        f"losses.{name}",
        made(losses),
        lambda xs: formula(xs[:n], xs[n:]),
        arity=2 * n,
        keras=made(keras.losses),
        **kwargs,
    )


def _bce_logits(y, x):
    return y * softplus(-x) + (1 - y) * softplus(x)


def _bce(y, p):
    total = Jet(0)
    if y:
        total = total - y * log(p)
    if y != 1:
        total = total - (1 - y) * log(1 - p)
    return total


def _focal_logits(gamma):
    def one(y, x):
        p = sigmoid(x)
        share = y * sigmoid(-x) + (1 - y) * p
        return share**gamma * _bce_logits(y, x)

    return lambda ys, xs: _mean(
        [one(y, x) for y, x in zip(ys, xs, strict=True)]
    )


def _focal(gamma):
    def one(y, p):
        return (y * (1 - p) + (1 - y) * p) ** gamma * _bce(y, p)

    return lambda ys, ps: _mean(
        [one(y, p) for y, p in zip(ys, ps, strict=True)]
    )


def _per_entry(one):
    return lambda ys, xs: _mean(
        [one(y, x) for y, x in zip(ys, xs, strict=True)]
    )


def _log_softmax(xs):
    peak = max(xs, key=lambda x: x.value)
    total = log(sum(exp(x - peak) for x in xs))
    return [x - peak - total for x in xs]


def _cce_logits(ys, xs):
    return -sum(y * lp for y, lp in zip(ys, _log_softmax(xs), strict=True))


def _cce(ys, ps):
    total = sum(ps)
    return -sum(y * log(p / total) for y, p in zip(ys, ps, strict=True) if y)


def _cfocal_logits(gamma):
    def formula(ys, xs):
        logs = _log_softmax(xs)
        total = Jet(0)
        for i, y in enumerate(ys):
            if y:
                others = [exp(lp) for j, lp in enumerate(logs) if j != i]
                total = total - 0.25 * y * sum(others) ** gamma * logs[i]
        return total

    return formula


def _cfocal(gamma):
    def formula(ys, ps):
        total, out = sum(ps), Jet(0)
        for i, y in enumerate(ys):
            if y:
                rest = sum(p for j, p in enumerate(ps) if j != i) / total
                out = out - 0.25 * y * rest**gamma * log(ps[i] / total)
        return out

    return formula


def _kl(ys, ps):
    return sum(
        y * (log(Jet(y)) - log(p)) for y, p in zip(ys, ps, strict=True) if y
    )


def _poisson(ys, ps):
    return _mean(
        [p - y * log(p) if y else p for y, p in zip(ys, ps, strict=True)]
    )


def _gce(q):
    return lambda label, ps: (1 - ps[label] ** q) / q


def _mape(ys, ps):
    return 100 * _mean([abs((y - p) / y) for y, p in zip(ys, ps, strict=True)])


def _msle(ys, ps):
    return _mean(
        [(log(1 + y) - log(1 + p)) ** 2 for y, p in zip(ys, ps, strict=True)]
    )


def _cosine(ys, ps):
    def length(v):
        return sqrt(jet(sum(x * x for x in v)))

    dot = sum(y * p for y, p in zip(ys, ps, strict=True))
    return -dot / length(ys) / length(ps)


def _huber(delta):
    def one(y, p):
        e = abs(p - y)
        return 0.5 * e * e if e <= delta else delta * e - delta * delta / 2

    return lambda ys, ps: _mean(
        [one(*pair) for pair in zip(ys, ps, strict=True)]
    )


def _log_cosh(ys, ps):
    return _mean(
        [
            log((exp(p - y) + exp(y - p)) / 2)
            for y, p in zip(ys, ps, strict=True)
        ]
    )


def _dice(ys, ps):
    both = sum(y * p for y, p in zip(ys, ps, strict=True))
    return 1 - 2 * both / (sum(ys) + sum(ps) + 1e-7)


def _tversky(ys, ps):
    pairs = list(zip(ys, ps, strict=True))
    both = sum(y * p for y, p in pairs)
    missed = sum(y * (1 - p) for y, p in pairs)
    extra = sum(p * (1 - y) for y, p in pairs)
    return 1 - both / (both + 0.25 * missed + 0.75 * extra + 1e-7)


def _categorical_hinge(ys, ps):
    right = sum(y * p for y, p in zip(ys, ps, strict=True))
    wrong = maximum(
        maximum((1 - ys[0]) * ps[0], (1 - ys[1]) * ps[1]), (1 - ys[2]) * ps[2]
    )
    return maximum(wrong - right + 1, 0)


_PATHS = [
    path
    for path in itertools.product(range(3), repeat=3)
    if [k for k, _ in itertools.groupby(path) if k] == [1, 2]
]


def _ctc(xs):
    logs = [_log_softmax(xs[3 * t : 3 * t + 3]) for t in range(3)]
    sums = [sum(logs[t][k] for t, k in enumerate(path)) for path in _PATHS]
    peak = max(sums, key=lambda x: x.value)
    return -(peak + log(sum(exp(s - peak) for s in sums)))


def _ctc_rows(module):
    def of_rows(x):
        rows = x.shape[0]
        labels = np.broadcast_to(np.array([1, 2]), (rows, 2))
        return module.ctc(labels, kops.reshape(x, (rows, 3, 3)))

    return of_rows


def _circle(xs):
    rows = [xs[0:2], xs[2:4], xs[4:6]]
    labels = (1, 1, 2)
    out = []
    for i, row in enumerate(rows):
        pull, push = [], []
        for j, other in enumerate(rows):
            cosine = sum(a * b for a, b in zip(row, other, strict=True))
            d = maximum(1 - cosine, 0)
            if labels[i] != labels[j]:
                push.append(4 * maximum(1.25 - d, 0) * (0.75 - d))
            elif i != j:
                pull.append(-4 * (0.25 + d) * (0.25 - d))
        if pull and push:
            total = sum(exp(u) for u in pull) * sum(exp(v) for v in push)
            out.append(log(1 + total))
        else:
            out.append(Jet(0))
    return out


def _circle_rows(module):
    def of_rows(x):
        labels = np.array([1, 1, 2])
        return kops.stack(
            [
                module.circle(
                    labels,
                    kops.reshape(x[i], (3, 2)),
                    gamma=4,
                    margin=0.25,
                )
                for i in range(x.shape[0])
            ]
        )

    return of_rows


def _differ(row):
    # By a normal number: others are flushed to zero.
    half = len(row) // 2
    pairs = zip(row[:half], row[half:], strict=True)
    return all(abs(a - b) >= 2.0**-126 for a, b in pairs)


_ONE_HOT = (0.0, 1.0, 0.0)
_SOFT = (0.25, 0.5, 0.25)
_ODD = (1.0, 0.5, 0.0)  # labels that do not sum to 1
_LOGITS = {"given": {"from_logits": True}, "rows": _ENDS, **_CLASSES}
_MIXED = (0.0, 1.0, 0.25)

ENTRIES = [
    *(
        _of_labels(
            "binary_crossentropy",
            (y,),
            _per_entry(_bce_logits),
            given={"from_logits": True},
        )
        for y in (0.0, 1.0, 0.25)
    ),
    _of_labels(
        "binary_crossentropy",
        _MIXED,
        _per_entry(_bce),
        domain=_ALIVE,
        near=(0.5, 1.0),
        accept=lambda r: all(x < 1 for x in r),
    ),
    _of_labels(
        "binary_crossentropy",
        _MIXED,
        _per_entry(_bce),
        near=(0.5, 1.0),
        accept=lambda r: all(x < 1 for x in r),
        **_DEEP,
    ),
    *(
        _of_labels(
            "binary_focal_crossentropy",
            (y,),
            _focal_logits(gamma),
            given={"from_logits": True, "gamma": gamma},
            dps=200,
            span=100.0,
            rows=((6e4,), (-6e4,)),
            # The second derivative is a sum of terms of both signs.
            unit=lambda row: (0, 0, 0.25),
        )
        for y in (0.0, 1.0, 0.25)
        for gamma in (0.5, 2.0)
    ),
    *(
        _of_labels(
            "binary_focal_crossentropy",
            _MIXED,
            _focal(gamma),
            given={"gamma": gamma},
            domain=_ALIVE,
            near=(0.5, 1.0),
            accept=lambda r: all(x < 1 for x in r),
        )
        for gamma in (0.5, 2.0, 3.5)
    ),
    *(
        _of_labels(
            "binary_focal_crossentropy",
            labels,
            _focal(gamma),
            given={"gamma": gamma},
            domain=_ALIVE,
            near=near,
            accept=lambda r: all(x < 1 for x in r),
        )
        # Hard labels, and soft ones near the turn, where the slope cancels.
        for labels, gamma, near in (
            ((0.0, 1.0), 0.5, (0.5, 1.0)),
            ((0.25,), 2.0, (0.0771,)),
            ((0.9375,), 0.5, (0.9718,)),
        )
    ),
    *(
        _of_labels("categorical_crossentropy", y, _cce_logits, **_LOGITS)
        for y in (_ONE_HOT, _SOFT, _ODD)
    ),
    _of_labels(
        "categorical_crossentropy",
        _ONE_HOT,
        lambda ys, xs: (
            _cce_logits(ys, xs) + 0.25 * (xs[1] - _log_softmax(xs)[1]) ** 2
        ),
        rival=False,
        given={"from_logits": True, "z_loss": 0.25},
        dps=150,
        span=120.0,
        # The curvature is a share times the log-partition.
        unit=lambda row: (1, 1, max(map(abs, row))),
    ),
    *(
        _of_labels(
            "categorical_crossentropy",
            y,
            _cce,
            near=(0.5, 1.0),
            unit=lambda row: (1, 1, 1),
            **deep,
        )
        for y in (_ONE_HOT, _SOFT)
        for deep in ({"domain": _ALIVE}, _DEEP)
    ),
    *(
        _of_labels(
            "categorical_focal_crossentropy",
            y,
            _cfocal_logits(gamma),
            **{**_LOGITS, "given": {"from_logits": True, "gamma": gamma}},
        )
        for y in (_ONE_HOT, _SOFT)
        for gamma in (0.5, 2.0)
    ),
    *(
        _of_labels(
            "categorical_focal_crossentropy",
            _SOFT,
            _cfocal(gamma),
            given={"gamma": gamma},
            domain=_ALIVE,
            near=(0.5, 1.0),
            unit=lambda row: (1, 1, 1),
        )
        for gamma in (0.5, 2.0)
    ),
    _of_labels(
        "sparse_categorical_crossentropy",
        (1,),
        lambda ys, xs: -_log_softmax(xs)[1],
        arity=3,
        **_LOGITS,
    ),
    *(
        _of_labels(
            "sparse_categorical_crossentropy",
            (1,),
            lambda ys, ps: _cce(_ONE_HOT, ps),
            arity=3,
            near=(0.5, 1.0),
            unit=lambda row: (1, 1, 1),
            **deep,
        )
        for deep in ({"domain": _ALIVE}, _DEEP)
    ),
    _of_labels(
        "categorical_generalized_cross_entropy",
        1,
        _gce(0.5),
        arity=3,
        rival=False,
        given={"q": 0.5},
        domain=_ALIVE,
        near=(0.5, 1.0),
    ),
    _of_labels(
        "kl_divergence",
        (0.25, 0.75, 0.0),
        _kl,
        domain=_ALIVE,
        near=(0.25, 0.75, 1.0),
        unit=lambda row: (1, 1, 1),
    ),
    _of_labels(
        "poisson",
        (0.0, 1.0, 3.0),
        _poisson,
        domain=((2.0**-46, math.inf),),
        near=(1.0, 3.0),
        rows=((0.0, 1.0, 1.0),),
    ),
    _of_targets(
        "mean_squared_error",
        lambda ys, ps: _mean(
            [(y - p) ** 2 for y, p in zip(ys, ps, strict=True)]
        ),
    ),
    _of_targets(
        "mean_absolute_error",
        lambda ys, ps: _mean([abs(y - p) for y, p in zip(ys, ps, strict=True)]),
        accept=_differ,
    ),
    _of_labels(
        "mean_absolute_percentage_error",
        (1.0, -3.0),
        _mape,
        near=(1.0, -3.0),
        accept=lambda r: r[0] != 1 and r[1] != -3,
    ),
    _of_labels(
        "mean_absolute_percentage_error",
        (2.0**-100,),
        _mape,
        near=(2.0**-100,),
        accept=lambda r: r[0] != 2.0**-100,
        dtypes=("bfloat16", "float32", "float64"),
    ),
    _of_targets(
        "mean_squared_logarithmic_error",
        _msle,
        domain=((0.0, math.inf),),
        # The second derivative by a target is a difference: of 1 and of the
        # logarithm of the ratio, both over the square of one plus the target.
        unit=lambda row: (0, 0, (1 + row[0]) ** -2),
    ),
    *(
        _of_labels(
            "cosine_similarity",
            y,
            _cosine,
            accept=lambda row: mpmath.norm(row) > 1e-18,
            # The gradient is a difference of vectors of this length.
            unit=lambda row: (
                0,
                1 / mpmath.norm(row),
                1 / mpmath.norm(row) ** 2,
            ),
        )
        for y in ((1.0, -2.0), (2.0**100, 2.0**100), (2.0**-100, 0.0))
    ),
    *(
        _of_targets(
            "huber",
            _huber(delta),
            near=(0.0, delta),
            given={"delta": delta},
            # At the bend itself there is no second derivative.
            accept=lambda r, delta=delta: all(
                abs(abs(r[i + 2] - r[i]) - delta) > 0.02 for i in (0, 1)
            ),
        )
        for delta in (1.0, 0.25)
    ),
    _of_targets("log_cosh", _log_cosh, near=(0.0, 1.0)),
    _of_labels(
        "hinge",
        (-1.0, 1.0),
        _per_entry(lambda y, p: maximum(1 - y * p, 0)),
        accept=lambda r: r[0] != -1 and r[1] != 1,
    ),
    _of_labels(
        "squared_hinge",
        (-1.0, 1.0),
        _per_entry(lambda y, p: maximum(1 - y * p, 0) ** 2),
        accept=lambda r: r[0] != -1 and r[1] != 1,
    ),
    _of_labels(
        "categorical_hinge",
        _ONE_HOT,
        _categorical_hinge,
        accept=lambda r: len({*r, 0}) == 4,
        unit=lambda row: (1, 1, 1),
    ),
    _of_labels(
        "dice",
        (1.0, 0.0, 1.0),
        _dice,
        given={"axis": 1},
        domain=((0.0, 1.0),),
        near=(0.0, 1.0),
    ),
    _of_labels(
        "tversky",
        (1.0, 0.0, 1.0),
        _tversky,
        given={"axis": 1, "alpha": 0.25, "beta": 0.75},
        domain=((0.0, 1.0),),
        near=(0.0, 1.0),
    ),
    Entry(
        "losses.ctc",
        _ctc_rows(losses),
        _ctc,
        arity=9,
        keras=_ctc_rows(keras.losses),
        every=6,
        rows=((1e4, 0, 0) * 3, (0, 0, 0) * 3, (-6e4, 6e4, 0) * 3),
        **_CLASSES,
    ),
    Entry(
        "losses.circle",
        _circle_rows(losses),
        _circle,
        arity=6,
        outputs=3,
        domain=((-1.0, 1.0),),
        near=(0.0,),
        keras=_circle_rows(keras.losses),
        every=8,
        unit=lambda row: (1, 10, 100),
        accept=lambda r: all(
            abs(r[i] * r[j] + r[i + 1] * r[j + 1]) < 1
            for i, j in ((0, 2), (0, 4), (2, 4))
        ),
    ),
]
