"""`stabilize` of a model: its activations and its loss as one graph."""

import functools
import warnings

import keras
import tensorflow as tf

from stablekeras.graphs.emit import current_graph
from stablekeras.rewrite.plan import rewrite
from stablekeras.rewrite.tapes import before_derivatives

__all__ = ["stabilize_model"]


def stabilize_model(model):
    """Stabilizes what a model's training step differentiates, in place.

    Args:
        model: A `keras.Model`, compiled or not.

    Returns:
        The model.
    """
    if "rewrites" in model.__dict__:
        return model
    if keras.backend.backend() != "tensorflow":
        _warn(model, f"the Keras backend is {keras.backend.backend()}")
        object.__setattr__(model, "rewrites", [])
        return model
    rewrites: list = []
    compute_loss = model.compute_loss
    train_step = model.train_step

    @functools.wraps(compute_loss)
    def stable_loss(*args, **kwargs):
        loss = compute_loss(*args, **kwargs)
        if current_graph() is None:
            _warn(model, "it runs eagerly (run_eagerly=True)")
            return loss
        return _stable(model, rewrites, loss)

    @functools.wraps(train_step)
    def stable_step(*args, **kwargs):
        if current_graph() is None:
            return train_step(*args, **kwargs)
        with before_derivatives(lambda loss: _stable(model, rewrites, loss)):
            return train_step(*args, **kwargs)

    object.__setattr__(model, "compute_loss", stable_loss)
    object.__setattr__(model, "train_step", stable_step)
    object.__setattr__(model, "rewrites", rewrites)
    for name in ("train_function", "test_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
    return model


def _stable(model, rewrites, target):
    graph = current_graph()
    flat = tf.nest.flatten(target)
    places = [
        i
        for i, t in enumerate(flat)
        if tf.is_symbolic_tensor(t) and t.graph is graph
    ]
    try:
        new, found = rewrite(
            [flat[i] for i in places], lambda op: op.graph is graph
        )
    except Exception as error:
        _warn(model, f"its graph could not be rewritten: {error!r}")
        return target
    for place, tensor in zip(places, new, strict=True):
        flat[place] = tensor
    rewrites += [each for each in found if each not in rewrites]
    return tf.nest.pack_sequence_as(target, flat) if found else target


def _warn(model, why):
    warnings.warn(
        f"stabilize left {model.name!r} as it is: {why}", stacklevel=4
    )
