"""The record of one run: every op that ran, and what it gave."""

import dataclasses
import functools
from collections import defaultdict
from typing import Any

import numpy as np

from stablekeras.graphs.statistics import TensorStats

__all__ = ["Execution", "Measured", "Node"]


class Measured:
    """One tensor of a run: its statistics, and where it is not finite.

    Args:
        stats: A `TensorStats`, or `None` of a tensor that is not floating.
        bad: Boolean array, true where not finite; `None` where all is well.
        axis: Place of the batch axis, see `statistics.rows_of`.
    """

    __slots__ = ("_packed", "axis", "shape", "stats")

    def __init__(self, stats, bad, axis, shape):
        self.stats = stats
        self.axis = axis
        self.shape = shape
        # One bit an entry: after a NaN, most of a step is not finite.
        self._packed = None if bad is None else np.packbits(bad)

    @property
    def is_bad(self):
        """Whether any entry is not finite."""
        return self._packed is not None

    @property
    def bad(self):
        """Where it is not finite, or `None`."""
        if self._packed is None:
            return None
        size = int(np.prod(self.shape, dtype=np.int64))
        flat = np.unpackbits(self._packed, count=size)
        return flat.astype(bool).reshape(self.shape)


@dataclasses.dataclass(slots=True, eq=False)
class Node:
    """One op as it ran: in a loop, one node a turn.

    Args:
        number: Place in the order of execution.
        op: The `tf.Operation`.
        frame: The ops that called it, outermost first.
        inputs: For each input, `(node number, output)`.
        outputs: For each output, a `Measured`.
        kept: Small integer inputs, by position, where later steps need them.
        tainted: Whether an opaque result holds entries that are not finite.
        error: The message of the error it raised, or `None`.
    """

    number: int
    op: Any
    frame: tuple
    inputs: tuple
    outputs: tuple = ()
    kept: dict | None = None
    tainted: bool = False
    error: str | None = None

    @property
    def type(self):
        """The op's type."""
        return self.op.type

    @property
    def is_bad(self):
        """Whether any result is not finite."""
        return any(out.is_bad for out in self.outputs)


@dataclasses.dataclass(eq=False)
class Execution:
    """Every op that ran, in order.

    Args:
        traced: The `Traced` that was run.
        nodes: One `Node` an op, and an iteration.
        refs: `(node number, output)` of each tensor of the outermost graph,
            by its op's name and output.
        writes: `(variable's path, reference)` of each value written.
        sources: What each input node holds: an array's or variable's name.
        error: The node that raised, or `None`.
        rows: Number of rows of the batch, or `None`.
        rerun: Function that runs again and returns the wanted tensors.
    """

    traced: Any
    nodes: list[Node] = dataclasses.field(default_factory=list)
    refs: dict = dataclasses.field(default_factory=dict)
    writes: list = dataclasses.field(default_factory=list)
    sources: dict = dataclasses.field(default_factory=dict)
    error: Node | None = None
    rows: int | None = None
    rerun: Any = None

    def ref(self, tensor):
        """Returns where a tensor was made, `None` if it was not.

        Of a tensor inside a function or a loop, where it was made last.
        """
        if tensor.graph is not self.traced.graph:
            turns = self.turns(tensor.op)
            return (turns[-1].number, tensor.value_index) if turns else None
        return self.refs.get((tensor.op.name, tensor.value_index))

    def measured(self, ref):
        """Returns the `Measured` of a reference."""
        number, output = ref
        return self.nodes[number].outputs[output]

    @functools.cached_property
    def _users(self):
        found = defaultdict(list)
        for node in self.nodes:
            for ref in dict.fromkeys(node.inputs):
                found[ref].append(node)
        return found

    @functools.cached_property
    def _by_op(self):
        found = defaultdict(list)
        for node in self.nodes:
            found[node.op].append(node)
            found[node.op.name].append(node)
        return found

    def users(self, ref):
        """Returns the nodes that read a tensor, in order."""
        return self._users.get(ref, [])

    def turns(self, op):
        """Returns the nodes of an op, one a turn, by itself or its name."""
        return self._by_op.get(op, [])

    def refs_of_results(self):
        """Returns the references of what the function returned."""
        return [self.ref(tensor) for _, tensor in self.traced.outputs]

    def is_bad(self, ref):
        """Returns whether a reference is a tensor that is not all finite."""
        return ref is not None and self.measured(ref).is_bad

    def values(self, refs):
        """Runs again and returns the wanted tensors.

        Args:
            refs: References, `(node number, output)`.

        Returns:
            Dict from reference to NumPy array.
        """
        return self.rerun(set(refs))

    def tensors(self) -> list[TensorStats]:
        """Returns the statistics of every float tensor, in order."""
        return [
            out.stats
            for node in self.nodes
            for out in node.outputs
            if out.stats is not None
        ]
