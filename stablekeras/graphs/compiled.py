"""Run a traced function compiled, to see whether that is what broke it."""

import contextlib

import numpy as np
import tensorflow as tf

__all__ = ["finite_when_compiled"]


# Ops that change a variable or the state of a generator.
_WRITES = (
    "Assign",
    "ResourceApply",
    "ResourceScatter",
    "Rng",
    "StatefulRandom",
    "Iterator",
)


def finite_when_compiled(traced, jit_compile):
    """Says which losses and gradients are finite in a compiled run.

    The function runs as one graph, with TensorFlow's graph rewrites and, on
    demand, XLA. It reads the variables as they are and writes none: only what
    a loss or a gradient needs is run.

    Args:
        traced: A `Traced`.
        jit_compile: Whether to compile with XLA.

    Returns:
        Dict of name to bool, `"loss"` and the variables' paths; `None` if
        it cannot be run so.
    """
    wanted = [("loss", t) for t in traced.losses] + traced.gradients
    wanted = [
        (name, t)
        for name, t in wanted
        if t.graph is traced.graph and t.dtype.is_floating
    ]
    if not wanted:
        return None
    with contextlib.suppress(Exception):
        feeds = [tensor for _, tensor in traced.inputs]
        function = _pruned(traced, feeds, [t for _, t in wanted])
        run = tf.function(function, jit_compile=jit_compile, autograph=False)
        results = run(*traced.values)
        finite: dict[str, bool] = {}
        for (name, _), value in zip(wanted, results, strict=True):
            value = tf.cast(value, tf.float32).numpy()
            finite[name] = finite.get(name, True) and bool(
                np.isfinite(value).all()
            )
        return finite
    return None


def _pruned(traced, feeds, fetches):
    """Returns a function of the feeds that computes the fetches alone."""
    captures = list(traced.graph.captures)
    # Only what the fetches need: all else, writes above all, is left out.
    kept = _needed(fetches)
    proto = traced.graph.as_graph_def()
    if any(n.op.startswith(_WRITES) for n in proto.node if n.name in kept):
        raise ValueError("a result depends on a write")
    names = [t.name for t in (*feeds, *(inner for _, inner in captures))]
    ends = [t.name for t in fetches]
    # The placeholders are replaced, and XLA knows none.
    given_names = {name.partition(":")[0] for name in names}
    rest = [n for n in proto.node if n.name in kept - given_names]
    del proto.node[:]
    proto.node.extend(rest)

    def function(*args):
        graph = tf.compat.v1.get_default_graph()
        given = [*args, *(graph.capture(outer) for outer, _ in captures)]
        return tf.graph_util.import_graph_def(
            proto,
            input_map={
                name: value
                for name, value in zip(names, given, strict=True)
                if name.partition(":")[0] in kept
            },
            return_elements=ends,
            name="again",
        )

    return function


def _needed(tensors):
    """Returns the names of all ops that tensors depend on."""
    names: set[str] = set()
    pending = [tensor.op for tensor in tensors]
    while pending:
        op = pending.pop()
        if op.name not in names:
            names.add(op.name)
            pending += [tensor.op for tensor in op.inputs]
            pending += list(op.control_inputs)
    return names
