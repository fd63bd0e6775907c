"""The stages of a watched step: guard, replay, diagnose, report, recover."""

import importlib
from typing import TYPE_CHECKING

from stablekeras.watch.records import Diagnosis, Incident

if TYPE_CHECKING:
    from stablekeras.watch.callback import NaNWatch

__all__ = ["Diagnosis", "Incident", "NaNWatch"]


def __getattr__(name):
    # Reading a record needs no TensorFlow; watching does.
    if name != "NaNWatch":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("stablekeras.watch.callback").NaNWatch
