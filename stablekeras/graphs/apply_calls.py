"""Find the optimizers of a step, and hold back what they would apply.

While a step runs, `optimizer.apply` of every optimizer it may use is replaced
on the instance. What is called inside the step is written down as an
`ApplyCall`; whether it runs there and then, or later when the whole step is
known to be good, is decided by the transaction.
"""

import contextlib
import dataclasses
import threading
from typing import Any

import keras
import tensorflow as tf

from stablekeras.graphs.owned import closed_over
from stablekeras.graphs.replaced import replaced_attribute
from stablekeras.graphs.resources import handles
from stablekeras.graphs.updates import frugal

__all__ = [
    "ApplyCall",
    "ApplyLog",
    "ensure_built",
    "find_optimizers",
    "loss_scale",
    "optimizer_variables",
]


@dataclasses.dataclass
class ApplyCall:
    """One call of `optimizer.apply` inside a step.

    Args:
        optimizer: The optimizer that was called.
        original: Its own `apply`.
        grads: The gradients, as passed; `None` for variables without one.
        variables: The trainable variables as passed, or `None`.
        operations: Operations in the graph when it was called.
        visible: Whether the gradients belong to the graph of the step itself
            and not to a function or loop inside it.
        deferred: Whether the call is left to the transaction.
        touched: `id` of every handle the call would read or write.
        loss: The loss that a rule of the optimizer is to judge, or `None`.
    """

    optimizer: Any
    original: Any
    grads: list
    variables: Any
    operations: int
    visible: bool
    deferred: bool
    touched: frozenset
    loss: Any = None

    def tensors(self):
        """Returns the gradients that are not `None`."""
        return [g for g in self.grads if g is not None]

    def run(self, tensors, loss=None):
        """Applies `tensors`, the gradients that are not `None`."""
        if loss is not None:
            _judge_of_loss(self.optimizer).see_loss(loss)
        left = iter(tensors)
        grads = [
            g if g is None else _with_constant_shape(next(left), g)
            for g in self.grads
        ]
        with frugal(self.optimizer):
            if self.variables is None:
                self.original(grads)
            else:
                self.original(grads, self.variables)


class ApplyLog:
    """Writes down the apply calls of a step.

    Args:
        optimizers: The optimizers whose `apply` is watched.
        immediate: Numbers of the calls that must run where they are made,
            because the step goes on from what they write; `None` for all.
    """

    def __init__(self, optimizers, immediate):
        self._optimizers = optimizers
        self._immediate = immediate
        self._of_thread = threading.local()

    @contextlib.contextmanager
    def watching(self):
        """Replaces `apply` of the optimizers while the block runs."""
        with contextlib.ExitStack() as stack:
            for optimizer in self._optimizers:
                stack.enter_context(
                    replaced_attribute(
                        optimizer, "apply", self._watched(optimizer)
                    )
                )
            yield

    @contextlib.contextmanager
    def recording(self):
        """Writes down the calls of this thread: one replica's step."""
        calls: list[ApplyCall] = []
        self._of_thread.calls, self._of_thread.inside = calls, False
        self._of_thread.graph = _graph()
        try:
            yield calls
        finally:
            self._of_thread.calls = None

    def _watched(self, optimizer):
        original = optimizer.apply
        # The apply of a hand-written loop's guard would judge it twice.
        original = getattr(original, "unguarded", original)

        def apply(grads, trainable_variables=None):
            thread = self._of_thread
            calls = getattr(thread, "calls", None)
            if calls is None or thread.inside or not len(grads):
                # Another thread, or an outer optimizer calls its inner one.
                return original(grads, trainable_variables)
            variables = trainable_variables
            if variables is not None:
                variables = list(variables)
                ensure_built(optimizer, variables)
            graph = _graph()
            visible = graph is thread.graph
            deferred = (
                visible
                and graph is not None
                and self._immediate is not None
                and len(calls) not in self._immediate
            )
            call = ApplyCall(
                optimizer=optimizer,
                original=original,
                grads=list(grads),
                variables=variables,
                operations=len(graph.get_operations()) if graph else 0,
                visible=visible,
                deferred=deferred,
                touched=frozenset(
                    id(h)
                    for v in [
                        *optimizer_variables(optimizer),
                        *(variables or []),
                    ]
                    # The rate is read by steps that log it, never written.
                    if getattr(v, "name", None) != "learning_rate"
                    for h in handles(v)
                ),
                loss=_loss_shown(optimizer, graph) if deferred else None,
            )
            calls.append(call)
            if not call.deferred:
                thread.inside = True
                try:
                    original(grads, trainable_variables)
                finally:
                    thread.inside = False
            return None

        return apply


def _with_constant_shape(passed, original):
    """Returns a gradient that a function returned, of a shape known ahead.

    A function returns the shape of `IndexedSlices` as a tensor. Where it is
    not a constant, XLA fills the dense gradient one row after the other: 25
    times the time of a step with an embedding of 100,000 rows.
    """
    if not isinstance(passed, tf.IndexedSlices):
        return passed
    shape = original.dense_shape
    shape = None if shape is None else tf.get_static_value(shape)
    if shape is None:
        return passed
    return tf.IndexedSlices(passed.values, passed.indices, tf.constant(shape))


def _judge_of_loss(optimizer):
    """Returns the optimizer in a chain of wrappers that is shown losses."""
    while optimizer is not None and not hasattr(optimizer, "take_loss"):
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return optimizer


def _loss_shown(optimizer, graph):
    """Takes the loss that was shown for the call now made, if it is here."""
    judge = _judge_of_loss(optimizer)
    loss = None if judge is None else judge.take_loss()
    return loss if getattr(loss, "graph", None) is graph else None


def _graph():
    if tf.executing_eagerly():
        return None
    return tf.compat.v1.get_default_graph()


def ensure_built(optimizer, variables):
    """Builds an optimizer as its first `apply` would."""
    if not optimizer.built:
        with keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(variables)
        optimizer.built = True


def loss_scale(optimizer):
    """Returns the loss scale of an optimizer that searches one, else `None`.

    Args:
        optimizer: A Keras optimizer.

    Returns:
        The variable; the initial scale, a float, before it is built.
    """
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return None
    if not optimizer.built:
        return optimizer.initial_scale
    return optimizer.dynamic_scale


def optimizer_variables(optimizer):
    """Returns all variables of an optimizer and of those it wraps.

    `variables` alone lacks what Nadam holds in an attribute only.
    """
    found = {id(v): v for v in optimizer.variables}
    while optimizer is not None:
        found.update(
            (id(v), v)
            for v in vars(optimizer).values()
            if isinstance(v, keras.Variable)
        )
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return list(found.values())


def find_optimizers(model):
    """Returns the optimizers that a model's train step can reach.

    Looked for in the attributes of the model and of its layers, in lists and
    dicts there, and among the names that `train_step` closes over.

    Args:
        model: A Keras model.

    Returns:
        List without duplicates, outer optimizers before the inner ones.
    """
    found: dict[int, Any] = {}
    seen: set[int] = set()

    def visit(value, depth):
        if id(value) in seen or depth > 3:
            return
        if isinstance(value, keras.optimizers.Optimizer):
            seen.add(id(value))
            found.setdefault(id(value), value)
            visit(getattr(value, "inner_optimizer", None), depth)
        elif isinstance(value, dict):
            seen.add(id(value))
            for item in list(value.values()):
                visit(item, depth + 1)
        elif isinstance(value, (list, tuple, set)) and len(value) < 100:
            seen.add(id(value))
            for item in value:
                visit(item, depth + 1)

    visit(getattr(model, "optimizer", None), 0)
    for owner in [model, *getattr(model, "layers", ())]:
        for name, value in list(vars(owner).items()):
            if name not in ("_layers", "_operations", "_nodes"):
                visit(value, 0)
    if (step := getattr(model, "train_step", None)) is not None:
        visit(closed_over(step), 0)
    return list(found.values())
