"""Where the value of a tensor is needed: what selects and masks leave out.

A tensor whose entries are all needed has the need `None`. Else its need is a
tuple of alternatives, one a use, each a tuple of conditions that hold where
that use looks at it.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from stablekeras.rewrite.reading import is_float

__all__ = ["Condition", "mask_of", "masked_by", "needs"]

_UNARY = frozenset(
    {
        "Neg",
        "Abs",
        "Square",
        "Sqrt",
        "Rsqrt",
        "Exp",
        "Expm1",
        "Log",
        "Log1p",
        "Reciprocal",
        "Inv",
        "Cast",
        "Identity",
        "StopGradient",
        "Relu",
        "Sigmoid",
        "Tanh",
        "Softplus",
        "Sign",
        "Acos",
        "Asin",
        "Atanh",
        "Acosh",
        "Erf",
        "Erfc",
        "Erfinv",
        "Ndtri",
        "Lgamma",
        "Digamma",
        "Sin",
        "Cos",
        "Tan",
        "Sinh",
        "Cosh",
        "Floor",
        "ClipByValue",
        "Elu",
        "Softsign",
    }
)
_BINARY = frozenset(
    {
        "Add",
        "AddV2",
        "Sub",
        "Mul",
        "RealDiv",
        "Div",
        "Maximum",
        "Minimum",
        "Pow",
        "SquaredDifference",
        "Xlogy",
        "Xdivy",
        "MulNoNan",
        "DivNoNan",
        "AddN",
        "Xlog1py",
    }
)
_SELECTS = ("Select", "SelectV2")
_MOST = 4


@dataclasses.dataclass(eq=False)
class Condition:
    """Where a use looks at a tensor.

    Args:
        kind: `"mask"`: a bool tensor, true there; `"weight"`: a factor, not
            zero there.
        tensor: The tensor.
        wanted: The value that a mask has there.
        select: The op that leaves the rest out.
    """

    kind: str
    tensor: Any
    wanted: bool
    select: Any

    def __eq__(self, other):
        return (
            self.kind == other.kind
            and self.tensor is other.tensor
            and self.wanted == other.wanted
        )


def needs(outputs, order, inputs_of, reading):
    """Returns the need of each tensor that is not needed everywhere.

    Args:
        outputs: Tensors that are needed everywhere.
        order: Ops, producers before users.
        inputs_of: Function of an op: the tensors its stand-in reads in
            place of its inputs, or `None` where it stays what it is.
        reading: A `Reading`.

    Returns:
        Dict by `id` of the tensor.
    """
    found: dict = {}
    everywhere = {id(t) for t in outputs}

    def add(tensor, need):
        while True:
            key = id(tensor)
            if need is None:
                everywhere.add(key)
            elif key not in everywhere:
                kept = found.setdefault(key, [])
                kept += [n for n in need if n not in kept]
                if len(kept) > _MOST:
                    everywhere.add(key)
            if key not in reading.aliases:
                return
            tensor = reading.aliases[key]

    def need_of(tensor):
        if id(tensor) in everywhere:
            return None
        return tuple(found.get(id(tensor), ()))

    for tensor in outputs:
        add(tensor, None)
    for op in reversed(order):
        read = inputs_of(op)
        if read is not None:
            for tensor in read:
                add(tensor, None)
            continue
        used = [t for t in op.outputs if id(t) in found or id(t) in everywhere]
        need = need_of(op.outputs[0]) if used else ()
        if op.type in _SELECTS:
            _through_select(op, need, add)
        elif op.type == "Mul":
            _through_product(op, need, add, reading)
        elif op.type in _UNARY or op.type in _BINARY:
            for tensor in op.inputs:
                same = _same_shape(tensor, op.outputs[0])
                add(tensor, need if same else None)
        else:
            for tensor in op.inputs:
                add(tensor, None)
    return {
        key: tuple(need)
        for key, need in found.items()
        if key not in everywhere and need
    }


def _with(need, condition):
    if need is None:
        return ((condition,),)
    return tuple((*one, condition)[-_MOST:] for one in need)


def _through_select(op, need, add):
    chosen, a, b = op.inputs
    add(chosen, None)
    for tensor, wanted in ((a, True), (b, False)):
        same = _same_shape(tensor, op.outputs[0])
        condition = Condition("mask", chosen, wanted, op)
        if op.type == "Select" and chosen.shape.rank != tensor.shape.rank:
            same = False
        add(tensor, _with(need, condition) if same else None)


def _through_product(op, need, add, reading):
    for weight, tensor in (op.inputs, op.inputs[::-1]):
        if not _same_shape(tensor, op.outputs[0]) or not is_float(tensor):
            add(tensor, None)
            continue
        mask = mask_of(reading, weight)
        if mask is not None:
            condition = Condition("mask", mask[0], mask[1], op)
        elif reading.bounds(weight)[0] > 0 or reading.scalar(weight):
            add(tensor, need)
            continue
        else:
            condition = Condition("weight", weight, True, op)
        inner = _with(need, condition)
        mask = masked_by(reading, weight)
        if mask is not None:
            inner = _with(inner, Condition("mask", mask[0], mask[1], op))
        add(tensor, inner)


def mask_of(reading, tensor):
    """Returns `(bool tensor, value)` of a 0/1 mask, or `None`.

    The mask is 1 where the bool tensor has that value.
    """
    op = reading.source(tensor).op
    if op.type == "Cast":
        if op.inputs[0].dtype == tf.bool:
            return op.inputs[0], True
        inner = reading.source(op.inputs[0]).op
        if inner.type == "Cast" and inner.inputs[0].dtype == tf.bool:
            return inner.inputs[0], True
        return None
    if op.type == "Sub" and reading.scalar(op.inputs[0]) == 1.0:
        inner = mask_of(reading, op.inputs[1])
        return None if inner is None else (inner[0], not inner[1])
    return None


def masked_by(reading, tensor, depth=4):
    """Returns the mask that a product is zero outside of, or `None`.

    Told as by `mask_of`.
    """
    op = reading.source(tensor).op
    if op.type != "Mul" or not depth:
        return None
    for factor in op.inputs:
        if not _same_shape(factor, op.outputs[0]):
            continue
        found = mask_of(reading, factor)
        found = found or masked_by(reading, factor, depth - 1)
        if found is not None:
            return found
    return None


def _same_shape(tensor, out):
    a, b = tensor.shape, out.shape
    if a.rank is None or b.rank is None or a.rank != b.rank:
        return False
    return all(
        m is None or n is None or m == n for m, n in zip(a, b, strict=True)
    )
