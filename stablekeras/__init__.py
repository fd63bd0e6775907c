"""Training runs that never die of NaN, for Keras 3 on TensorFlow.

The parts are imported when they are first used: `ops`, `activations`,
`losses` and `optimizers` run on every Keras backend, the rest needs
TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stablekeras import activations, errors, losses, ops, optimizers
    from stablekeras.errors import NonFiniteError
    from stablekeras.rewrite.stabilize import stabilize
    from stablekeras.watch.callback import NaNWatch
    from stablekeras.watch.diagnose import diagnose
    from stablekeras.watch.records import Diagnosis, Incident
    from stablekeras.watch.rerun import replay

__version__ = "0.1.0"

__all__ = [
    "Diagnosis",
    "Incident",
    "NaNWatch",
    "NonFiniteError",
    "activations",
    "diagnose",
    "errors",
    "losses",
    "ops",
    "optimizers",
    "replay",
    "stabilize",
]

# Where each public name lives; a module that is public itself has no name.
_HOMES = {
    "Diagnosis": ("stablekeras.watch.records", "Diagnosis"),
    "Incident": ("stablekeras.watch.records", "Incident"),
    "NaNWatch": ("stablekeras.watch.callback", "NaNWatch"),
    "NonFiniteError": ("stablekeras.errors", "NonFiniteError"),
    "activations": ("stablekeras.activations", None),
    "diagnose": ("stablekeras.watch.diagnose", "diagnose"),
    "errors": ("stablekeras.errors", None),
    "losses": ("stablekeras.losses", None),
    "ops": ("stablekeras.ops", None),
    "optimizers": ("stablekeras.optimizers", None),
    "replay": ("stablekeras.watch.rerun", "replay"),
    "stabilize": ("stablekeras.rewrite.stabilize", "stabilize"),
}


def __getattr__(name):
    try:
        module, attribute = _HOMES[name]
    except KeyError:
        raise AttributeError(
            f"module 'stablekeras' has no attribute {name!r}"
        ) from None
    home = importlib.import_module(module)
    value = home if attribute is None else getattr(home, attribute)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *_HOMES])
