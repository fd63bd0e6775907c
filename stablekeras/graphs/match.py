"""Patterns over the producers of a tensor: what formula made it.

A pattern is matched against a *view*: anything with `type`, `inputs` (views of
the producers, in order), `constant` (a NumPy array, or `None`) and `key`
(equal for the same tensor). A static graph and a run both offer views, so one
pattern serves the rewriter and the diagnosis.

>>> from stablekeras.graphs.match import anything, op
>>> pattern = op("Log", op("Softmax", anything("logits")))
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "LOOKED_THROUGH",
    "Pattern",
    "anything",
    "constant",
    "either",
    "look_through",
    "op",
]

# Ops that leave the values as they are, or only move them.
LOOKED_THROUGH = frozenset(
    {
        "Cast",
        "Identity",
        "StopGradient",
        "Reshape",
        "Squeeze",
        "ExpandDims",
        "Transpose",
        "Snapshot",
        "PreventGradient",
        "CheckNumerics",
        "EnsureShape",
        "BroadcastTo",
        "Tile",
        "IdentityN",
        "Slice",
        "StridedSlice",
        "GatherV2",
        "GatherNd",
        "Pack",
        "ConcatV2",
        "Split",
        "SplitV",
        "Unpack",
        "MatrixDiagPart",
        "MatrixDiagPartV3",
        "ReverseV2",
        "Pad",
        "PadV2",
    }
)
_SWAPS = frozenset({"Add", "AddV2", "Mul", "Maximum", "Minimum"})

_Match = Callable[[Any, dict], Any]


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A formula to look for.

    Args:
        matcher: Function of a view and the captures so far; returns the
            captures extended, or `None`.
    """

    matcher: _Match

    def match(self, view, captures=None):
        """Returns the captured views by name, or `None`."""
        if view is None:
            return None
        return self.matcher(view, dict(captures or {}))


def anything(name=None):
    """Matches any tensor; the same name must be the same tensor."""

    def matcher(view, captures):
        if name is None:
            return captures
        source = look_through(view)
        if name in captures and look_through(captures[name]).key != source.key:
            return None
        return {**captures, name: captures.get(name, view)}

    return Pattern(matcher)


def constant(test=None, name=None):
    """Matches a constant, looking through casts.

    Args:
        test: A number that every entry equals (to 1e-6 of it), or a function
            of the array that returns a bool; `None` takes any constant.
        name: Name to capture it under.
    """

    def matcher(view, captures):
        value = look_through(view).constant
        if value is None or not np.size(value):
            return None
        if callable(test):
            fits = test(np.asarray(value))
        elif test is None:
            fits = True
        else:
            wanted = np.float64(test)
            given = np.asarray(value, np.float64)
            fits = bool(np.all(np.abs(given - wanted) <= 1e-6 * abs(wanted)))
        if not fits:
            return None
        return captures if name is None else {**captures, name: view}

    return Pattern(matcher)


def op(types, *inputs, name=None, through=LOOKED_THROUGH):
    """Matches an op by type and by the patterns of its first inputs.

    Args:
        types: An op type, or several.
        *inputs: Patterns of its inputs. Sums, products, maxima and minima
            are tried in both orders.
        name: Name to capture the op under.
        through: Op types to look through on the way to it.
    """
    wanted = {types} if isinstance(types, str) else set(types)

    def matcher(view, captures):
        view = look_through(view, through, wanted)
        if view.type not in wanted or len(view.inputs) < len(inputs):
            return None
        orders = [view.inputs]
        if view.type in _SWAPS and len(inputs) == 2:
            orders.append(view.inputs[::-1])
        for order in orders:
            found = captures
            for pattern, producer in zip(inputs, order, strict=False):
                found = pattern.match(producer, found)
                if found is None:
                    break
            else:
                return found if name is None else {**found, name: view}
        return None

    return Pattern(matcher)


def either(*patterns):
    """Matches the first of several patterns that fits."""

    def matcher(view, captures):
        for pattern in patterns:
            found = pattern.match(view, captures)
            if found is not None:
                return found
        return None

    return Pattern(matcher)


def look_through(view, through=LOOKED_THROUGH, stop=()):
    """Returns the first producer that does more than move or cast."""
    while view.type in through and view.type not in stop and view.inputs:
        places = [1] if view.type == "Split" else [0]
        view = view.inputs[places[0]]
    return view
