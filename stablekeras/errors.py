"""The exceptions stablekeras raises.

    StableKerasError            everything below; catch this to catch all
    ├── NonFiniteError          a value that must be finite is NaN or Inf
    │   └── TooManySkipsError   skipping did not help: the streak went on
    ├── BundleError             an incident folder cannot be read or trusted
    ├── ReplayError             a recorded step cannot be run again
    └── VersionError            this Keras or TensorFlow lacks what we need

Plain bad arguments stay `ValueError` and `TypeError`, as in Keras.
"""

__all__ = [
    "BundleError",
    "NonFiniteError",
    "ReplayError",
    "StableKerasError",
    "TooManySkipsError",
    "VersionError",
]


class StableKerasError(Exception):
    """Base class of every error that stablekeras raises on its own behalf."""


class NonFiniteError(StableKerasError, ArithmeticError):
    """A value that must be finite is NaN or infinite.

    The message names what failed, where, and the remedy. The state of the
    training is that of the last good step.

    Args:
        message: What failed, what was received, and the remedy.
        incident: The `stablekeras.watch.Incident`, where a watch made one.
    """

    def __init__(self, message, incident=None):
        super().__init__(message)
        self.incident = incident

    @property
    def diagnosis(self):
        """The incident's `Diagnosis`, or `None` without one."""
        return None if self.incident is None else self.incident.diagnosis


class TooManySkipsError(NonFiniteError):
    """More steps than allowed in a row were skipped as non-finite."""


class BundleError(StableKerasError, ValueError):
    """An incident folder is missing, damaged, or holds what it must not."""


class ReplayError(StableKerasError, RuntimeError):
    """A recorded step cannot be run again here."""


class VersionError(StableKerasError, ImportError):
    """The installed Keras or TensorFlow lacks an interface that is needed."""
