"""`NaNWatch`: the callback that wires the stages together."""

import dataclasses
import importlib
import warnings

import keras

from stablekeras.errors import NonFiniteError
from stablekeras.graphs import train_function
from stablekeras.watch import incident as incidents
from stablekeras.watch.guard import Transaction
from stablekeras.watch.loop import WatchedFunction
from stablekeras.watch.records import Diagnosis
from stablekeras.watch.recover import ACTIONS, Policy

__all__ = ["NaNWatch"]


@keras.saving.register_keras_serializable(package="stablekeras")
class NaNWatch(keras.callbacks.Callback):
    """Makes every training step a transaction: it commits or never happened.

    Args:
        action: What to do about a step that is not finite. `"stop"` ends the
            training cleanly with the state before the step; `"skip"` goes on
            as if the batch had not been in the data; `"rollback"` returns to
            the last good snapshot with a lower learning rate; `"raise"`
            raises `stablekeras.errors.NonFiniteError`.
        max_skips: Most steps to skip (or roll back) in one training, then it
            stops; `None` for no limit.
        max_consecutive_skips: Most of them in a row; `None` for no limit.
        rollback_lr_factor: The learning rate is multiplied by it at each
            rollback, in (0, 1].
        snapshot_every: When `action="rollback"` takes a snapshot: `"epoch"`
            or a number of steps.
        directory: Where the folders of incidents are written; `None` for
            nowhere.
        diagnose: Whether to run the failing step again and explain it.
        verbose: 0 silent, 1 reports incidents on the terminal.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        action="stop",
        *,
        max_skips=None,
        max_consecutive_skips=10,
        rollback_lr_factor=0.5,
        snapshot_every="epoch",
        directory="incidents",
        diagnose=True,
        verbose=1,
    ):
        super().__init__()
        if action not in ACTIONS:
            raise ValueError(
                f"action must be one of {ACTIONS}. Received: "
                f"action={action!r}. Pass 'stop' to end the training."
            )
        self.action = action
        self.max_skips = max_skips
        self.max_consecutive_skips = max_consecutive_skips
        self.rollback_lr_factor = rollback_lr_factor
        self.snapshot_every = snapshot_every
        self.directory = directory
        self.diagnose = diagnose
        self.verbose = verbose
        self.incidents = []
        self.skipped = 0
        self.overflows = 0
        self._policy = Policy(action, max_skips, max_consecutive_skips)
        self._epoch = 0
        self._begin = 0
        self._last_logs = None
        self._bad_steps = 0

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "action": self.action,
            "max_skips": self.max_skips,
            "max_consecutive_skips": self.max_consecutive_skips,
            "rollback_lr_factor": self.rollback_lr_factor,
            "snapshot_every": self.snapshot_every,
            "directory": self.directory,
            "diagnose": self.diagnose,
            "verbose": self.verbose,
        }

    @classmethod
    def from_config(cls, config):
        """Returns a watch made with the arguments of `get_config`."""
        return cls(**config)

    # Hooks of the training.

    def on_train_begin(self, logs=None):
        """Starts the counts anew."""
        self._policy.reset()
        left = train_function.installed(self.model)
        if isinstance(left, WatchedFunction):
            left.disarm()

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the epoch."""
        self._epoch = epoch
        self._last_logs = None
        self._bad_steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        """Puts the watched function in for the step that comes."""
        self._begin = batch
        bare = train_function.installed(self.model)
        if isinstance(bare, WatchedFunction):  # Another watch was first.
            bare.arm(self)
        else:
            self._watched(bare).arm(self)

    def on_train_batch_end(self, batch, logs=None):
        """Shows the count of refused steps beside the loss."""
        if self._bad_steps and logs is not None:
            logs["nonfinite_steps"] = self._bad_steps

    def on_epoch_end(self, epoch, logs=None):
        """Puts the count of refused steps into History."""
        if logs is not None:
            logs["nonfinite_steps"] = self._bad_steps

    # What the watched function asks.

    def committed(self, steps, logs, overflows):
        """Told of steps that were committed."""
        self._last_logs = logs
        self._policy.progress()
        self.overflows += overflows

    def fallback(self):
        """Returns the logs of a call in which no step was committed."""
        if self._last_logs is not None:
            return self._last_logs
        return self.model.get_metrics_result()

    def trip(self, trip):
        """Told of a refused step; returns whether to go on or leave."""
        action = self._policy.decide()
        incident = incidents.record(
            trip,
            epoch=self._epoch,
            step=self._begin + trip.offset,
            action=action,
        )
        incident = self._explain(incident)
        self.incidents.append(incident)
        self._bad_steps += 1
        if action == "skip":
            self.skipped += 1
            return "go on"
        if action == "raise":
            raise NonFiniteError(_headline(incident), incident)
        self.model.stop_training = True
        return "leave"

    # Stages.

    def _watched(self, bare):
        known = getattr(bare, "_stablekeras_watched", None)
        if known is None or not known.fits():
            step = self.model.train_step
            known = WatchedFunction(
                self.model,
                Transaction(self.model, step),
                Transaction(self.model, step, trial=True),
            )
            # Lives and dies with the function it stands in for.
            bare._stablekeras_watched = known
        return known

    def _explain(self, incident):
        diagnosis = None
        if self.diagnose:
            try:
                replay = importlib.import_module("stablekeras.watch.replay")
                explain = importlib.import_module("stablekeras.watch.diagnose")
                trace = replay.replay_step(self.model, incident)
                diagnosis = explain.explain(trace)
            except Exception as error:
                diagnosis = _unknown(incident, error)
        incident = dataclasses.replace(incident, diagnosis=diagnosis)
        if self.directory is not None:
            try:
                bundle = importlib.import_module("stablekeras.watch.bundle")
                path = bundle.write(incident, self.model, self.directory)
                incident = dataclasses.replace(incident, path=path)
            except Exception as error:
                warnings.warn(f"The incident was not written: {error}")
        if self.verbose:
            try:
                report = importlib.import_module("stablekeras.watch.report")
                report.show(incident, self.verbose)
            except Exception as error:
                warnings.warn(f"The incident was not shown: {error}")
        return incident


def _headline(incident):
    report = importlib.import_module("stablekeras.watch.report")
    return report.headline(incident)


def _unknown(incident, error):
    rows = incidents.bad_rows(incident.batch)
    evidence = [f"not finite: {', '.join(incident.tripped)}"]
    evidence += [f"{k} = {v:g}" for k, v in incident.logs.items()]
    if rows:
        evidence.append(f"rows of the batch with NaN or Inf: {rows}")
    evidence.append(f"replay failed: {type(error).__name__}: {error}")
    return Diagnosis(
        code="SK000",
        title="unknown cause",
        cause="The step was not finite; replaying it did not show why.",
        remedy="Run the step eagerly on the recorded batch.",
        samples=rows,
        evidence=tuple(evidence),
    )
