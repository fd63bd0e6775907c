"""Check the arguments of a watch."""

import math
import numbers
import os

from stablekeras.watch.records import ACTIONS

__all__ = ["check"]


def check(**given):
    """Raises if an argument of `NaNWatch` is out of its range.

    Raises:
        ValueError: If a value is out of its range.
        TypeError: If a value is of a wrong type.
    """
    action = given["action"]
    if action not in ACTIONS:
        raise ValueError(
            f"action must be one of {', '.join(map(repr, ACTIONS))}. "
            f"Received: action={action!r}. Pass 'stop' to end the training "
            "with the state before the failing step."
        )
    for name, least in (("max_skips", 0), ("max_consecutive_skips", 0)):
        value = given[name]
        if value is not None and not _is_integer(value, least):
            raise ValueError(
                f"{name} must be an integer >= {least} or None. Received: "
                f"{name}={value!r}. Pass None for no limit."
            )
    factor = given["rollback_lr_factor"]
    if (
        isinstance(factor, bool)
        or not isinstance(factor, numbers.Real)
        or not math.isfinite(factor)
        or not 0.0 < float(factor) <= 1.0
    ):
        raise ValueError(
            "rollback_lr_factor must be a number in (0, 1]. Received: "
            f"rollback_lr_factor={factor!r}. Pass 1.0 to keep the learning "
            "rate."
        )
    every = given["snapshot_every"]
    if every != "epoch" and not _is_integer(every, 1):
        raise ValueError(
            "snapshot_every must be 'epoch' or an integer >= 1. Received: "
            f"snapshot_every={every!r}. Pass 'epoch' for one an epoch."
        )
    directory = given["directory"]
    if directory is not None and (
        not isinstance(directory, (str, os.PathLike)) or not str(directory)
    ):
        raise TypeError(
            "directory must be a path or None. Received: "
            f"directory={directory!r}. Pass None to write nothing."
        )
    if not isinstance(given["diagnose"], bool):
        raise TypeError(
            "diagnose must be a bool. Received: "
            f"diagnose={given['diagnose']!r}. Pass False to leave the cause "
            "unexplained."
        )
    verbose = given["verbose"]
    if not isinstance(verbose, bool) and not _is_integer(verbose, 0):
        raise ValueError(
            f"verbose must be an integer >= 0. Received: verbose={verbose!r}. "
            "Pass 0 for silence, 1 for the report on the terminal."
        )


def _is_integer(value, least):
    return (
        isinstance(value, numbers.Integral)
        and not isinstance(value, bool)
        and value >= least
    )
