"""What can be known of a tensor without running anything."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from stablekeras.graphs.emit import has_own_gradient
from stablekeras.rewrite.terms import moved_place

__all__ = ["Reading", "is_float"]

# Ops that hand their first input on as it is.
_SAME = frozenset({"Identity", "Snapshot", "EnsureShape", "PreventGradient"})
# Ops that repeat one number: the place of the input, or the number.
_FILLED = {
    "ZerosLike": (None, 0.0),
    "OnesLike": (None, 1.0),
    "Fill": (1, None),
    "BroadcastTo": (0, None),
}
# The place of the diagonal, and inputs that say it is the main one.
_DIAGONALS = {
    "MatrixDiagV3": (0, {1: 0, 2: -1, 3: -1}),
    "MatrixSetDiagV3": (1, {2: 0}),
}
_ANY = (-math.inf, math.inf)


def is_float(tensor):
    """Returns whether a tensor is real and floating."""
    return tensor.dtype.is_floating


class Reading:
    """Producers, constants and bounds of tensors, each found once."""

    def __init__(self):
        self._bounds: dict = {}
        self._constants = {}
        self._captures = {}
        self.aliases = {}
        self._keys: dict = {}
        self._first: dict = {}

    def source(self, tensor):
        """Returns the tensor behind identities, float casts and captures."""
        for _ in range(100):
            op = getattr(tensor, "op", None)
            if op is None:
                return tensor
            if id(tensor) in self.aliases:
                tensor = self.aliases[id(tensor)]
            elif (op.type in _SAME and not has_own_gradient(op)) or (
                op.type == "Cast"
                and is_float(tensor)
                and is_float(op.inputs[0])
            ):
                tensor = op.inputs[0]
            elif (inner := _diagonal_put(op)) is not None:
                tensor = inner
            elif op.type == "Placeholder":
                outer = self._captured(tensor)
                if outer is None:
                    return tensor
                tensor = outer
            else:
                return tensor
        return tensor

    def _captured(self, tensor):
        graph = tensor.graph
        if graph not in self._captures:
            pairs = getattr(graph, "captures", None) or ()
            self._captures[graph] = {id(inner): outer for outer, inner in pairs}
        outer = self._captures[graph].get(id(tensor))
        if outer is None or not tf.is_symbolic_tensor(outer):
            return None
        return outer

    def constant(self, tensor):
        """Returns the static value of a tensor, or `None`."""
        key = id(tensor)
        if key not in self._constants:
            value = None
            source = self.source(tensor)
            if source.shape.num_elements() is not None:
                value = tf.get_static_value(source)
            self._constants[key] = (value, tensor)
        return self._constants[key][0]

    def scalar(self, tensor):
        """Returns the one number a constant is made of, or `None`."""
        value = self.constant(tensor)
        if value is None:
            op = getattr(self.source(tensor), "op", None)
            if op is None or op.type not in _FILLED:
                return None
            place, number = _FILLED[op.type]
            return number if place is None else self.scalar(op.inputs[place])
        if np.size(value) == 0:
            return None
        flat = np.asarray(value).ravel()
        if flat.dtype.kind not in "fiu" and flat.dtype.name != "bfloat16":
            return None
        first = float(flat[0])
        return first if np.all(flat == flat[0]) else None

    def bounds(self, tensor, depth=0):
        """Returns numbers that a real value cannot leave: `(low, high)`."""
        key = id(tensor)
        if key not in self._bounds:
            found = _ANY
            if depth < 40:
                found = self._find_bounds(self.source(tensor), depth + 1)
            self._bounds[key] = (found, tensor)
        return self._bounds[key][0]

    def _find_bounds(self, tensor, depth):
        number = self.constant(tensor)
        if number is not None and np.size(number):
            array = np.asarray(number)
            if array.dtype.kind in "fiu":
                return float(array.min()), float(array.max())
        op = getattr(tensor, "op", None)
        if op is None:
            return _ANY
        rule = _BOUNDS.get(op.type)
        place = 0 if op.type in ("Max", "Min") else moved_place(op)
        if place is not None:
            return self.bounds(op.inputs[place], depth)
        if op.type == "Cast" and op.inputs[0].dtype == tf.bool:
            return 0.0, 1.0
        if op.type in ("Select", "SelectV2"):
            return self._select_bounds(op, depth)
        if op.type in ("Pack", "AddN", "ConcatV2"):
            given = [t for t in op.inputs if is_float(t)]
            found = [self.bounds(t, depth) for t in given]
            if op.type == "AddN":
                return sum(f[0] for f in found), sum(f[1] for f in found)
            return _hull(*found)
        if op.type == "Sub" and self.shift(op.outputs[0]) is not None:
            return -math.inf, 0.0
        if op.type == "Sum":
            return self._sum_bounds(op, depth)
        if op.type == "Mul" and self.same(op.inputs[0], op.inputs[1]):
            return 0.0, math.inf
        if rule is None:
            return _ANY
        found = rule(*[self.bounds(t, depth) for t in op.inputs])
        if any(math.isnan(x) for x in found):
            return _ANY
        return found

    def _sum_bounds(self, op, depth):
        low, high = self.bounds(op.inputs[0], depth)
        size = op.inputs[0].shape.num_elements()
        # Of an unknown number of entries, a number that none reaches.
        size = 1e9 if size is None else float(size)
        if size == 0:
            return 0.0, 0.0
        low = _times(low, size) if low < 0 else 0.0
        high = _times(high, size) if high > 0 else 0.0
        return (1.0 if self.is_shifted_sum(op.outputs[0]) else low), high

    def _select_bounds(self, op, depth):
        """Returns the bounds of a choice, by the sign of `x` where told."""
        chosen, a, b = op.inputs
        found = [self.bounds(a, depth), self.bounds(b, depth)]
        test = self.source(chosen).op
        sign = {"Greater": 1, "GreaterEqual": 1, "Less": -1, "LessEqual": -1}
        if test.type in sign and self.scalar(test.inputs[1]) == 0.0:
            x = test.inputs[0]
            for place, (branch, side) in enumerate(((a, 1), (b, -1))):
                inner = self.source(branch)
                side *= sign[test.type]
                if inner.op.type == "Neg" and self.same(inner.op.inputs[0], x):
                    side = -side
                elif not self.same(inner, x):
                    continue
                low, high = found[place]
                found[place] = (
                    (max(low, 0.0), high) if side > 0 else (low, min(high, 0.0))
                )
        return _hull(*found)

    def same(self, a, b):
        """Returns whether two tensors are computed alike from the same."""
        return self.canonical(a) is self.canonical(b)

    def canonical(self, tensor):
        """Returns the first tensor seen that is computed as this one is."""
        source = self.source(tensor)
        return self._first.setdefault(self._key(source, 0), source)

    def _key(self, tensor, depth):
        tensor = self.source(tensor)
        if id(tensor) not in self._keys:
            op = getattr(tensor, "op", None)
            key: Any = id(tensor)
            if (
                op is not None
                and depth < 30
                and not op.op_def.is_stateful
                and op.type not in ("Placeholder", "Split", "Unpack")
                and len(op.outputs) == 1
                and not any(
                    a.func.name or a.list.func
                    for a in op.node_def.attr.values()
                )
            ):
                inputs = tuple(self._key(t, depth + 1) for t in op.inputs)
                key = (op.type, inputs, _attributes(op))
                # Short keys keep the comparison of deep formulas cheap.
                key = self._first.setdefault(("key", key), len(self._first))
                key = ("formula", key)
            self._keys[id(tensor)] = (key, tensor)
        return self._keys[id(tensor)][0]

    def shift(self, tensor):
        """Returns `(x, m, axes)` of `x - max(x, axes)`, or `None`."""
        op = self.source(tensor).op
        if op.type != "Sub":
            return None
        x, m = op.inputs[0], op.inputs[1]
        top = self.source(m)
        while top.op.type in ("StopGradient", "Select", "SelectV2", "Cast"):
            top = self.source(
                top.op.inputs[0 if len(top.op.inputs) == 1 else 1]
            )
        if top.op.type != "Max" or not self.same(top.op.inputs[0], x):
            return None
        axes = self.axes(top.op)
        return None if axes is None else (x, m, axes)

    def is_shifted_sum(self, tensor):
        """Returns whether it is `sum(exp(x - max(x)))` over the same axes."""
        op = self.source(tensor).op
        if op.type != "Sum":
            return False
        inner = self.source(op.inputs[0])
        if inner.op.type != "Exp":
            return False
        shift = self.shift(inner.op.inputs[0])
        return shift is not None and shift[2] == self.axes(op)

    def axes(self, op):
        """Returns the axes a reduction goes over, counted from 0."""
        value = self.constant(op.inputs[1])
        rank = op.inputs[0].shape.rank
        if value is None:
            if rank is not None and op.inputs[1].op.type == "Range":
                return tuple(range(rank))
            return None
        found = [int(a) for a in np.ravel(value)]
        if rank is None:
            return tuple(sorted(found)) if min(found, default=0) >= 0 else None
        return tuple(sorted(a % rank for a in found))


def _diagonal_put(op):
    """Returns what was put on the diagonal that an op takes, or `None`."""
    if op.type != "MatrixDiagPartV3" or not _is(op.inputs[1], 0):
        return None
    made = op.inputs[0].op
    place, whole = _DIAGONALS.get(made.type, (None, {}))
    if not all(_is(made.inputs[i], n) for i, n in whole.items()):
        return None
    return None if place is None else made.inputs[place]


def _is(tensor, number):
    return np.array_equal(tf.get_static_value(tensor), number)


def _attributes(op):
    return tuple(
        (name, value.SerializeToString(deterministic=True))
        for name, value in sorted(op.node_def.attr.items())
        if not name.startswith("_")
    )


def _hull(*found):
    return min(f[0] for f in found), max(f[1] for f in found)


def _exp(x):
    if math.isnan(x):
        return math.nan
    return math.inf if x > 700 else math.exp(x)


def _product(a, b):
    ends = [_times(x, y) for x in a for y in b]
    return min(ends), max(ends)


def _times(x, y):
    return 0.0 if x == 0 or y == 0 else x * y


def _quotient(a, b):
    if b[0] <= 0 <= b[1]:
        return (0.0, math.inf) if a[0] >= 0 and b[0] >= 0 else _ANY
    return _product(a, (1 / b[1] if b[1] else 0, 1 / b[0] if b[0] else 0))


def _square(x):
    low = 0.0 if x[0] <= 0 <= x[1] else min(x[0] ** 2, x[1] ** 2)
    return low, max(_times(x[0], x[0]), _times(x[1], x[1]))


def _absolute(x):
    low = 0.0 if x[0] <= 0 <= x[1] else min(abs(x[0]), abs(x[1]))
    return low, max(abs(x[0]), abs(x[1]))


def _power(x, c):
    if x[0] >= 0:
        return 0.0, math.inf
    if c[0] == c[1] and c[0] % 2 == 0:
        return 0.0, math.inf
    return _ANY


_BOUNDS: dict[str, Any] = {
    "Exp": lambda x: (_exp(x[0]), _exp(x[1])),
    "Expm1": lambda x: (_exp(x[0]) - 1, _exp(x[1]) - 1),
    "Sigmoid": lambda x: (0.0, 1.0),
    "Softmax": lambda x: (0.0, 1.0),
    "LogSoftmax": lambda x: (-math.inf, 0.0),
    "Softplus": lambda x: (0.0, math.inf),
    "Tanh": lambda x: (-1.0, 1.0),
    "Erf": lambda x: (-1.0, 1.0),
    "Erfc": lambda x: (0.0, 2.0),
    "Sin": lambda x: (-1.0, 1.0),
    "Cos": lambda x: (-1.0, 1.0),
    "Relu": lambda x: (max(x[0], 0.0), max(x[1], 0.0)),
    "Relu6": lambda x: (0.0, 6.0),
    "Abs": _absolute,
    "Square": _square,
    "SquaredDifference": lambda a, b: (0.0, math.inf),
    "Sqrt": lambda x: (math.sqrt(max(x[0], 0.0)), math.inf),
    "Rsqrt": lambda x: (0.0, math.inf),
    "Neg": lambda x: (-x[1], -x[0]),
    "Add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "AddV2": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "Sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "Mul": _product,
    "RealDiv": _quotient,
    "Reciprocal": lambda x: _quotient((1.0, 1.0), x),
    "Inv": lambda x: _quotient((1.0, 1.0), x),
    "Maximum": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "Minimum": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "ClipByValue": lambda x, a, b: (
        min(max(x[0], a[0]), b[1]),
        max(min(x[1], b[1]), a[0]),
    ),
    "Mean": lambda x, axes: x,
    "Prod": lambda x, axes: (0.0, math.inf) if x[0] >= 0 else _ANY,
    "Pow": _power,
    "OneHot": lambda *x: _hull(x[2], x[3]),
    "Log1p": lambda x: (0.0 if x[0] >= 0 else -math.inf, math.inf),
}
