"""Find the variables that a model holds, whether Keras lists them or not.

Keras lists weights and seeds. It does not list the states of a stateful
recurrent layer, the state of a `tf.random.Generator`, or a `tf.Variable` in
a plain attribute; a step writes them all the same.
"""

import inspect
from typing import Any

import keras
import tensorflow as tf

__all__ = ["closed_over", "owned_variables"]

# Attributes in which Keras keeps the graph of layers, not their parts.
_PASSED_OVER = frozenset(
    {"_inbound_nodes", "_outbound_nodes", "_nodes", "_nodes_by_depth"}
)
_MOST_ITEMS, _DEEPEST = 1000, 4


def owned_variables(*owners):
    """Returns the variables that are reached from models, layers or values.

    Followed are attributes of layers, metrics, seed generators, modules and
    other things TensorFlow tracks, and what stands in lists and dicts there;
    optimizers are not.

    Args:
        *owners: Models, layers, or containers of them.

    Returns:
        List of `keras.Variable` and `tf.Variable`, each stored value once.
    """
    found: dict[int, Any] = {}
    seen: set[int] = set()
    pending = [(owner, 0) for owner in reversed(owners)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, (keras.Variable, tf.Variable)):
            stored = getattr(value, "value", value)
            stored = stored if isinstance(stored, tf.Variable) else value
            found.setdefault(id(stored), value)
            continue
        if isinstance(value, keras.optimizers.Optimizer) or id(value) in seen:
            continue
        if isinstance(value, _OWNERS):
            parts, depth = _attributes(value), 0
        elif isinstance(value, dict):
            parts, depth = list(value.values()), depth + 1
        elif isinstance(value, (list, tuple, set)):
            parts, depth = list(value), depth + 1
        else:
            continue
        seen.add(id(value))
        if depth <= _DEEPEST and len(parts) <= _MOST_ITEMS:
            pending += [(part, depth) for part in reversed(parts)]
    return list(found.values())


def closed_over(function):
    """Returns what a function or method reads from outside of itself.

    Args:
        function: Any callable; what is not written in Python gives nothing.

    Returns:
        List of values: of its closure, and of the globals it names.
    """
    function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)
    if not inspect.isfunction(function):
        return []
    names = inspect.getclosurevars(function)
    return [*names.nonlocals.values(), *names.globals.values()]


_OWNERS = (
    keras.layers.Layer,
    keras.metrics.Metric,
    keras.random.SeedGenerator,
    tf.Module,
    tf.random.Generator,
)


def _attributes(owner):
    return [
        value
        for name, value in list(getattr(owner, "__dict__", {}).items())
        if name not in _PASSED_OVER
    ]
