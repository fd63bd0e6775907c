"""A graph laid out as a list of steps, ready to be run op by op."""

import dataclasses
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

__all__ = ["Program", "Step", "eager_attrs", "program_of"]

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_CONDS = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
_LOOPS = frozenset({"While", "StatelessWhile"})


@dataclasses.dataclass(eq=False)
class Step:
    """One op, with the slots it reads and writes.

    Args:
        op: The `tf.Operation`.
        kind: `"op"`, `"call"`, `"cond"`, `"loop"`, `"input"` or `"skip"`.
        reads: Slots of its inputs.
        writes: Slots of its outputs.
        attrs: Its attributes, flat, as the eager runtime takes them.
        programs: The programs of the functions it calls, by attribute.
        dead: Slots that no later step reads.
    """

    op: Any
    kind: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    attrs: tuple = ()
    programs: dict = dataclasses.field(default_factory=dict)
    dead: tuple[int, ...] = ()


class Program:
    """A graph's ops in the order they were made.

    Python made them in that order, so reads and writes of variables keep the
    order that the program has when it runs eagerly. Only the accumulators
    that differentiating a loop adds to it later are moved ahead of it.

    Args:
        graph: A `FuncGraph`.
        cache: Programs already laid out, by graph.
    """

    def __init__(self, graph, cache):
        self.graph = graph
        self.slots = {}
        self.steps = []
        for op in _ordered(graph.get_operations()):
            reads = tuple(self.slot(t) for t in op.inputs)
            writes = tuple(self.slot(t) for t in op.outputs)
            self.steps.append(self._step(op, reads, writes, cache))
        self.inputs = [self.slot(t) for t in graph.inputs]
        self.outputs = [self.slot(t) for t in graph.outputs]
        self._bury()

    def slot(self, tensor):
        """Returns the slot of a tensor of this graph."""
        key = (tensor.op.name, tensor.value_index)
        return self.slots.setdefault(key, len(self.slots))

    def _step(self, op, reads, writes, cache):
        if op.type in ("Placeholder", "_Arg"):
            return Step(op, "input", reads, writes)
        if op.type == "NoOp" or _only_acts(op):
            return Step(op, "skip", reads, writes)
        for kinds, kind in (
            (_CALLS, "call"),
            (_CONDS, "cond"),
            (_LOOPS, "loop"),
        ):
            if op.type in kinds:
                graphs = _functions(op)
                if any(None in found for found in graphs.values()):
                    # A function of the old kind: it runs, but as one op.
                    _register(op.graph)
                    break
                programs = {
                    name: [program_of(g, cache) for g in found]
                    for name, found in graphs.items()
                }
                return Step(op, kind, reads, writes, programs=programs)
        return Step(op, "op", reads, writes, attrs=eager_attrs(op))

    def _bury(self):
        seen = set(self.outputs)
        for step in reversed(self.steps):
            last = {s for s in (*step.reads, *step.writes) if s not in seen}
            step.dead = tuple(last)
            seen |= last


def program_of(graph, cache):
    """Returns the program of a graph, laid out once."""
    if graph not in cache:
        cache[graph] = Program(graph, cache)
    return cache[graph]


def _ordered(ops):
    done = set()
    for op in ops:
        pending = [op]
        while pending:
            top = pending[-1]
            ahead = [t.op for t in top.inputs if t.op not in done]
            if ahead:
                pending += ahead
                continue
            pending.pop()
            if top not in done:
                done.add(top)
                yield top


def eager_attrs(op):
    """Returns the attributes of an op as the eager runtime takes them."""
    attrs = []
    given = op.node_def.attr
    for definition in op.op_def.attr:
        if definition.name in given:
            attrs += [definition.name, _plain(given[definition.name])]
    return tuple(attrs)


def _plain(value):
    kind = value.WhichOneof("value")
    if kind == "list":
        for field, entries in value.list.ListFields():
            if field.name == "shape":
                return [_shape(entry) for entry in entries]
            if field.name == "func":
                return [entry.name for entry in entries]
            return list(entries)
        return []
    if kind == "shape":
        return _shape(value.shape)
    if kind == "func":
        return value.func.name
    return getattr(value, kind)


def _shape(proto):
    if proto.unknown_rank:
        return None
    return tf.TensorShape(proto).as_list()


def _functions(op):
    found = {}
    for name, value in op.node_def.attr.items():
        kind = value.WhichOneof("value")
        if kind == "func":
            found[name] = [_graph_of(op.graph, value.func.name)]
        elif kind == "list" and value.list.func:
            found[name] = [
                _graph_of(op.graph, func.name) for func in value.list.func
            ]
    return found


def _register(graph):
    """Makes the functions of a graph known to the eager runtime."""
    eager = context.context()
    for function in graph.as_graph_def().library.function:
        if not eager.has_function(function.signature.name):
            eager.add_function_def(function)


def _graph_of(graph, name):
    while graph is not None:
        function = graph._get_function(name)
        if function is not None:
            return getattr(function, "graph", None)
        graph = getattr(graph, "outer_graph", None)
    raise KeyError(name)


def _only_acts(op):
    # An op without results that does not write a variable can only print,
    # check or save: not in a replay.
    if op.outputs:
        return op.type.startswith("Iterator") or op.type in ("PrintV2",)
    return not any(t.dtype == tf.resource for t in op.inputs)
