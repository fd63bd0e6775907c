"""The place where a root was found, with the values that stood there."""

import functools
import re

import numpy as np

from stablekeras.graphs.derivative import forward_node
from stablekeras.graphs.location import source_line
from stablekeras.graphs.match import look_through
from stablekeras.graphs.statistics import measure, rows_of
from stablekeras.graphs.views import NodeView

__all__ = ["Site", "figure"]

_LITERAL = re.compile(
    r"(?<![\w.])(?:\d+\.?\d*|\.\d+)[eE]-\d+"
    r"|(?i:\b[\w.]*(?<![a-z])eps(?:ilon)?\w*(?:\(\))?)"
)
_SELECTORS = (
    "SparseSoftmaxCrossEntropyWithLogits",
    "GatherV2",
    "ResourceGather",
)
_OPAQUE = ("PyFunc", "EagerPyFunc", "PyFuncStateless", "XlaLaunch")
_GREATEST = {
    "float16": 65504.0,
    "bfloat16": 3.39e38,
    "float32": 3.4028235e38,
    "float64": 1.7976931348623157e308,
}
# Values up to here are fetched around a root, in bytes.
_BUDGET = 1 << 27


def figure(number):
    """Returns a number as people write it."""
    return f"{float(number):.6g}"


class Site:
    """A root op, the forward op it belongs to, and their values.

    Args:
        execution: The `Execution`.
        blame: The `Blame` it was found in.
        root: The `Root`.
        phase: `"forward"` or `"backward"`.
        history: Loss and gradient norm of the last steps.
    """

    def __init__(self, execution, blame, root, phase, history=()):
        self.execution = execution
        self.traced = execution.traced
        self.blame = blame
        self.root = root
        self.phase = phase
        self.history = history
        self.updates = None
        self._known = {}

    @functools.cached_property
    def node(self):
        """The forward node: of a derivative, the op that it derives."""
        root = self.root.node
        return forward_node(self.execution, root, self.root.output) or root

    @property
    def is_derivative(self):
        """Whether the root op derives a forward op."""
        return self.node is not self.root.node

    @property
    def greatest(self):
        """The greatest number of the op's dtype."""
        return _GREATEST.get(self.dtype, _GREATEST["float32"])

    @property
    def is_opaque(self):
        """Whether what happens inside the root op is not ours to see."""
        return self.root.node.type in _OPAQUE

    @property
    def formula_phase(self):
        """The phase in which to judge the root's formula.

        What a backward pass computes by a formula of its own, a custom
        gradient or an update, is judged like a forward formula.
        """
        if self.traced.ran_backward(self.root.node) and not self.is_derivative:
            return "forward"
        return self.phase

    @functools.cached_property
    def view(self):
        """View of the forward op's result."""
        return NodeView(self.execution, (self.node.number, 0))

    @property
    def op_type(self):
        """Type of the forward op."""
        return self.node.type

    @functools.cached_property
    def inputs(self):
        """Views of the forward op's float inputs."""
        return [v for v in self.view.inputs if v.stats is not None]

    @property
    def dtype(self):
        """Name of the root's dtype."""
        return self.root.node.outputs[self.root.output].stats.dtype

    @property
    def is_half(self):
        """Whether the root computed in float16."""
        return self.dtype == "float16"

    @functools.cached_property
    def line(self):
        """Text of the user's line."""
        return source_line(self.node.op)

    @functools.cached_property
    def literals(self):
        """Small constants written in the user's line, as text."""
        return _LITERAL.findall(self.line)

    def literals_of(self, view):
        """Returns those in the lines that use a constant, and in the root's.

        Args:
            view: View of the constant.
        """
        lines = [source_line(user.op) for user in view.users]
        return _LITERAL.findall("\n".join(lines)) + self.literals

    def value(self, view):
        """Returns the value of a view's tensor."""
        if view.ref not in self._known:
            self._fetch(view.ref)
        return self._known[view.ref]

    def _fetch(self, ref):
        # One run fetches the whole neighbourhood.
        wanted, spent = {ref}, 0
        pending = [self.view, NodeView(self.execution, ref)]
        seen: set = set()
        while pending and len(seen) < 400:
            view = pending.pop(0)
            if view.ref in seen:
                continue
            seen.add(view.ref)
            if view.stats is not None and view.ref not in self._known:
                spent += view.stats.size * np.dtype(view.stats.dtype).itemsize
                if spent > _BUDGET:
                    break
                wanted.add(view.ref)
            pending += view.inputs
        root = self.root.node
        for other in root.inputs:
            if other[1] is not None and other not in self._known:
                wanted.add(other)
        self._known.update(self.execution.values(wanted))

    def at(self, place):
        """Returns what the forward op's input held at the root's entries.

        Args:
            place: Which of its float inputs.

        Returns:
            Flat float64 array; of an op that does not work entry by entry,
            the whole input.
        """
        if place >= len(self.inputs):
            return np.empty(0)
        value = self.value(self.inputs[place]).astype(np.float64)
        born = self.root.born
        try:
            return np.broadcast_to(value, born.shape)[born]
        except ValueError:
            return value.ravel()

    def whole(self, place):
        """Returns all of the forward op's input, as float64."""
        return self.value(self.inputs[place]).astype(np.float64)

    def upstream(self):
        """Returns the incoming gradient at the root's entries."""
        for ref in self.root.node.inputs[::-1]:
            source = self.execution.nodes[ref[0]]
            if ref[1] is None or not self.traced.ran_backward(source):
                continue
            if source.outputs[ref[1]].shape == self.root.born.shape:
                view = NodeView(self.execution, ref)
                return self.value(view).astype(np.float64)[self.root.born]
        return np.empty(0)

    def made(self):
        """Returns what the root op gave at its entries."""
        view = NodeView(
            self.execution, (self.root.node.number, self.root.output)
        )
        return self.value(view).astype(np.float64)[self.root.born]

    def origin(self, view):
        """Returns what an input node holds: `"y"`, `"head/kernel"`."""
        view = look_through(view)
        if view.type == "ReadVariableOp":
            view = view.inputs[0]
        return self.execution.sources.get(view.ref[0])

    def statistics(self):
        """Returns the `TensorStats` of the forward op's float inputs."""
        return tuple(view.stats for view in self.inputs)

    @property
    def rows(self):
        """Rows of the batch that the root's entries belong to."""
        axis = self.root.node.outputs[self.root.output].axis
        if axis is None and self.node.outputs:
            own = self.node.outputs[0]
            if own.shape == self.root.born.shape:
                axis = own.axis
        if axis is None and self._looks_like_batch():
            axis = (0, 1)
        return rows_of(self.root.born, axis)

    def _looks_like_batch(self):
        # A gradient begins with a tensor of ones, in which no batch axis can
        # be followed; its length tells, unless a variable is as long.
        born, rows = self.root.born, self.execution.rows
        if not rows or rows == 1 or not born.ndim or born.shape[0] != rows:
            return False
        if not self.traced.ran_backward(self.root.node):
            return False
        return not any(
            rows in node.outputs[0].shape
            for node in self.execution.nodes
            if node.type == "ReadVariableOp" and node.outputs
        )

    @property
    def where(self):
        """How many entries, and of how many: `"3 of 320 entries"`."""
        count, size = int(self.root.born.sum()), self.root.born.size
        if size == 1:
            return "its only entry"
        return f"{count} of {size} entries"

    def range(self, view):
        """Returns the least and greatest of a tensor, as text."""
        stats = view.stats or measure(self.value(view))
        if stats.min is None:
            return "no finite entry"
        return f"[{figure(stats.min)}, {figure(stats.max)}]"

    def given(self):
        """Returns what the root hands in, if it computes nothing.

        Returns:
            `("array", name)`, `("variable", path)` or `None`.
        """
        node, sources = self.root.node, self.execution.sources
        if node.type in ("ReadVariableOp", "ResourceGather"):
            return "variable", sources.get(node.inputs[0][0]) or "variable"
        if node.number not in sources:
            return None
        return "array", sources[node.number]

    @property
    def is_update(self):
        """Whether loss and gradients are finite, and a written value not."""
        return self.updates is not None

    def largest_variable(self):
        """Returns path and greatest modulus of the largest float variable."""
        best = ("", 0.0)
        trained = {name for name, _ in self.traced.gradients}
        for node in self.execution.nodes:
            if node.type != "ReadVariableOp" or not node.outputs:
                continue
            stats = node.outputs[0].stats
            if stats is None or stats.min is None:
                continue
            name = self.execution.sources.get(node.inputs[0][0]) or ""
            if (trained and name not in trained) or "dynamic_scale" in name:
                continue
            size = max(abs(stats.min), abs(stats.max))
            if size > best[1]:
                best = (name, size)
        return best

    def reach(self):
        """Returns the greatest modulus among the forward op's inputs."""
        sizes = [
            max(abs(v.stats.min), abs(v.stats.max))
            for v in self.inputs
            if v.stats.min is not None
        ]
        return max(sizes, default=0.0)

    def lost_scale(self):
        """Returns a loss scale of 0 or Inf, or `None` if it is sound."""
        for node in self.execution.nodes:
            if node.type != "ReadVariableOp" or not node.outputs:
                continue
            name = self.execution.sources.get(node.inputs[0][0]) or ""
            stats = node.outputs[0].stats
            if not name.endswith("dynamic_scale") or stats is None:
                continue
            if stats.posinf or stats.nan:
                return np.inf
            if stats.max == 0.0:
                return 0.0
        return None

    def label(self):
        """Returns the labels out of range, or `None` where all are in it.

        Returns:
            Name of the array, the wrong values, the number of classes, the
            rows; read from the op that selects by class.
        """
        node = self.root.node
        if node.type not in _SELECTORS or len(node.inputs) < 2:
            return None
        which = NodeView(self.execution, node.inputs[1])
        source = NodeView(self.execution, node.inputs[0])
        if which.stats is not None:
            return None
        labels = self.execution.values([which.ref])[which.ref]
        shape = self.execution.measured(source.ref).shape
        if node.type.startswith("Sparse"):
            classes = shape[-1]
        else:
            axis = 0
            if node.type == "GatherV2":
                axis = int(
                    self.execution.values([node.inputs[2]])[node.inputs[2]]
                )
            classes = shape[axis]
        wrong = (labels < 0) | (labels >= classes)
        if not wrong.any():
            return None
        name = self.origin(which) or "labels"
        axis = self.execution.measured(which.ref).axis
        rows = rows_of(wrong, axis) or rows_of(wrong, (0, 1))
        return name, np.unique(labels[wrong]), classes, rows
