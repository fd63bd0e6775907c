"""Formulas to emit: small trees whose leaves are tensors of the graph."""

import numpy as np
import tensorflow as tf

from stablekeras.graphs.emit import copy_op

__all__ = [
    "Leaf",
    "Number",
    "Term",
    "leaves_of",
    "moved",
    "moved_place",
    "name_of",
    "raw",
]

# Ops that move entries and do no more: the place of the input they move.
_MOVES = {
    "Reshape": 0,
    "Squeeze": 0,
    "ExpandDims": 0,
    "Transpose": 0,
    "GatherV2": 0,
    "GatherNd": 0,
    "StridedSlice": 0,
    "Slice": 0,
    "BroadcastTo": 0,
    "Tile": 0,
    "StopGradient": 0,
    "ReverseV2": 0,
    "Roll": 0,
    "DiagPart": 0,
    "MatrixDiagPart": 0,
    "MatrixDiagPartV2": 0,
    "MatrixDiagPartV3": 0,
    "Unpack": 0,
    "Split": 1,
    "SplitV": 0,
}


class Term:
    """One operation of a formula.

    Args:
        function: Function of the emitted arguments.
        args: Terms.
        text: How it reads, with `{0}`, `{1}` for the arguments.
    """

    def __init__(self, function, args, text):
        self.function = function
        self.args = tuple(args)
        self.text = text
        self.is_total = False

    def emit(self, get, work, memo):
        """Emits the formula in the current graph.

        Args:
            get: Returns the tensor that stands for a leaf.
            work: Dtype to compute in.
            memo: What was emitted already, by term.
        """
        if id(self) not in memo:
            args = [arg.emit(get, work, memo) for arg in self.args]
            memo[id(self)] = (self.function(*args), self)
        return memo[id(self)][0]

    def __str__(self):
        return self.text.format(*map(str, self.args))


class Leaf(Term):
    """A tensor of the graph, cast to the dtype of the formula."""

    def __init__(self, tensor, cast=True):
        super().__init__(None, (), "")
        self.tensor = tensor
        self.cast = cast
        self.is_shape = False

    def emit(self, get, work, memo):
        """Emits nothing: returns what stands for the tensor."""
        value = get(self.tensor)
        if self.cast and value.dtype != work:
            value = tf.cast(value, work)
        return value

    def __str__(self):
        return name_of(self.tensor)


class Number(Term):
    """A constant of the formula."""

    def __init__(self, value):
        super().__init__(None, (), "")
        self.value = float(value)

    def emit(self, get, work, memo):
        """Emits the constant."""
        return tf.constant(self.value, work)

    def __str__(self):
        return f"{self.value:g}"


def raw(tensor, is_shape=False):
    """Returns a leaf in its own dtype: a mask, an index.

    Args:
        tensor: The tensor.
        is_shape: Whether only its shape is read.
    """
    leaf = Leaf(tensor, cast=False)
    leaf.is_shape = is_shape
    return leaf


def moved_place(op):
    """Returns the place of the input that an op only moves, or `None`."""
    if op.type in ("MatrixDiagPartV2", "MatrixDiagPartV3"):
        # Several diagonals are filled up with a value of its own.
        diagonals = tf.get_static_value(op.inputs[1])
        if diagonals is None or np.ndim(diagonals):
            return None
    return _MOVES.get(op.type)


def moved(op, term, place=0, output=0):
    """Returns the term under an op that moves entries, or casts them."""
    if op.type == "Cast":
        return term
    others = [raw(t) for i, t in enumerate(op.inputs) if i != place]

    def move(value, *rest):
        inputs = list(rest)
        inputs.insert(place, value)
        return copy_op(op, inputs)[output]

    return Term(move, [term, *others], f"{op.type.lower()}({{0}})")


def leaves_of(term, shapes=True):
    """Yields the tensors that a formula reads.

    Args:
        term: The `Term`.
        shapes: Whether to yield also those of which only the shape is read.
    """
    seen, pending = set(), [term]
    while pending:
        top = pending.pop()
        if id(top) in seen:
            continue
        seen.add(id(top))
        if isinstance(top, Leaf) and (shapes or not top.is_shape):
            yield top.tensor
        pending += top.args


def name_of(tensor):
    """Returns a short name of a tensor: the last part of its op's name."""
    return tensor.op.name.rsplit("/", 1)[-1]
