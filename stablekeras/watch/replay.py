"""Run a failing step again, measured op by op and without effects."""

import contextlib
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from stablekeras.errors import ReplayError
from stablekeras.graphs.compiled import finite_when_compiled
from stablekeras.graphs.run import run
from stablekeras.graphs.trace import array_paths, trace
from stablekeras.watch.records import Trace

__all__ = ["replay_step"]


def replay_step(model, incident, train_step=None, history=()):
    """Runs the step of an incident again and measures every float tensor.

    The model's own `train_step` is traced on the recorded batch: forward
    pass, loss, backward pass, and the optimizer where it can matter. It runs
    uncompiled, op by op, on the state before the failing step; variables are
    read, never written, and random layers see the seeds they saw.

    Args:
        model: The compiled `keras.Model`, its variables as they were before
            the step, save for those in `incident.state`.
        incident: The `Incident`: `batch` is what `train_step` received,
            `state` holds values by variable path.
        train_step: The step to run; by default that of the model's class.
        history: Logs of the last steps, oldest first.

    Returns:
        A `Trace`. Whether the failure showed again is `trace.reproduced`;
        what could not be run as it was stands in `trace.notes`.

    Raises:
        ReplayError: If the step cannot be traced, or its batch is not dense.
    """
    if train_step is None:
        train_step = type(model).train_step.__get__(model)
    optimizers = _optimizers(model)
    skip_update = type(model).train_step is keras.Model.train_step and not {
        "update",
        "state",
        "variable",
    } & set(incident.tripped)
    names, batch, rows = _batch(incident.batch)
    with _own_optimizers(optimizers, skip_update):
        try:
            traced = trace(
                train_step,
                (batch,),
                names=names,
                variables=_variables(model, optimizers),
            )
        except Exception as error:
            raise ReplayError(
                "The failing step must be traceable into a graph to be "
                f"replayed. Received: {type(error).__name__}: {error}. "
                "Pass `stablekeras.diagnose` the loss function and the "
                "recorded batch instead."
            ) from error
    execution = run(traced, state=incident.state, rows=rows)
    losses = tuple(
        ("loss", ref)
        for ref in (execution.ref(t) for t in traced.losses)
        if ref is not None
    )
    outputs = tuple((n, execution.ref(t)) for n, t in traced.outputs)
    found = Trace(
        execution=execution,
        losses=losses,
        gradients=tuple((n, execution.ref(t)) for n, t in traced.gradients),
        outputs=outputs,
        rows=rows,
        arrays=tuple(names),
        notes=_notes(model, execution),
        history=tuple(history),
    )
    if found.reproduced or incident.state:
        return found
    jit = bool(getattr(model, "jit_compile", False))
    return dataclasses.replace(
        found, compiled=finite_when_compiled(traced, jit)
    )


def _notes(model, execution):
    notes = []
    if getattr(model, "jit_compile", False):
        notes.append(
            "the step ran under XLA and was replayed without it, op by op"
        )
    fickle = sorted(
        {
            node.type
            for node in execution.nodes
            if node.op.op_def.is_stateful
            and node.type.startswith(("Random", "Truncated", "Multinomial"))
        }
    )
    if fickle:
        notes.append(
            f"{', '.join(fickle)} drew other numbers than in the failing "
            "step: give the layer a seed to have them replayed"
        )
    return tuple(notes)


def _batch(batch):
    """Returns names, batch and number of rows; arrays become tensors."""
    for leaf in tf.nest.flatten(batch):
        if isinstance(leaf, (tf.RaggedTensor, tf.SparseTensor)):
            raise ReplayError(
                "A batch must be dense to be replayed. Received: a "
                f"{type(leaf).__name__}. Convert it before the model, with "
                "to_tensor() or tf.sparse.to_dense()."
            )
    rows = next(
        (int(np.shape(x)[0]) for x in tf.nest.flatten(batch) if np.ndim(x)),
        None,
    )
    tensors = tf.nest.map_structure(
        lambda leaf: None if leaf is None else tf.convert_to_tensor(leaf),
        batch,
    )
    parts = tensors if isinstance(tensors, (tuple, list)) else (tensors,)
    names = [
        part + "".join(f"[{key!r}]" for key in path)
        for part, value in zip(("x", "y", "sample_weight"), parts, strict=False)
        for path in array_paths(value)
    ]
    return names, tensors, rows


def _optimizers(model):
    found: list = []
    for value in vars(model).values():
        for leaf in value if isinstance(value, (list, tuple)) else (value,):
            while isinstance(leaf, keras.optimizers.Optimizer):
                if all(leaf is not other for other in found):
                    found.append(leaf)
                leaf = getattr(leaf, "inner_optimizer", None)
    if isinstance(model.optimizer, keras.optimizers.Optimizer) and all(
        model.optimizer is not other for other in found
    ):
        found.append(model.optimizer)
    return found


def _variables(model, optimizers):
    seen: dict = {}
    for holder in (model, *optimizers):
        for variable in holder.variables:
            seen.setdefault(id(variable), variable)
    for metric in getattr(model, "metrics", ()):
        for variable in metric.variables:
            seen.setdefault(id(variable), variable)
    return list(seen.values())


@contextlib.contextmanager
def _own_optimizers(optimizers, skip_update):
    """Takes a watch's hooks off the optimizers while a step is traced.

    Args:
        optimizers: The optimizers.
        skip_update: Whether to leave the update out: where the loss or a
            gradient already is not finite it only costs time.
    """
    hooks = []
    for optimizer in optimizers:
        hooks.append((optimizer, optimizer.__dict__.pop("apply", None)))
        if skip_update:
            optimizer.__dict__["apply"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        for optimizer, hook in hooks:
            optimizer.__dict__.pop("apply", None)
            if hook is not None:
                optimizer.__dict__["apply"] = hook
