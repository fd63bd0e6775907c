"""Trace a function into a graph that remembers where each op came from.

Nothing runs here. The graph keeps, beside its ops, which of them a
`tf.GradientTape` made and for which forward op, which layer was being called,
what was differentiated, and what came out.
"""

import contextlib
import dataclasses
import re
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop
from tensorflow.python.framework.func_graph import FuncGraph

from stablekeras.graphs.concrete import answer_with_values
from stablekeras.graphs.custom_gradients import forget_custom_gradients
from stablekeras.graphs.inlining import converted, functions_inlined

__all__ = ["Traced", "array_paths", "trace"]


@dataclasses.dataclass
class Traced:
    """A function as a graph, with the memory of how it was made.

    Args:
        graph: The `FuncGraph`.
        inputs: Name and placeholder of each array argument.
        values: The arrays themselves, in the same order.
        outputs: Name and tensor of each result.
        losses: Tensors that were differentiated, in order.
        gradients: Name of the variable and tensor of each gradient.
        spans: Per graph, `(first, last, layers)`: the ops made by a layer.
        backward: Per graph, `(first, last)`: the ops made by a tape.
        forward_of: Per backward op, the forward op whose derivative it is.
        variables: Per resource handle's id, the variable's path.
    """

    graph: Any
    inputs: list[tuple[str, Any]] = dataclasses.field(default_factory=list)
    values: list[Any] = dataclasses.field(default_factory=list)
    outputs: list[tuple[str, Any]] = dataclasses.field(default_factory=list)
    losses: list[Any] = dataclasses.field(default_factory=list)
    gradients: list[tuple[str, Any]] = dataclasses.field(default_factory=list)
    spans: dict[Any, list] = dataclasses.field(
        default_factory=lambda: defaultdict(list)
    )
    backward: dict[Any, list] = dataclasses.field(
        default_factory=lambda: defaultdict(list)
    )
    forward_of: dict[Any, Any] = dataclasses.field(default_factory=dict)
    variables: dict[int, str] = dataclasses.field(default_factory=dict)

    def handles(self):
        """Yields the handle and path of each variable that is used."""
        for outer, _ in self.graph.captures:
            path = self.variables.get(id(outer))
            if path is not None:
                yield outer, path

    _places: dict[Any, dict] = dataclasses.field(default_factory=dict)

    def place(self, op):
        """Returns the number of ops that its graph held before `op`."""
        places = self._places.get(op.graph)
        if places is None or op not in places:
            places = {o: i for i, o in enumerate(op.graph.get_operations())}
            self._places[op.graph] = places
        return places[op]

    def is_backward(self, op):
        """Returns whether a tape made `op` while differentiating."""
        ranges = self.backward.get(op.graph)
        if not ranges:
            return False
        place = self.place(op)
        return any(first <= place < last for first, last in ranges)

    def ran_backward(self, node):
        """Returns whether a node belongs to a backward pass.

        Args:
            node: A `Node`; what a backward op calls is backward as well.
        """
        return any(self.is_backward(op) for op in (node.op, *node.frame))


def trace(
    fn: Callable,
    args=(),
    kwargs=None,
    names=None,
    variables=(),
    differentiate=None,
):
    """Traces `fn(*args, **kwargs)` without running it.

    Python control flow on tensors is converted if, and only if, `fn` cannot
    be traced without: code that is not converted keeps its line numbers.
    Code that asks a tensor for its value, by `numpy()` or `float()`, is given
    the value that it has in this run.

    Args:
        fn: Any function of tensors. It may hold a `tf.GradientTape`, write
            variables, call layers and `tf.function`s.
        args: Its arguments; arrays and tensors in them, also within lists,
            tuples and dicts, become inputs of the graph, all else is passed
            as it is.
        kwargs: Its keyword arguments, treated likewise.
        names: Names of the array arguments in flat order; by default their
            paths, `"args[0]"`.
        variables: Variables to be called by their paths; others go by the
            names of their resources.
        differentiate: Variables to differentiate the floating results by,
            unless `fn` differentiates itself; an empty tuple stands for all
            trainable variables that `fn` reads or, without any, its floating
            arguments. `None`: nothing is differentiated.

    Returns:
        A `Traced`.
    """
    given = (args, kwargs or {}, names, variables, differentiate)
    try:
        return _trace(fn, *given)
    except Exception as error:
        first = error
    # What cannot be traced as it is: Python control flow on tensors, then
    # code that asks a tensor for its value.
    if isinstance(first, tf.errors.OperatorNotAllowedInGraphError):
        with contextlib.suppress(Exception):
            return _trace(converted(fn), *given)
    with contextlib.suppress(Exception):
        return _trace(fn, *given, by_value=True)
    raise first


def _trace(fn, args, kwargs, names, variables, differentiate, by_value=False):
    graph = FuncGraph("stablekeras_trace")
    traced = Traced(graph=graph)
    forgetting = contextlib.ExitStack()
    forgetting.callback(forget_custom_gradients, graph)

    def placeholder(value):
        if not _is_array(value):
            return value
        with tf.init_scope():
            value = tf.convert_to_tensor(value)
        position = len(traced.values)
        name = names[position] if names else f"args[{position}]"
        tensor = tf.compat.v1.placeholder(value.dtype, value.shape)
        traced.values.append(value)
        traced.inputs.append((name, tensor))
        return tensor

    with (
        forgetting,
        warnings.catch_warnings(),
        graph.as_default(),
        _watch_layers(traced),
        _watch_tapes(traced),
        functions_inlined(),
        answer_with_values(traced) if by_value else contextlib.nullcontext(),
    ):
        # What the function warns of, it has said when it really ran.
        warnings.simplefilter("ignore")
        args, kwargs = tf.nest.map_structure(placeholder, (args, kwargs))
        if differentiate is None:
            result = fn(*args, **kwargs)
        else:
            result = _differentiated(traced, fn, args, kwargs, differentiate)
        traced.outputs.extend(_tensors("output", result))
    traced.variables.update(_variables(graph, variables))
    return traced


def array_paths(structure):
    """Yields the path of each array in a nested structure, in flat order.

    Args:
        structure: Lists, tuples and dicts of arrays, tensors, other things.

    Yields:
        Tuples of keys and indices.
    """
    for path, leaf in _leaves(structure):
        if _is_array(leaf):
            yield path


def _differentiated(traced, fn, args, kwargs, sources):
    floats = [t for _, t in traced.inputs if _is_float(t)]
    with tf.GradientTape() as tape:
        tape.watch(floats)
        result = fn(*args, **kwargs)
    if traced.losses:
        return result  # it has differentiated what it wanted
    targets = [t for _, t in _tensors("", result) if _is_float(t)]
    sources = [_native(v) for v in sources]
    sources = sources or list(tape.watched_variables()) or floats
    if targets and sources:
        tape.gradient(targets, sources)
    return result


def _is_float(tensor):
    return tensor.dtype.is_floating or tensor.dtype.is_complex


def _variables(graph, known):
    """Yields the handle's id and the name of each variable of a graph."""
    names = {}
    for variable in known:
        handle = getattr(_native(variable), "handle", None)
        if handle is not None:
            names[id(handle)] = _name_of(variable)
    for outer, _ in graph.captures:
        if outer.dtype == tf.resource:
            found = re.search(r'name="(.*?)(?:/\d+)?"', repr(outer))
            name = found.group(1) if found else "variable"
            names.setdefault(id(outer), name)
    return names.items()


_EMPTY = FuncGraph("empty").version


def _count(graph):
    """Returns the number of ops in a graph, without listing them."""
    return graph.version - _EMPTY


def _is_array(value):
    if isinstance(value, (tf.Variable, keras.Variable)):
        return False
    if isinstance(value, tf.Tensor):
        return True
    return hasattr(value, "__array__") and getattr(value, "dtype", None) != "O"


def _tensors(prefix, structure):
    """Yields name and graph tensor of each tensor in a nested structure."""
    for path, leaf in _leaves(structure):
        name = prefix + "".join(f"[{key!r}]" for key in path)
        if isinstance(leaf, keras.Variable):
            leaf = leaf.value
        if isinstance(leaf, tf.Variable):
            leaf = leaf.read_value()
        if isinstance(leaf, tf.IndexedSlices):
            leaf = leaf.values
        if isinstance(leaf, tf.Tensor) and hasattr(leaf, "op"):
            yield name, leaf


def _leaves(structure, path=()):
    if isinstance(structure, dict):
        for key in sorted(structure, key=str):  # as tf.nest flattens it
            value = structure[key]
            yield from _leaves(value, (*path, key))
    elif isinstance(structure, (list, tuple)):
        for key, value in enumerate(structure):
            yield from _leaves(value, (*path, key))
    else:
        yield path, structure


def _native(variable):
    return variable.value if isinstance(variable, keras.Variable) else variable


def _name_of(source):
    name = getattr(source, "path", None) or getattr(source, "name", "source")
    return str(name).partition(":")[0]


@contextlib.contextmanager
def _watch_layers(traced):
    """Notes which ops are made while a layer is being called."""
    original = keras.Layer.__call__
    stack = []

    def __call__(layer, *args, **kwargs):
        graph = tf.compat.v1.get_default_graph()
        first = _count(graph)
        stack.append(layer)
        try:
            return original(layer, *args, **kwargs)
        finally:
            path = _layer_path(stack)
            stack.pop()
            traced.spans[graph].append((first, _count(graph), path))

    keras.Layer.__call__ = __call__
    try:
        yield
    finally:
        keras.Layer.__call__ = original


def _layer_path(stack):
    names = [layer.name for layer in stack]
    if len(names) > 1 and isinstance(stack[0], keras.Model):
        names = names[1:]  # the model itself tells nothing
    return "/".join(names)


@contextlib.contextmanager
def _watch_tapes(traced):
    """Notes what is differentiated, and which ops that makes for which."""
    gradient = tf.GradientTape.gradient
    made = _ForwardOps(traced)

    def watched(tape, target, sources, *args, **kwargs):
        graph = tf.compat.v1.get_default_graph()
        first = _count(graph)
        result = gradient(tape, target, sources, *args, **kwargs)
        traced.backward[graph].append((first, _count(graph)))
        traced.losses.extend(t for _, t in _tensors("loss", target))
        for (_, source), (_, grad) in zip(
            _leaves(sources), _leaves(result), strict=False
        ):
            for _, tensor in _tensors("", grad):
                traced.gradients.append((_name_of(source), tensor))
        return result

    def derivative(op_type, attrs, count, inputs, outputs, grads, skip, scope):
        graph = tf.compat.v1.get_default_graph()
        first = _count(graph)
        result = backprop._gradient_function(
            op_type, attrs, count, inputs, outputs, grads, skip, scope
        )
        made.note(graph, first, op_type, inputs, outputs, scope)
        return result

    tf.GradientTape.gradient = watched
    pywrap_tfe.TFE_Py_RegisterGradientFunction(derivative)
    try:
        yield
    finally:
        tf.GradientTape.gradient = gradient
        pywrap_tfe.TFE_Py_RegisterGradientFunction(backprop._gradient_function)
        made.resolve()


class _ForwardOps:
    """Finds the forward op of each derivative that a tape made.

    A tape drops tensors that a derivative does not need, so an op is known
    by what is left of: its inputs, its outputs, its type and its name scope.
    Derivatives are made in reverse order, so among equals the last unused.
    """

    def __init__(self, traced):
        self.traced = traced
        self.calls = []

    def note(self, graph, first, op_type, inputs, outputs, scope):
        self.calls.append(
            (graph, first, _count(graph), op_type, inputs, outputs, scope)
        )

    def resolve(self):
        index = defaultdict(list)
        operations = {}
        used: set = set()
        for graph in {call[0] for call in self.calls}:
            operations[graph] = graph.get_operations()
            for op in operations[graph]:
                index[graph, op.type].append(op)
        place = self.traced.place
        for graph, first, last, op_type, inputs, outputs, scope in self.calls:
            forward = self._find(
                [o for o in index[graph, op_type] if place(o) < first],
                inputs,
                outputs,
                scope,
                used,
            )
            if forward is None:
                continue
            used.add(forward)
            for op in operations[graph][first:last]:
                self.traced.forward_of.setdefault(op, forward)

    @staticmethod
    def _find(candidates, inputs, outputs, scope, used):
        for tensor in outputs or ():
            if isinstance(tensor, tf.Tensor) and hasattr(tensor, "op"):
                return tensor.op
        known = [
            (position, tensor)
            for position, tensor in enumerate(inputs or ())
            if isinstance(tensor, tf.Tensor) and hasattr(tensor, "op")
        ]
        fits = [
            op
            for op in candidates
            if all(
                position < len(op.inputs) and op.inputs[position] is tensor
                for position, tensor in known
            )
            and op.name.rpartition("/")[0] in (scope, scope.rpartition("/")[0])
        ]
        fresh = [op for op in fits if op not in used] or fits
        return fresh[-1] if fresh else None
