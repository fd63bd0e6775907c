"""Run a traced function op by op, measure every tensor, change nothing."""

import numpy as np
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import context

from stablekeras.graphs.batch_axis import follow
from stablekeras.graphs.execution import Execution, Measured, Node
from stablekeras.graphs.pooling import MAX_POOLS, with_hidden
from stablekeras.graphs.program import Program
from stablekeras.graphs.shadow import Shadows
from stablekeras.graphs.statistics import bad_mask, measure, rows_of

__all__ = ["run"]

# Stateful, and not the same the second time: their results are remembered.
_FICKLE = ("Random", "PyFunc", "EagerPyFunc", "Multinomial", "TruncatedNormal")
# Small enough to remember where it says how entries move.
_SMALL = 1 << 16


def run(traced, state=None, rows=None):
    """Runs a traced function once and measures every float tensor.

    Variables are read where they are and written in copies; ops that would
    print, save, check or pull data do not run. Loops, branches and nested
    functions are run op by op as well, compiled or not.

    Args:
        traced: A `Traced`.
        state: Values to read instead of variables, by variable path.
        rows: Number of rows of the batch, to follow its axis, or `None`.

    Returns:
        An `Execution`.
    """
    programs: dict = {}
    program = Program(traced.graph, programs)
    state = state or {}
    values = {
        id(handle): state[path]
        for handle, path in traced.handles()
        if path in state
    }
    memory: dict = {}
    execution = Execution(traced, rows=rows)
    first = _Run(execution, Shadows(values), rows, memory)
    first.outermost(program)

    def rerun(refs):
        if not refs:
            return {}
        again = _Run(Execution(traced), Shadows(values), rows, memory, refs)
        again.outermost(program)
        return again.caught

    execution.rerun = rerun
    return execution


class _Enough(Exception):
    """All wanted tensors are there."""


class _Failed(Exception):
    """An op raised: nothing after it can run."""


class _Run:
    def __init__(self, execution, shadows, rows, memory, wanted=None):
        self.execution = execution
        self.nodes = execution.nodes
        self.shadows = shadows
        self.rows = rows
        self.memory = memory
        self.wanted = wanted
        self.caught = {}
        self.written = {}
        self.handle = context.context()._handle

    def outermost(self, program):
        traced = self.execution.traced
        feeds = {}
        for (name, tensor), value in zip(
            traced.inputs, traced.values, strict=True
        ):
            feeds[tensor.op.name] = (name, value, True)
        for outer, inner in traced.graph.captures:
            path = traced.variables.get(id(outer))
            feeds[inner.op.name] = (path or "captured", outer, False)
        env = [None] * len(program.slots)
        try:
            for step in program.steps:
                if step.kind == "input" and step.op.name in feeds:
                    self._feed(step, *feeds[step.op.name], env)
            with tf.init_scope():
                self._steps(program, env, ())
        except (_Enough, _Failed):
            pass
        for key, slot in program.slots.items():
            if env[slot] is not None:
                self.execution.refs[key] = env[slot][1]

    def _feed(self, step, name, value, is_batch, env):
        node = self._node(step.op, (), ())
        self.execution.sources[node.number] = name
        self._measure(node, [value], is_batch)
        env[step.writes[0]] = (value, (node.number, 0))

    def _steps(self, program, env, frame):
        for step in program.steps:
            kind = step.kind
            if kind == "op":
                self._op(step, env, frame)
            elif kind == "call":
                (inner,) = step.programs["f"]
                self._call(
                    step, inner, [env[s] for s in step.reads], env, frame
                )
            elif kind == "cond":
                self._cond(step, env, frame)
            elif kind == "loop":
                self._loop(step, env, frame)
            for slot in step.dead:
                if env[slot] is not None:
                    env[slot] = (None, env[slot][1])

    def _function(self, step, program, args, frame):
        env = [None] * len(program.slots)
        for slot, arg in zip(program.inputs, args, strict=False):
            env[slot] = arg
        self._steps(program, env, frame)
        return [env[slot] for slot in program.outputs]

    def _call(self, step, program, args, env, frame):
        results = self._function(step, program, args, (*frame, step.op))
        for slot, result in zip(step.writes, results, strict=True):
            env[slot] = result

    def _cond(self, step, env, frame):
        chosen, *args = (env[s] for s in step.reads)
        index = np.asarray(chosen[0])
        if "branches" in step.programs:
            branches = step.programs["branches"]
            place = int(index)
            if not 0 <= place < len(branches):
                place = len(branches) - 1
            program = branches[place]
        else:
            name = (
                "then_branch" if index.all() and index.size else "else_branch"
            )
            (program,) = step.programs[name]
        self._call(step, program, args, env, frame)

    def _loop(self, step, env, frame):
        (cond,), (body,) = step.programs["cond"], step.programs["body"]
        carried = [env[s] for s in step.reads]
        frame = (*frame, step.op)
        while bool(self._function(step, cond, carried, frame)[0][0]):
            carried = self._function(step, body, carried, frame)
        for slot, value in zip(step.writes, carried, strict=True):
            env[slot] = value

    def _node(self, op, frame, inputs):
        node = Node(len(self.nodes), op, frame, inputs)
        self.nodes.append(node)
        return node

    def _op(self, step, env, frame):
        op = step.op
        if any(env[slot] is None for slot in step.reads):
            return  # it hangs on a placeholder that nobody feeds
        args, refs = [], []
        for slot in step.reads:
            value, ref = env[slot]
            args.append(value)
            refs.append(ref)
        node = self._node(op, frame, ())
        self._resources(node, args, refs)
        node.inputs = tuple(refs)
        results = self.memory.get(node.number)
        if results is None:
            results = self._execute(node, step, args)
            if op.type.startswith(_FICKLE):
                self.memory[node.number] = results
        self._measure(node, results, False, args)
        for output, (slot, result) in enumerate(
            zip(step.writes, results, strict=True)
        ):
            env[slot] = (result, (node.number, output))

    def _resources(self, node, args, refs):
        for place, value in enumerate(args):
            if value is None or value.dtype != tf.resource:
                continue
            handle = self.shadows.stand_in(node.type, value)
            if handle is None:
                node.error = f"{node.type} would change a resource"
                raise _Failed
            args[place] = handle
            key = self.shadows.original(handle)
            if key in self.written:
                refs.append((self.written[key], None))
            if node.type.startswith("Assign") or "Scatter" in node.type:
                self.written[key] = node.number
                path = self.execution.traced.variables.get(key, "variable")
                self.execution.writes.append((path, refs[len(args) - 1]))

    def _execute(self, node, step, args):
        op = step.op
        if op.type == "Const":
            return [
                tf.constant(tf.make_ndarray(op.node_def.attr["value"].tensor))
            ]

        def execute(args):
            return pywrap_tfe.TFE_Py_Execute(
                self.handle, None, op.type, args, step.attrs, len(op.outputs)
            )

        try:
            results = execute(args)
            if op.type in MAX_POOLS and args[0].dtype.is_floating:
                results = with_hidden(execute, args, results)
        except Exception as error:
            node.error = str(getattr(error, "message", error)) or repr(error)
            self.execution.error = node
            raise _Failed from error
        for result in results:
            if result.dtype == tf.resource:
                self.shadows.adopt(result)
        return results

    def _measure(self, node, results, is_batch, args=()):
        if self.wanted is not None:
            self._catch(node, results)
            return
        inputs = [
            self.nodes[n].outputs[o] if o is not None else None
            for n, o in node.inputs
        ]
        outputs = []
        for output, value in enumerate(results):
            axis = None
            shape = tuple(value.shape) if value.dtype != tf.resource else ()
            if is_batch:
                axis = (0, 1) if shape and shape[0] == self.rows else None
            elif self.rows:
                axis = follow(node.op, inputs, args, shape, self.rows)
            if value.dtype.is_floating or value.dtype.is_complex:
                array = _array(value)
                bad = bad_mask(array)
                stats = measure(
                    array,
                    node.op.outputs[output].name,
                    rows_of(bad, axis) if bad is not None else (),
                )
                outputs.append(Measured(stats, bad, axis, stats.shape))
            else:
                outputs.append(Measured(None, None, axis, shape))
        node.outputs = tuple(outputs)
        bad_inputs = any(m is not None and m.is_bad for m in inputs) or any(
            self.nodes[n].tainted for n, _ in node.inputs
        )
        if bad_inputs and not node.is_bad:
            node.tainted = not results or any(
                v.dtype in (tf.variant, tf.resource) for v in results
            )
        if node.is_bad:
            node.kept = {
                place: _array(value)
                for place, value in enumerate(args)
                if value is not None
                and (value.dtype.is_integer or value.dtype.is_bool)
                and (
                    node.type.startswith("Select")
                    or value.shape.num_elements() <= _SMALL
                )
            }

    def _catch(self, node, results):
        for output, value in enumerate(results):
            ref = (node.number, output)
            if ref in self.wanted:
                self.caught[ref] = _array(value).copy()
        if len(self.caught) == len(self.wanted):
            raise _Enough


def _array(value):
    # The array that TensorFlow holds; its own `numpy()` would copy it.
    quick = getattr(value, "_numpy", None)
    return value.numpy() if quick is None else quick()
