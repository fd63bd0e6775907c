"""Recognising a softmax or a sigmoid in a TensorFlow graph.

A pattern that is not certain is no match: a wrong match would change the
loss.
"""

from stablekeras.losses.operands import (
    halved,
    negate,
    negative,
    number,
    one_plus,
    operation,
    pair,
    quotient,
    reduction,
    resolve,
    same,
)
from stablekeras.ops.provenance import maker

__all__ = ["match"]


def match(tensor):
    """Returns `(kind, logits, axis)` of what an activation made, or None."""
    x = _sigmoid(tensor)
    if x is not None:
        return "sigmoid", x, None
    found = _softmax(tensor)
    return None if found is None else ("softmax", *found)


def _made(tensor, kind):
    """Returns `(logits, axis)` if our function of that name made it."""
    for candidate in (tensor, resolve(tensor)):
        found = maker(candidate)
        if found is not None and found[0] == kind:
            return found[1:]
    return None


def _in_one(tensor, ours, theirs):
    """Returns `(x, axis)` if our function or their operation made it."""
    found = _made(tensor, ours)
    op = operation(tensor, theirs)
    return (op.inputs[0], -1) if found is None and op is not None else found


def _sigmoid(tensor):
    """Returns x if the tensor is a sigmoid of x."""
    ours = _made(tensor, "sigmoid")
    if ours is not None:
        return ours[0]
    op = operation(tensor, "Sigmoid")
    if op is not None:
        return op.inputs[0]
    for form in (_logistic, _half_tanh, _exp_log_sigmoid, _complement, _branch):
        found = form(tensor)
        if found is not None:
            return found
    return None


def _logistic(tensor):
    # 1 / (1 + exp(-x)) or exp(x) / (1 + exp(x))
    found = quotient(tensor)
    if found is None:
        return None
    above, below = found
    inner = one_plus(below)
    exp = None if inner is None else operation(inner, "Exp")
    if exp is None:
        return None
    if isinstance(above, float):
        return negate(exp.inputs[0])
    return exp.inputs[0] if same(above, inner) else None


def _half_tanh(tensor):
    # 0.5 * (1 + tanh(x / 2)) or 0.5 + 0.5 * tanh(x / 2)
    inner = halved(tensor)
    tanh = None if inner is None else one_plus(inner)
    if tanh is None:
        op = operation(tensor, "AddV2", "Add")
        half = None if op is None else pair(op, 0.5)
        tanh = None if half is None else halved(half)
    op = None if tanh is None else operation(tanh, "Tanh")
    if op is None:
        return None
    half = halved(op.inputs[0])
    return 2 * op.inputs[0] if half is None else half


def _exp_log_sigmoid(tensor):
    op = operation(tensor, "Exp")
    if op is None:
        return None
    ours = _made(op.inputs[0], "log_sigmoid")
    if ours is not None:
        return ours[0]
    # exp(-softplus(-x)), which is how tf.math.log_sigmoid is built
    inner = negative(op.inputs[0])
    softplus = None if inner is None else operation(inner, "Softplus")
    return None if softplus is None else negate(softplus.inputs[0])


def _complement(tensor):
    # 1 - sigmoid(x)
    op = operation(tensor, "Sub")
    if op is None or number(op.inputs[0]) != 1.0:
        return None
    inner = _sigmoid(op.inputs[1])
    return None if inner is None else negate(inner)


def _branch(tensor):
    # where(x >= 0, sigmoid, sigmoid), with exp(x) or with exp(-|x|)
    op = operation(tensor, "SelectV2", "Select")
    if op is None:
        return None
    test = operation(op.inputs[0], "GreaterEqual", "Greater")
    above, below = map(_logistic, op.inputs[1:])
    if above is None or below is None:
        return None
    if same(above, below):
        return above
    if test is None or number(test.inputs[1]) != 0.0:
        return None
    size, mirrored = operation(above, "Abs"), negative(below)
    if size is None or mirrored is None or not same(mirrored, above):
        return None
    x = size.inputs[0]
    return x if same(test.inputs[0], x) else None


def _softmax(tensor):
    """Returns `(x, axis)` if the tensor is a softmax of x along axis."""
    found = _in_one(tensor, "softmax", "Softmax")
    if found is not None:
        return found
    op = operation(tensor, "Exp")
    if op is not None:
        return _log_softmax(op.inputs[0])
    found = quotient(tensor)
    if found is None or isinstance(found[0], float):
        return None
    above, below = found
    exp = operation(above, "Exp")
    summed = None if exp is None else reduction(below, "Sum")
    if summed is None or not same(summed[0], above):
        return None
    return _without_shift(exp.inputs[0], summed[1]), summed[1]


def _without_shift(x, axis):
    """Leaves out the peak that was subtracted, which changes nothing."""
    op = operation(x, "Sub")
    if op is None:
        return x
    stopped = operation(op.inputs[1], "StopGradient")
    peak = op.inputs[1] if stopped is None else stopped.inputs[0]
    top = reduction(peak, "Max")
    found = top is not None and top[1] == axis and same(top[0], op.inputs[0])
    return op.inputs[0] if found else x


def _log_softmax(tensor):
    """Returns `(x, axis)` if the tensor is a log-softmax of x along axis."""
    found = _in_one(tensor, "log_softmax", "LogSoftmax")
    if found is not None:
        return found
    op = operation(tensor, "Sub")
    found = None if op is None else _log_sum(op.inputs[1])
    if found is None or not same(found[0], op.inputs[0]):
        return None
    return found


def _log_sum(tensor):
    """Returns `(x, axis)` if the tensor is `log(sum(exp(x)))`, axis kept."""
    ours = _made(tensor, "logsumexp")
    if ours is not None:
        return ours
    log, shift = operation(tensor, "Log"), None
    outer = operation(tensor, "AddV2", "Add")
    if outer is not None:  # log(sum(exp(x - shift))) + shift
        for a, b in (outer.inputs, reversed(outer.inputs)):
            if operation(a, "Log") is not None:
                log, shift = operation(a, "Log"), b
    summed = None if log is None else reduction(log.inputs[0], "Sum")
    if summed is None:
        return None
    exp, axis = operation(summed[0], "Exp"), summed[1]
    if exp is None:
        return None
    x = exp.inputs[0]
    if shift is None:
        return x, axis
    op = operation(x, "Sub")
    if op is None or not same(op.inputs[1], shift):
        return None
    x, rank = op.inputs[0], shift.shape.rank
    alike = rank == x.shape.rank and shift.shape[axis] == 1
    return (x, axis) if alike else None
