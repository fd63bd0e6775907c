"""Recognising a softmax or a sigmoid in a TensorFlow graph.

Only public attributes of `tf.Operation` are read. A pattern that is not
certain is no match: a wrong match would change the loss.
"""

import tensorflow as tf

from stablekeras.losses.origin import Origin

__all__ = ["match"]


def match(tensor):
    """Returns the `Origin` of a tensor that an activation made, or None."""
    found = _sigmoid(tensor)
    if found is not None:
        return Origin(("sigmoid",), found)
    found = _softmax(tensor)
    if found is not None:
        logits, axis = found
        return Origin(("softmax",), logits, axis)
    return None


def _resolve(tensor):
    """Looks through operations that change nothing."""
    while tensor.op.type in ("Identity", "CheckNumerics"):
        tensor = tensor.op.inputs[0]
    return tensor


def _is(tensor, *types):
    """Returns the operation behind `tensor` if it is of one of `types`."""
    op = _resolve(tensor).op
    return op if op.type in types else None


def _number(tensor):
    """Returns the constant number that `tensor` holds, or None."""
    tensor = _resolve(tensor)
    if tensor.op.type == "Cast":
        return _number(tensor.op.inputs[0])
    value = tf.get_static_value(tensor)
    if value is None or value.size != 1:
        return None
    return float(value.reshape(()))


def _same(a, b):
    """Whether two tensors are one, or one function of the same."""
    a, b = _resolve(a), _resolve(b)
    if a.graph is b.graph and a.name == b.name:
        return True
    return (
        a.op.type == b.op.type
        and a.op.type in ("Exp", "Neg", "Sub", "Abs")
        and all(map(_same, a.op.inputs, b.op.inputs))
    )


def _pair(op, number):
    """Returns the other input of a commutative op with a constant, or None."""
    a, b = op.inputs
    if _number(a) == number:
        return b
    if _number(b) == number:
        return a
    return None


def _one_plus(tensor):
    """Returns u if the tensor is `1 + u`."""
    op = _is(tensor, "AddV2", "Add")
    return None if op is None else _pair(op, 1.0)


def _negative(tensor):
    op = _is(tensor, "Neg")
    if op is not None:
        return op.inputs[0]
    op = _is(tensor, "Mul")
    if op is not None:
        return _pair(op, -1.0)
    return None


def _negate(tensor):
    inner = _negative(tensor)
    return -tensor if inner is None else inner


def _quotient(tensor):
    """Returns `(numerator, denominator)`; the numerator may be the number 1."""
    op = _is(tensor, "RealDiv", "DivNoNan")
    if op is not None:
        a, b = op.inputs
        return (1.0 if _number(a) == 1.0 else a), b
    op = _is(tensor, "Reciprocal", "Inv")
    if op is not None:
        return 1.0, op.inputs[0]
    op = _is(tensor, "Mul")
    if op is not None:
        for a, b in (op.inputs, reversed(op.inputs)):
            inverse = _is(b, "Reciprocal", "Inv")
            if inverse is not None:
                return a, inverse.inputs[0]
    return None


def _sigmoid(tensor):
    """Returns x if the tensor is a sigmoid of x."""
    op = _is(tensor, "Sigmoid")
    if op is not None:
        return op.inputs[0]
    for form in (_logistic, _half_tanh, _exp_log_sigmoid, _complement, _branch):
        found = form(tensor)
        if found is not None:
            return found
    return None


def _logistic(tensor):
    # 1 / (1 + exp(-x)) or exp(x) / (1 + exp(x))
    quotient = _quotient(tensor)
    if quotient is None:
        return None
    above, below = quotient
    inner = _one_plus(below)
    exp = None if inner is None else _is(inner, "Exp")
    if exp is None:
        return None
    if isinstance(above, float):
        return _negate(exp.inputs[0])
    return exp.inputs[0] if _same(above, inner) else None


def _half_tanh(tensor):
    # 0.5 * (1 + tanh(x / 2)) or 0.5 + 0.5 * tanh(x / 2)
    inner = _halved(tensor)
    tanh = None if inner is None else _one_plus(inner)
    if tanh is None:
        op = _is(tensor, "AddV2", "Add")
        half = None if op is None else _pair(op, 0.5)
        tanh = None if half is None else _halved(half)
    op = None if tanh is None else _is(tanh, "Tanh")
    if op is None:
        return None
    halved = _halved(op.inputs[0])
    return 2 * op.inputs[0] if halved is None else halved


def _halved(tensor):
    """Returns u if the tensor is `u / 2`."""
    op = _is(tensor, "Mul")
    if op is not None:
        return _pair(op, 0.5)
    op = _is(tensor, "RealDiv")
    if op is not None and _number(op.inputs[1]) == 2.0:
        return op.inputs[0]
    return None


def _exp_log_sigmoid(tensor):
    # exp(-softplus(-x)), which is how tf.math.log_sigmoid is built
    op = _is(tensor, "Exp")
    inner = None if op is None else _negative(op.inputs[0])
    softplus = None if inner is None else _is(inner, "Softplus")
    return None if softplus is None else _negate(softplus.inputs[0])


def _complement(tensor):
    # 1 - sigmoid(x)
    op = _is(tensor, "Sub")
    if op is None or _number(op.inputs[0]) != 1.0:
        return None
    inner = _sigmoid(op.inputs[1])
    return None if inner is None else _negate(inner)


def _branch(tensor):
    # where(x >= 0, sigmoid, sigmoid), with exp(x) or with exp(-|x|)
    op = _is(tensor, "SelectV2", "Select")
    if op is None:
        return None
    test = _is(op.inputs[0], "GreaterEqual", "Greater")
    above, below = map(_logistic, op.inputs[1:])
    if above is None or below is None:
        return None
    if _same(above, below):
        return above
    if test is None or _number(test.inputs[1]) != 0.0:
        return None
    size, mirrored = _is(above, "Abs"), _negative(below)
    if size is None or mirrored is None or not _same(mirrored, above):
        return None
    x = size.inputs[0]
    return x if _same(test.inputs[0], x) else None


def _softmax(tensor):
    """Returns `(x, axis)` if the tensor is a softmax of x along axis."""
    op = _is(tensor, "Softmax")
    if op is not None:
        return op.inputs[0], -1
    op = _is(tensor, "Exp")
    if op is not None:
        inner = _is(op.inputs[0], "LogSoftmax")
        return None if inner is None else (inner.inputs[0], -1)
    quotient = _quotient(tensor)
    if quotient is None or isinstance(quotient[0], float):
        return None
    above, below = quotient
    exp = _is(above, "Exp")
    if exp is None:
        return None
    summed = _reduction(below, "Sum")
    if summed is None or not _same(summed[0], above):
        return None
    logits, axis = exp.inputs[0], summed[1]
    shift = _is(logits, "Sub")
    if shift is not None:
        # The peak that was subtracted changes nothing: leave it out.
        peak = shift.inputs[1]
        stopped = _is(peak, "StopGradient")
        peak = peak if stopped is None else stopped.inputs[0]
        top = _reduction(peak, "Max")
        if (
            top is not None
            and top[1] == axis
            and _same(top[0], shift.inputs[0])
        ):
            logits = shift.inputs[0]
    return logits, axis


def _reduction(tensor, kind):
    """Returns `(x, axis)` of a reduction along one axis that is kept."""
    op = _is(tensor, kind)
    expanded = None
    if op is None:
        outer = _is(tensor, "ExpandDims")
        if outer is None:
            return None
        expanded = _number(outer.inputs[1])
        op = _is(outer.inputs[0], kind)
        if op is None or expanded is None:
            return None
    rank = op.inputs[0].shape.rank
    axis = _number(op.inputs[1])
    if axis is None or rank is None:
        return None
    axis = int(axis) % rank
    if op.get_attr("keep_dims") != (expanded is None):
        return None
    if expanded is not None and int(expanded) % rank != axis:
        return None
    return op.inputs[0], axis - rank
