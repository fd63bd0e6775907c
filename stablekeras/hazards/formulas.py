"""Formulas that several hazards share, as patterns."""

import numpy as np

from stablekeras.graphs.match import (
    LOOKED_THROUGH,
    anything,
    constant,
    either,
    op,
)

__all__ = [
    "ADD",
    "DIVIDE",
    "GUARDS",
    "NEAR",
    "NORM",
    "ONE_MINUS",
    "SIGMOID",
    "SOFTMAX",
    "SPREAD",
    "SUM_OF_EXP",
    "SUM_OF_SQUARES",
    "guarded",
]

ADD = ("Add", "AddV2")
DIVIDE = ("RealDiv", "Div")
# Also through what cannot change a probability.
NEAR = LOOKED_THROUGH | {"Relu", "Abs"}

_X = anything("x")
_EXP = op("Exp", _X)
_ONE = constant(1.0)
_SHIFTED = op("Exp", op("Sub", _X, op("Max", _X)))

SUM_OF_EXP = op("Sum", either(_SHIFTED, _EXP))

SOFTMAX = either(
    op("Softmax", _X, through=NEAR),
    op(DIVIDE, _SHIFTED, op("Sum", _SHIFTED), through=NEAR),
    op(DIVIDE, _EXP, op("Sum", _EXP), through=NEAR),
    op("Exp", op("LogSoftmax", _X), through=NEAR),
)

_NEGATED = op("Exp", op("Neg", _X))
SIGMOID = either(
    op("Sigmoid", _X, through=NEAR),
    op(DIVIDE, _ONE, op(ADD, _ONE, either(_NEGATED, _EXP)), through=NEAR),
    op(
        ("Reciprocal", "Inv"),
        op(ADD, _ONE, either(_NEGATED, _EXP)),
        through=NEAR,
    ),
    op(DIVIDE, _EXP, op(ADD, _ONE, _EXP), through=NEAR),
    op(
        "Pow",
        op(ADD, _ONE, either(_NEGATED, _EXP)),
        constant(-1.0),
        through=NEAR,
    ),
    op(
        "Mul",
        constant(0.5),
        op(ADD, _ONE, op("Tanh", _X)),
        through=NEAR,
    ),
    op(DIVIDE, op(ADD, _ONE, op("Tanh", _X)), constant(2.0), through=NEAR),
)


def _small(value):
    return bool(np.all(np.abs(value.astype(np.float64)) < 1e-2))


def _one(value):
    return bool(np.all(np.abs(value.astype(np.float64) - 1.0) < 1e-2))


GUARDS = ("Maximum", "Minimum", "ClipByValue")


def guarded(pattern):
    """Returns a pattern for a formula with or without an epsilon around."""
    tiny = constant(_small, name="epsilon")
    bound = either(
        constant(_small, name="epsilon"), constant(_one, name="bound")
    )
    once = either(
        op(ADD, pattern, tiny),
        op("Maximum", pattern, bound),
        op("Minimum", pattern, bound),
        op("ClipByValue", pattern, name="clip"),
    )
    twice = either(
        op("Maximum", once, bound),
        op("Minimum", once, bound),
        op(ADD, once, tiny),
    )
    return either(twice, once, pattern)


def ONE_MINUS(pattern):
    """Returns a pattern for one minus a formula."""
    one = constant(_one, name="one")
    return either(
        op("Sub", one, pattern),
        op(ADD, one, op("Neg", pattern)),
        op("Sub", op(ADD, one, constant(_small, name="epsilon")), pattern),
    )


_SUMS = ("Sum", "Mean")
_GRAM = op(("MatMul", "BatchMatMulV2", "BatchMatMul"), anything(), anything())
_CROSS = either(
    op("Mul", constant(2.0), _GRAM), op("Mul", constant(-2.0), _GRAM)
)
SUM_OF_SQUARES = either(
    op(_SUMS, op("Square", _X)),
    op(_SUMS, op("Mul", _X, _X)),
    op(_SUMS, op("Pow", _X, constant(2.0))),
    op(_SUMS, op("SquaredDifference", anything("a"), anything("b"))),
    op(_SUMS, op("Mul", _X, op("Conj", _X))),
    op(_SUMS, op("Pow", op("Abs", _X), constant(2.0))),
    # |a|^2 - 2 a.b + |b|^2
    op(ADD, op("Sub", anything(), _CROSS), anything()),
    op("Sub", op(ADD, anything(), anything()), _CROSS),
    op(ADD, op(ADD, anything(), _CROSS), anything()),
    op(ADD, op(ADD, anything(), anything()), _CROSS),
)
NORM = either(
    op("Sqrt", SUM_OF_SQUARES),
    op("Pow", SUM_OF_SQUARES, constant(0.5)),
    op("Sqrt", op("Maximum", SUM_OF_SQUARES, constant())),
    op("EuclideanNorm", _X),
)
_CENTRED = op("Sub", _X, op("Mean", _X))
_MOMENT = either(
    op("Mean", op("Square", _CENTRED)),
    op("Mean", op("SquaredDifference", _X, op("Mean", _X))),
    op("Mean", op("Mul", _CENTRED, _CENTRED)),
    op("Mean", op("Pow", _CENTRED, constant(2.0))),
    op("Mean", op("Square", op("Abs", _CENTRED))),
)
SPREAD = either(
    op("Sqrt", _MOMENT),
    op("Pow", _MOMENT, constant(0.5)),
    op("Sqrt", op("Maximum", _MOMENT, constant())),
    _MOMENT,
)
