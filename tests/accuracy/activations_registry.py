"""What every activation should compute, as a textbook has it."""

import keras
from mpmath import mpf

from stablekeras import activations
from tests.accuracy.jets import (
    Jet,
    erfc,
    exp,
    log,
    minimum,
    sigmoid,
    softplus,
    sqrt,
    tanh,
)
from tests.accuracy.measure import Entry

__all__ = ["ENTRIES", "NOT_NUMERIC"]

NOT_NUMERIC = {"get", "serialize", "deserialize"}


# Beyond the span a class has all or nothing: rows with the ends say so.
_SHARES = {
    "unit": lambda row: (1, 1, 1),
    "span": 120.0,
    "dps": 150,
    "rows": ((3e38, -3e38, 0, 1), (-6e4, -6e4, 6e4, 0), (0, 0, 0, 0)),
}


def _unary(name, formula, near=(0.0,), **kwargs):
    return Entry(
        f"activations.{name}",
        getattr(activations, name),
        lambda xs: formula(xs[0]),
        near=near,
        keras=getattr(keras.activations, name),
        **kwargs,
    )


def _softmax(xs):
    peak = max(x.value for x in xs)
    e = [exp(x - peak) for x in xs]
    return [v / sum(e) for v in e]


def _log_softmax(xs):
    peak = max(x.value for x in xs)
    total = log(sum(exp(x - peak) for x in xs))
    return [x - peak - total for x in xs]


def _sparsemax(xs):
    ordered = sorted((x.value for x in xs), reverse=True)
    size = max(
        k
        for k in range(1, len(xs) + 1)
        if 1 + k * ordered[k - 1] > sum(ordered[:k])
    )
    support = [x for x in xs if x.value >= ordered[size - 1]]
    cut = (sum(support, Jet(0)) - 1) / len(support)
    return [x - cut if x > cut else Jet(0) for x in xs]


def _gelu(x):
    return x * erfc(-x / Jet(_sqrt2())) / 2


def _sqrt2():
    import mpmath

    return mpmath.sqrt(2)


def _gelu_tanh(x):
    import mpmath

    root = Jet(mpmath.sqrt(2 / mpmath.pi))
    u = root * (x + Jet(mpf("0.044715")) * x**3)
    return x / (1 + exp(-2 * u))


def _elu(alpha, width=1, scale=1):
    alpha, width, scale = mpf(alpha), mpf(width), mpf(scale)
    return lambda x: (
        x * scale if x > 0 else (exp(x / width) - 1) * alpha * scale
    )


def _piece(x, low, high, below, between, above):
    return below(x) if x <= low else above(x) if x >= high else between(x)


def _zero(x):
    return Jet(0)


def _one(x):
    return Jet(1)


def _same(x):
    return x


ENTRIES = [
    _unary("celu", _elu(1)),
    Entry(
        "activations.celu",
        lambda x: activations.celu(x, alpha=0.7),
        lambda xs: _elu("0.7", "0.7")(xs[0]),
        keras=lambda x: keras.activations.celu(x, alpha=0.7),
    ),
    _unary("elu", _elu(1)),
    _unary(
        "selu",
        _elu(
            "1.6732632423543772848170429916717",
            scale="1.0507009873554804934193349852946",
        ),
    ),
    _unary("exponential", exp, near=(0.0, 80.0)),
    _unary("gelu", _gelu, near=(0.0, -0.7518, -5.0, -12.0)),
    Entry(
        "activations.gelu",
        lambda x: activations.gelu(x, approximate=True),
        lambda xs: _gelu_tanh(xs[0]),
        near=(0.0, -0.7524, -5.0, -9.0),
        keras=lambda x: keras.activations.gelu(x, approximate=True),
    ),
    Entry(
        "activations.glu",
        lambda x: activations.glu(x)[:, 0],
        lambda xs: xs[0] * sigmoid(xs[1]),
        arity=2,
        keras=lambda x: keras.activations.glu(x)[:, 0],
    ),
    _unary(
        "hard_shrink",
        lambda x: x if abs(x) > 0.5 else Jet(0),
        near=(0.5, -0.5),
    ),
    _unary(
        "hard_sigmoid",
        lambda x: _piece(x, -3, 3, _zero, lambda x: (x + 3) / 6, _one),
        near=(-3.0, 3.0, 0.0),
    ),
    _unary(
        "hard_silu",
        lambda x: _piece(x, -3, 3, _zero, lambda x: x * (x + 3) / 6, _same),
        near=(-3.0, 3.0, -1.5, 0.0),
    ),
    _unary(
        "hard_tanh",
        lambda x: _piece(x, -1, 1, lambda x: Jet(-1), _same, _one),
        near=(-1.0, 1.0),
    ),
    _unary("leaky_relu", lambda x: x if x > 0 else x * Jet(mpf("0.2"))),
    _unary("linear", _same),
    _unary("log_sigmoid", lambda x: -softplus(-x)),
    Entry(
        "activations.log_softmax",
        activations.log_softmax,
        _log_softmax,
        arity=4,
        outputs=4,
        **_SHARES,
        keras=keras.activations.log_softmax,
        near=(0.0, 50.0),
    ),
    _unary("mish", lambda x: x * tanh(softplus(x)), near=(0.0, -1.1924, -20.0)),
    _unary("relu", lambda x: x if x > 0 else Jet(0)),
    Entry(
        "activations.relu",
        lambda x: activations.relu(x, 0.25, 6.0, 0.5),
        lambda xs: (
            minimum(xs[0], 6) if xs[0] > 0.5 else (xs[0] - 0.5) * Jet(0.25)
        ),
        near=(0.5, 6.0),
        keras=lambda x: keras.activations.relu(x, 0.25, 6.0, 0.5),
    ),
    _unary(
        "relu6",
        lambda x: _piece(x, 0, 6, _zero, _same, lambda x: Jet(6)),
        near=(0.0, 6.0),
    ),
    _unary("sigmoid", sigmoid),
    _unary("silu", lambda x: x * sigmoid(x), near=(0.0, -1.2785, -20.0)),
    _unary(
        "soft_shrink",
        lambda x: _piece(
            x, -0.5, 0.5, lambda x: x + 0.5, _zero, lambda x: x - 0.5
        ),
        near=(0.5, -0.5),
    ),
    Entry(
        "activations.softmax",
        activations.softmax,
        _softmax,
        arity=4,
        outputs=4,
        **_SHARES,
        keras=keras.activations.softmax,
        near=(0.0, 50.0),
    ),
    _unary("softplus", softplus),
    _unary("softsign", lambda x: x / (1 + abs(x)), corners=(0.0,)),
    _unary(
        "sparse_plus",
        lambda x: _piece(
            x, -1, 1, _zero, lambda x: (x + 1) * (x + 1) / 4, _same
        ),
        near=(-1.0, 1.0),
    ),
    _unary(
        "sparse_sigmoid",
        lambda x: _piece(x, -1, 1, _zero, lambda x: (x + 1) / 2, _one),
        near=(-1.0, 1.0),
    ),
    Entry(
        "activations.sparsemax",
        activations.sparsemax,
        _sparsemax,
        arity=4,
        outputs=4,
        **_SHARES,
        keras=keras.activations.sparsemax,
        near=(0.0, 0.5),
    ),
    _unary(
        "squareplus",
        lambda x: (x + sqrt(x * x + 4)) / 2,
        near=(0.0, -20.0),
    ),
    _unary("tanh", tanh, near=(0.0, 0.55)),
    _unary("tanh_shrink", lambda x: x - tanh(x), near=(0.0, 0.85)),
    Entry(
        "activations.threshold",
        lambda x: activations.threshold(x, 0.5, -2.0),
        lambda xs: xs[0] if xs[0] > 0.5 else Jet(-2),
        near=(0.5,),
        keras=lambda x: keras.activations.threshold(x, 0.5, -2.0),
    ),
]
