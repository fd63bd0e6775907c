"""Make the record of a refused step: the batch on the host, what tripped."""

import dataclasses

import keras
import numpy as np

from stablekeras.watch.records import Diagnosis, Incident

__all__ = [
    "add",
    "bad_rows",
    "batch_to_host",
    "diverged",
    "faulty_variables",
    "record",
    "scale_lost",
    "unknown",
]

# A training that skips for weeks must not fill the memory with its batches.
_MOST_BATCHES = 50


def add(found, incident):
    """Adds an incident to a list, in which only the latest keep their batch.

    Args:
        found: List of `Incident`, changed in place.
        incident: The newest `Incident`.
    """
    found.append(incident)
    if len(found) > _MOST_BATCHES:
        old = len(found) - _MOST_BATCHES - 1
        found[old] = dataclasses.replace(found[old], batch=None)


def batch_to_host(batch):
    """Copies a batch to the host.

    Args:
        batch: Nested structure of tensors, as `train_step` receives it.
            Values of several replicas are joined along their first axis.

    Returns:
        The same structure with NumPy arrays; ragged and sparse tensors stay
        what they are.
    """

    def host(x):
        values = getattr(x, "values", None)
        if isinstance(values, tuple):  # One tensor a replica.
            return np.concatenate([v.numpy() for v in values])
        if isinstance(x, (str, bytes)) or x is None:
            return x
        if hasattr(x, "to_tensor") or hasattr(x, "dense_shape"):
            return x
        return x.numpy() if hasattr(x, "numpy") else np.asarray(x)

    return keras.tree.map_structure(host, batch)


def bad_rows(batch):
    """Returns the rows of a host batch that hold NaN or Inf."""
    rows: set[int] = set()
    for leaf in keras.tree.flatten(batch):
        if isinstance(leaf, np.ndarray) and leaf.ndim:
            try:
                bad = ~np.isfinite(leaf)
            except TypeError:  # Strings have no NaN.
                continue
            rows.update(
                np.flatnonzero(bad.reshape(len(leaf), -1).any(1)).tolist()
            )
    return tuple(sorted(rows))


def faulty_variables(variables):
    """Returns the paths of the variables that hold NaN or Inf now."""
    faulty = []
    for v in variables:
        if "float" not in str(getattr(v, "dtype", "")):
            continue
        value = np.asarray(keras.ops.convert_to_numpy(v), np.float64)
        if not np.isfinite(value).all():
            faulty.append(v.path)
    return tuple(faulty)


def record(trip, *, epoch, step, action, faulty=()):
    """Makes the incident of a trip.

    Args:
        trip: The `Trip`.
        epoch: Epoch, from 0.
        step: Step of the epoch, from 0.
        action: What will be done.
        faulty: Paths of variables that were bad before the step.

    Returns:
        An `Incident` without diagnosis.
    """
    return Incident(
        epoch=epoch,
        step=step,
        action=action,
        tripped=trip.tripped + (("variable",) if faulty else ()),
        batch=batch_to_host(trip.batch),
        logs={"loss": trip.loss, "gradient_norm": trip.gradient_norm},
        replica=trip.replica,
    )


def diverged(*, epoch, step, action, loss, first):
    """Makes the incident of a training that ran away while still finite.

    Args:
        epoch: Epoch, from 0.
        step: Step of the epoch, from 0.
        action: What will be done.
        loss: Mean loss of the epoch so far.
        first: The loss that training began with.

    Returns:
        An `Incident` with its diagnosis, without a batch.
    """
    cause = (
        f"the mean loss of the epoch is {loss:.6g}; training began with "
        f"{first:.6g}"
    )
    return Incident(
        epoch=epoch,
        step=step,
        action=action,
        tripped=("divergence",),
        diagnosis=Diagnosis(
            code="SK601",
            title="divergence: the loss grew while still finite",
            cause=cause,
            remedy=(
                "Lower the learning rate (a tenth), scale inputs and targets "
                "to about 1, and clip: "
                "stablekeras.optimizers.ClippedOptimizer(optimizer, "
                "global_clipnorm=1.0)."
            ),
            evidence=(cause,),
        ),
        logs={"loss": float(loss)},
    )


def unknown(incident, error=None):
    """Returns the diagnosis of an incident that could not be replayed.

    Args:
        incident: The bare `Incident`.
        error: What the replay raised; `None` where there is no batch to
            replay, as in a hand-written loop.
    """
    rows = bad_rows(incident.batch)
    evidence = [f"not finite: {', '.join(incident.tripped)}"]
    evidence += [f"{k} = {v:g}" for k, v in incident.logs.items()]
    if rows:
        evidence.append(f"rows of the batch with NaN or Inf: {rows}")
    if error is None:
        cause = (
            "The step was not finite; loss and batch of a hand-written loop "
            "are not known to the watch."
        )
        remedy = (
            "Pass both to stablekeras.diagnose(loss_fn, *batch) where the "
            "loop sees a new incident."
        )
    else:
        evidence.append(f"replay failed: {type(error).__name__}: {error}")
        cause = "The step was not finite; replaying it did not show why."
        remedy = "Run the step eagerly on the recorded batch."
    return Diagnosis(
        code="SK000",
        title="unknown cause",
        cause=cause,
        remedy=remedy,
        samples=rows,
        evidence=tuple(evidence),
    )


def scale_lost(found):
    """Returns the diagnosis of a loss scale that fell as far as it may.

    Args:
        found: The `Diagnosis` of the gradient that did not become finite.
    """
    if found.code.startswith("SK7"):
        return found
    return dataclasses.replace(
        found,
        code="SK702",
        title="loss scale that collapsed",
        cause=(
            "the loss scale is down to 1 or not a number, and a gradient is "
            f"still not finite: {found.cause}"
        ),
        contributing=(f"{found.code} {found.title}", *found.contributing),
    )
