"""Emit ops again, with other inputs, so that an active tape sees them.

A graph is never changed in place. What is rewritten is emitted anew beside
the original ops, which then lead nowhere and are pruned.
"""

import contextlib
import os

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python import pywrap_tfe
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.autograph.impl import api as autograph_api
from tensorflow.python.eager import backprop

__all__ = [
    "as_written",
    "bodies",
    "copy_op",
    "current_graph",
    "has_own_gradient",
    "inline",
    "is_pure",
    "is_trusted",
    "rebuild",
    "recording",
    "redirect",
    "transparent",
]

_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_TRUSTED = tuple(
    _HOME + name
    for name in ("ops" + os.sep, "losses" + os.sep, "activations.py")
)
_DROPPED = ("_class", "_output_shapes")
_LOOPS = ("While", "StatelessWhile")


def current_graph():
    """Returns the graph that is being built, or `None` in eager mode."""
    if tf.executing_eagerly():
        return None
    return tf.compat.v1.get_default_graph()


def as_written(fn):
    """Returns `fn` as the caller's own AutoGraph setting would run it."""
    return autograph_api.tf_convert(fn, ag_ctx.control_status_ctx())


def transparent(fn):
    """Keeps AutoGraph out of `fn`, but not out of what `fn` converts."""
    return autograph_api.autograph_artifact(fn)


@contextlib.contextmanager
def recording(tape):
    """Lets a tape record again what is emitted, also after its block."""
    with tape._ensure_recording():
        yield


def copy_op(op, inputs):
    """Emits an op once more in the current graph.

    Args:
        op: The `tf.Operation` to copy; any but calls and loops.
        inputs: Its new inputs, of compatible shapes. If floats come in
            another dtype than before, the op computes in that one.

    Returns:
        List of the new op's outputs.
    """
    graph = tf.compat.v1.get_default_graph()
    promote = None
    for old, new in zip(op.inputs, inputs, strict=True):
        if old.dtype != new.dtype and old.dtype.is_floating:
            promote = (old.dtype, new.dtype)
    attrs = {}
    for name, value in op.node_def.attr.items():
        if name in _DROPPED:
            continue
        if promote is not None and value.type == promote[0].as_datatype_enum:
            value = attr_value_pb2.AttrValue(type=promote[1].as_datatype_enum)
        attrs[name] = value
    dtypes = [
        promote[1] if promote is not None and t.dtype == promote[0] else t.dtype
        for t in op.outputs
    ]
    new = graph._create_op_internal(
        op.type, list(inputs), dtypes, attrs=attrs, op_def=op.op_def
    )
    if pywrap_tfe.TFE_Py_TapeSetIsEmpty() or op.type == "StopGradient":
        return list(new.outputs)
    flat = []
    for definition in op.op_def.attr:
        if definition.name in attrs:
            flat += [definition.name, new.get_attr(definition.name)]
    backprop.record_gradient(
        op.type, new.inputs, tuple(flat), list(new.outputs)
    )
    return list(new.outputs)


def has_own_gradient(op):
    """Returns whether the user gave this op a derivative of its own."""
    return "_gradient_op_type" in op.node_def.attr and op.type in (
        "IdentityN",
        "Identity",
    )


def is_trusted(op):
    """Returns whether a function of this package made an op.

    What is stable already is left as it is.
    """
    try:
        return any(
            frame.filename.startswith(_TRUSTED) for frame in op.traceback or ()
        )
    except (AttributeError, TypeError):
        return False


def redirect(op, inputs):
    """Lets an op that only looks see other tensors in place of its inputs.

    A check of what was replaced would raise for what is no longer used.
    """
    for place, tensor in enumerate(inputs):
        op._update_input(place, tensor)


def bodies(op):
    """Returns the graphs of the functions an op calls, by attribute."""
    found = {}
    for name, value in op.node_def.attr.items():
        if value.WhichOneof("value") == "func" and value.func.name:
            found[name] = [_graph_of(op.graph, value.func.name)]
        elif value.list.func:
            found[name] = [_graph_of(op.graph, f.name) for f in value.list.func]
    return found


def _graph_of(graph, name):
    while graph is not None:
        function = graph._get_function(name)
        if function is not None and getattr(function, "graph", None):
            return function.graph
        graph = getattr(graph, "outer_graph", None)
    raise KeyError(name)


def inline(body, inputs, origins=None, limit=20_000):
    """Emits the ops of a function's body in the current graph.

    Args:
        body: The `FuncGraph`.
        inputs: Tensors for its inputs, captures included.
        origins: Filled with the op of the body that each new op copies.
        limit: Bodies with more ops are refused.

    Returns:
        Tensors that stand for the body's outputs; `None` if an op of it may
        not be run twice.
    """
    needed = _needed(body)
    if needed is None or len(needed) > limit:
        return None
    made = {id(t): given for t, given in zip(body.inputs, inputs, strict=True)}
    for op in body.get_operations():
        if op not in needed or op.type == "Placeholder":
            continue
        fed = [made[id(t)] for t in op.inputs]
        if bodies(op):
            outputs = rebuild(op, fed, origins=origins)
            if outputs is None:
                return None
        else:
            outputs = copy_op(op, fed)
        for old, new in zip(op.outputs, outputs, strict=True):
            made[id(old)] = new
            if origins is not None:
                origins[new.op] = origins.get(op, op)
    return [made[id(t)] for t in body.outputs]


def _needed(body):
    """Returns the ops that the outputs need, or `None` if one has effects."""
    if not all(is_pure(op) for op in body.get_operations()):
        return None
    needed, pending = set(), [t.op for t in body.outputs]
    while pending:
        op = pending.pop()
        if op in needed:
            continue
        if has_own_gradient(op):
            return None
        needed.add(op)
        pending += [t.op for t in op.inputs]
    return needed


_PURE = frozenset(
    {
        "ReadVariableOp",
        "Placeholder",
        "ResourceGather",
        "ResourceGatherNd",
        "PartitionedCall",
        "StatefulPartitionedCall",
        "While",
        "If",
        "Case",
        "CheckNumerics",
        "VariableShape",
        "Assert",
        "NoOp",
    }
)


def is_pure(op):
    """Returns whether an op may be emitted again: it has no effects."""
    return not op.op_def.is_stateful or op.type in _PURE


def rebuild(op, inputs, change=None, origins=None):
    """Emits a call, a branch or a loop with its bodies written out.

    Args:
        op: A call, branch or loop.
        inputs: Its inputs.
        change: Function of the outputs of each body and the ops that made
            them, run while that body is being traced; returns its outputs.
        origins: Filled with the op of the body that each new op copies.

    Returns:
        List of outputs, or `None` if the op cannot be built again.
    """
    change = change or (lambda outputs: outputs)
    found = bodies(op)

    def traced(graph, given):
        def body(*args):
            outputs = inline(graph, args, origins)
            if outputs is None:
                raise NotImplementedError(op.type)
            return change(outputs)

        return body(*given)

    try:
        if op.type in ("PartitionedCall", "StatefulPartitionedCall"):
            return traced(found["f"][0], inputs)
        if op.type in ("If", "StatelessIf"):
            given = inputs[1:]
            return list(
                tf.cond(
                    inputs[0],
                    lambda: traced(found["then_branch"][0], given),
                    lambda: traced(found["else_branch"][0], given),
                )
            )
        if op.type in ("Case", "StatelessCase"):
            given = inputs[1:]
            branches = [
                lambda graph=graph: traced(graph, given)
                for graph in found["branches"]
            ]
            return list(tf.switch_case(inputs[0], branches))
        if op.type in _LOOPS:
            return _loop(op, inputs, found, traced)
    except (NotImplementedError, KeyError):
        return None
    return None


def _loop(op, inputs, found, traced):
    test, body = found["cond"][0], found["body"][0]
    count = tf.get_static_value(op.inputs[1]) if len(op.inputs) > 1 else None
    shapes = [t.shape for t in body.inputs]
    limit = None
    if count is not None and count.ndim == 0 and count.dtype.kind == "i":
        limit = int(count) if count >= 0 else None
    return list(
        tf.while_loop(
            lambda *args: _outcome(test, args),
            lambda *args: traced(body, args),
            list(inputs),
            shape_invariants=[
                None if t.dtype == tf.resource else s
                for t, s in zip(body.inputs, shapes, strict=True)
            ],
            maximum_iterations=limit,
            parallel_iterations=op.get_attr("parallel_iterations"),
        )
    )


def _outcome(graph, args):
    (outcome,) = inline(graph, args)
    return outcome
