"""Measures a function against the oracle, in ULP beyond conditioning."""

import dataclasses
import math
import zlib
from collections.abc import Callable

import numpy as np
from mpmath import mpf

from tests.accuracy.backends import derivatives
from tests.accuracy.formats import DTYPES, format_of, grid
from tests.accuracy.oracle import truth

__all__ = ["Entry", "Figure", "measure"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One public function: what it should compute, and where it is asked.

    Attributes:
        name: Its public name, `"ops.softplus"`.
        function: Takes a tensor of shape `(rows, n)`; a function of one
            number gets it whole and sees `n = 1`.
        formula: The same of a list of `n` jets; returns a jet or a list.
        arity: `n`.
        domain: For each input its `(low, high)`; the last one repeats.
        near: Points around which inputs crowd.
        rows: Extra rows that are always asked.
        keras: The Keras function to compare with, or `None`.
        outputs: How many outputs a row has.
        unit: Function of the row; ULPs of value, gradient and second
            derivative are counted on no less than its three results. For sums
            over classes these are 1: one class's share cannot be had better
            than the whole.
        accept: Function of the row that says whether it belongs to the
            domain, for domains that are no boxes.
        span: Largest size of inputs that are drawn, or `None`.
        dps: Digits of the oracle; by default what the row needs.
        corners: Inputs where the second derivative does not exist.
        dtypes: The formats it is measured in.
        every: Ask only one row in so many; for functions that take the rows
            one by one.
    """

    name: str
    function: Callable
    formula: Callable
    arity: int = 1
    domain: tuple = ((-math.inf, math.inf),)
    near: tuple = (0.0,)
    rows: tuple = ()
    keras: Callable | None = None
    outputs: int = 1
    unit: Callable = lambda row: (0, 0, 0)
    accept: Callable | None = None
    span: float | None = None
    dps: int | None = None
    corners: tuple = ()
    dtypes: tuple = DTYPES
    every: int = 1


@dataclasses.dataclass
class Figure:
    """The worst that was seen of one function, dtype and mode.

    `value`, `gradient` and `curve` count ULPs beyond conditioning; infinity
    stands for an answer that is not finite where the truth is. The `_at`
    attributes hold the row, the answer and the truth.
    """

    value: float = 0.0
    gradient: float = 0.0
    curve: float = 0.0
    value_at: tuple | None = None
    gradient_at: tuple | None = None
    curve_at: tuple | None = None

    def see(self, what, ulps, at):
        if ulps > getattr(self, what):
            setattr(self, what, ulps)
            setattr(self, f"{what}_at", at)


def rows_of(entry, fmt, count, seed):
    """Draws the rows at which an entry is asked in one format."""
    key = f"{entry.name}/{fmt.name}/{seed}".encode()
    rng = np.random.default_rng(zlib.crc32(key))
    columns = []
    for k in range(entry.arity):
        low, high = entry.domain[min(k, len(entry.domain) - 1)]
        if entry.span:
            low, high = max(low, -entry.span), min(high, entry.span)
        points = grid(fmt, rng, count, low, high, entry.near)
        columns.append(points if k == 0 else rng.permutation(points))
    size = min(len(c) for c in columns)
    rows = np.stack([c[:size] for c in columns], axis=1)
    if entry.rows:
        extra = fmt.round(np.asarray(entry.rows, "float64"))
        rows = np.concatenate([rows, extra.reshape(-1, entry.arity)])
    keep = [
        all(math.isfinite(x) for x in r)
        and not any(0 < abs(x) < fmt.tiny for x in r)
        and (entry.accept is None or entry.accept(list(map(mpf, r))))
        for r in rows
    ]
    return rows[np.asarray(keep)][:: entry.every]


def truths_of(entry, fmt, rows, weights):
    found, kept = [], []
    for row in rows:
        try:
            found.append(
                truth(entry.formula, list(row), fmt, weights, entry.dps)
            )
            kept.append(row)
        except (ValueError, ZeroDivisionError, TypeError):
            continue  # the truth is not finite here
    return np.asarray(kept), found


def weights_of(entry):
    """Uneven weights, so that no gradient vanishes by symmetry."""
    return [1.0, -0.5, 2.0, 0.25, -1.0, 0.5, 1.5, -2.0][: entry.outputs]


def questions(entry, count=30, seed=0, dtypes=None):
    """Returns `{dtype: (rows, truths)}`, the same for every mode and rival."""
    asked = {}
    for dtype in dtypes or entry.dtypes:
        fmt = format_of(dtype)
        rows = rows_of(entry, fmt, count, seed)
        asked[dtype] = truths_of(entry, fmt, rows, weights_of(entry))
    return asked


def measure(entry, asked, mode, function=None, second=True):
    """Asks `function` (the entry's own by default) all questions.

    Returns:
        `{dtype: Figure}`.
    """
    function = function or entry.function
    inputs = [
        rows.astype(format_of(dtype).numpy)
        for dtype, (rows, _) in asked.items()
    ]
    weights = np.asarray(weights_of(entry))
    weights = weights if entry.outputs > 1 else weights[0]
    answers = derivatives(function, inputs, weights, mode, second)
    figures = {}
    for (dtype, (rows, truths)), answer in zip(
        asked.items(), answers, strict=True
    ):
        figures[dtype] = _judge(entry, format_of(dtype), rows, truths, answer)
    return figures


def _judge(entry, fmt, rows, truths, answer):
    values, gradients, curves = answer
    values = values.reshape(len(rows), -1)
    figure = Figure()
    for i, exact in enumerate(truths):
        row = tuple(map(float, rows[i]))
        unit = entry.unit(row)
        value = values[i], exact.value, exact.value_slack
        gradient = gradients[i], exact.gradient, exact.gradient_slack
        curve = curves[i][:1], [exact.curve], [exact.curve_slack]
        # The number: below so many times the smallest normal number an
        # answer may be 0, as a factor of it may have been flushed.
        asked = (
            ("value", *value, 1),
            ("gradient", *gradient, 16),
            ("curve", *curve, 4096),
        )
        for (what, gots, wants, slacks, flush), least in zip(
            asked, unit, strict=True
        ):
            if what == "curve" and row[0] in entry.corners:
                continue
            for got, want, slack in zip(gots, wants, slacks, strict=True):
                ulps = _ulps(got, want, slack, fmt, least, flush)
                figure.see(what, ulps, (row, float(got), float(want)))
    return figure


def _ulps(got, want, slack, fmt, least, flush):
    if not abs(want) <= fmt.max:
        return 0.0  # not representable
    if not math.isfinite(got):
        # One rounding away from the largest number, infinity is fair.
        fair = abs(want) + slack + 4 * fmt.ulp(want) > fmt.max
        return 0.0 if fair and not math.isnan(got) else math.inf
    error = max(mpf(0), abs(mpf(float(got)) - want) - slack)
    if abs(want) < flush * fmt.tiny:
        error = max(mpf(0), error - flush * fmt.tiny)  # may flush
    return float(error / fmt.ulp(max(abs(want), least)))
