"""`NaNWatch`: the callback that wires the stages together."""

import contextlib
import copy
import math
import warnings
from typing import Any

import keras

from stablekeras.errors import NonFiniteError
from stablekeras.graphs import learning_rate, train_function
from stablekeras.graphs.apply_calls import optimizer_variables
from stablekeras.watch import arguments, investigate, report
from stablekeras.watch import incident as incidents
from stablekeras.watch.divergence import Divergence
from stablekeras.watch.fellows import Fellows
from stablekeras.watch.guard import Transaction
from stablekeras.watch.history import (
    StepHistory,
    check_clipping,
    show_clipping,
)
from stablekeras.watch.loop import WatchedFunction
from stablekeras.watch.manual import ManualGuard
from stablekeras.watch.recover import Policy
from stablekeras.watch.rollback import Rollback
from stablekeras.watch.validation import Validation
from stablekeras.watch.witness import call_witness

__all__ = ["NaNWatch"]


@keras.saving.register_keras_serializable(package="stablekeras")
class NaNWatch(keras.callbacks.Callback):
    """Makes every training step a transaction: it commits or never happened.

    A step whose loss, gradients or statistics are not finite, or whose
    update the optimizer does not survive, leaves no trace: every weight,
    optimizer slot, BatchNorm statistic, seed and metric is bit for bit what
    it was. The failing batch is run again to say why. Between steps the
    model is the user's own; nothing stays installed.

    The logs of an epoch get `nonfinite_steps`, the number of refused steps,
    and with a `ClippedOptimizer` what it did: `grad_norm`, `clip_rate` and
    `skipped_steps`, in which the steps skipped by this watch are counted too.
    What a step logs itself under such a name stays.

    Args:
        action: What to do about such a step. `"stop"` ends the training
            cleanly with the state before the step; `"skip"` goes on as if
            the batch had not been in the data; `"rollback"` returns to the
            last good snapshot with a lower learning rate, the cure for
            divergence; `"raise"` raises `stablekeras.errors.NonFiniteError`.
        max_skips: Most steps to skip (or roll back) in one training, then it
            stops; `None` for no limit.
        max_consecutive_skips: Most of them in a row, `None` for no limit. A
            committed step ends a row of skips, a new snapshot one of
            rollbacks.
        rollback_lr_factor: The learning rate is multiplied by it at each
            rollback, in (0, 1].
        snapshot_every: When `action="rollback"` takes a snapshot: `"epoch"`
            or a number of steps.
        directory: Where the folders of incidents are written; `None` for
            nowhere.
        diagnose: Whether to run the failing step again and explain it.
        verbose: 0 silent, 1 reports incidents on the terminal.

    Attributes:
        incidents: List of `stablekeras.Incident`, over all trainings; the
            latest 50 hold their batch.
        skipped: Number of skipped steps, over all trainings.
        overflows: Number of loss-scale overflows, which are no incidents.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument is of a wrong type.

    Example:
    >>> import keras, numpy as np, stablekeras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((6, 2), "float32"), np.ones((6, 1), "float32")
    >>> x[3] = np.nan
    >>> watch = stablekeras.NaNWatch("skip", directory=None, verbose=0)
    >>> history = model.fit(x, y, batch_size=2, shuffle=False, verbose=0,
    ...                     callbacks=[watch])
    >>> [(i.epoch, i.step, i.diagnosis.samples) for i in watch.incidents]
    [(0, 1, (1,))]
    >>> bool(np.isfinite(history.history["loss"][0])), watch.skipped
    (True, 1)
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
        arguments.check(
            action=action,
            max_skips=max_skips,
            max_consecutive_skips=max_consecutive_skips,
            rollback_lr_factor=rollback_lr_factor,
            snapshot_every=snapshot_every,
            directory=directory,
            diagnose=diagnose,
            verbose=verbose,
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
        self._begin_training()

    def _begin_training(self):
        self._policy = Policy(
            self.action, self.max_skips, self.max_consecutive_skips
        )
        self._fellows = Fellows(None)
        self._witness: Any = None
        self._divergence = Divergence()
        self._rollback: Any = None
        if self.action == "rollback":
            self._rollback = Rollback(
                self.snapshot_every,
                self.rollback_lr_factor,
                self._divergence,
            )
        self._watched_function: Any = None
        self._history = StepHistory()
        self._begin_epoch(0)

    def _begin_epoch(self, epoch):
        self._epoch = epoch
        self._begin = 0
        self._test_begin = 0
        self._good_logs = None
        self._good_steps = 0
        self._call_steps = 0
        self._gradient_norm = None
        self._bad_steps = 0
        self._bad_test_steps = 0
        self._good_test_steps = 0

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

    def __deepcopy__(self, memo):
        """Returns a watch as this one is between two trainings.

        Tuners copy their callbacks for each trial; what was traced stays.
        """
        copied = copy.copy(self)
        copied._model = None
        copied.incidents = list(self.incidents)
        copied._begin_training()
        return copied

    def guard(self, model, optimizer=None):
        """Watches `train_on_batch` and hand-written loops.

        Inside the block every `optimizer.apply` (and `apply_gradients`)
        commits only if its gradients and the model's statistics are finite;
        else the statistics are put back to what they were after the last
        good one. `train_on_batch` is a transaction as in `fit`. Steps are
        numbered from 0 in the order they are tried; the epoch is 0. With
        `action="stop"` the block is left at the failing step.

        Args:
            model: The Keras model.
            optimizer: The optimizer of the loop, or a list of them; by
                default the model's.

        Returns:
            A context manager.

        Raises:
            ValueError: If there is no optimizer to watch.

        Example:
        >>> import keras, numpy as np, stablekeras
        >>> model = keras.Sequential([keras.Input((2,)),
        ...                           keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> watch = stablekeras.NaNWatch("skip", directory=None, verbose=0)
        >>> x = np.full((4, 2), np.nan, "float32")
        >>> with watch.guard(model):
        ...     _ = model.train_on_batch(x, np.ones((4, 1), "float32"))
        >>> watch.skipped, bool(np.isfinite(model.get_weights()[0]).all())
        (1, True)
        """
        return ManualGuard(self, model, optimizer)

    # Hooks of the training.

    def on_train_begin(self, logs=None):
        """Starts the counts anew."""
        self._begin_training()
        for name in ("train_function", "test_function"):
            left = train_function.installed(self.model, name)
            if isinstance(left, WatchedFunction):
                left.disarm()
        self._fellows = Fellows(self)
        self._witness = call_witness(self.model)
        self._resume(self._fellows.saved_counts())
        if train_function.overrides_train_function(self.model):
            warnings.warn(
                "NaNWatch replaces the train function, so that the model's "
                f"own make_train_function is not used. Received: "
                f"{type(self.model).__name__}. Override train_step instead."
            )

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the epoch."""
        self._begin_epoch(epoch)
        self._divergence.new_epoch()

    def on_train_batch_begin(self, batch, logs=None):
        """Puts the watched function in for the call that comes."""
        self._begin = batch
        self._call_steps = 0
        self._gradient_norm = None
        if self._rollback is not None and self._watched_function is not None:
            self._rollback.keep_rates_low(self._optimizers())
        self.watched("train_function").arm(self)

    def on_train_batch_end(self, batch, logs=None):
        """Shows the count of refused steps beside the loss.

        Raises:
            NonFiniteError: See `nonfinite` of `ClippedOptimizer`.
            TooManySkipsError: See `max_consecutive_skips` there.
        """
        check_clipping(self.model)
        if self._bad_steps and logs is not None:
            logs["nonfinite_steps"] = self._bad_steps
        loss = (logs or {}).get("loss")
        self._history.add(loss, self._gradient_norm)
        if logs is not None and self._fellows.read_batches():
            show_clipping(logs, self.model, self.skipped)
        if (
            self._can_roll_back()
            and loss is not None
            and self._call_steps
            and self._divergence.call(loss, self._call_steps)
        ):
            self._diverged(loss)

    def on_epoch_end(self, epoch, logs=None):
        """Puts the count of refused steps into History."""
        self._fellows.save_counts(epoch + 1, self._counts())
        if logs is None:
            return
        show_clipping(logs, self.model, self.skipped)
        if self._can_roll_back():
            self._retrace_unless(self._rollback.epoch_ends(self._optimizers()))
            if self._divergence.epoch():
                self._diverged(logs.get("loss", math.nan))
        logs["nonfinite_steps"] = self._bad_steps
        # A mean over no step is not 0, which would look like the best.
        for validation, bad, good in (
            (False, self._bad_steps, self._good_steps),
            (True, self._bad_test_steps, self._good_test_steps),
        ):
            if bad and not good:
                for name, value in logs.items():
                    if name.startswith("val_") is validation and isinstance(
                        value, float
                    ):
                        logs[name] = math.nan
        if self._bad_test_steps:
            logs["val_nonfinite_steps"] = self._bad_test_steps

    def on_train_end(self, logs=None):
        """Lets go of what belongs to this training."""
        self._fellows.give_back()
        self._fellows = Fellows(None)
        self._rollback = self._watched_function = None

    def on_test_batch_begin(self, batch, logs=None):
        """Watches a validation step."""
        self._test_begin = batch
        self.watched("test_function").arm(Validation(self))

    def _counts(self):
        policy = self._policy
        return {
            "skipped": self.skipped,
            "overflows": self.overflows,
            "total": policy.total,
            "consecutive": policy.consecutive,
        }

    def _resume(self, counts):
        # In the process that was interrupted, more has been counted since.
        self.skipped = max(self.skipped, counts.get("skipped", 0))
        self.overflows = max(self.overflows, counts.get("overflows", 0))
        self._policy.total = counts.get("total", 0)
        self._policy.consecutive = counts.get("consecutive", 0)

    # What the watched function tells and asks.

    def before(self, function, iterator):
        """Told that a call begins; takes the snapshot that is due."""
        self._watched_function = function
        rollback = self._rollback
        if rollback is None or not rollback.is_due(self._begin):
            return
        if not rollback.is_ready and not self._is_built():
            function.prepare(iterator)
            if not self._is_built():  # An eager step builds when it runs.
                return
        if rollback.take(
            self._variables(),
            function.transaction.written,
            epoch=self._epoch,
            step=self._begin,
            leave_out=[
                *(v for m in self.model.metrics for v in m.variables),
                *learning_rate.variables(self._optimizers()),
            ],
        ):
            self._policy.progress()

    def committed(self, steps, logs, overflows, gradient_norm=None):
        """Told of steps that were committed."""
        self._good_logs = logs
        self._gradient_norm = gradient_norm
        self._good_steps += steps
        self._call_steps += steps
        self.overflows += overflows
        if self._rollback is None:
            self._policy.progress()
        else:
            self._rollback.committed(steps)

    def fallback(self):
        """Returns the logs of a call in which no step was committed."""
        if self._good_logs is not None:
            return self._good_logs
        with contextlib.suppress(ValueError):  # Metrics may be unbuilt.
            return self.model.get_metrics_result()
        return {}

    def trip(self, trip, may_roll_back=True):
        """Told of a refused step; returns whether to go on or leave."""
        action = self._policy.decide()
        can_roll_back = may_roll_back and self._can_roll_back()
        if action == "rollback" and not can_roll_back:
            action = "stop"  # There never was a good state.
        incident = incidents.record(
            trip,
            epoch=self._epoch,
            step=self._begin + trip.offset,
            action=action,
            faulty=incidents.faulty_variables(self._variables()),
        )
        self._bad_steps += 1
        return self._act(self._explain(incident))

    def begin_block(self, guard):
        """Starts the counts anew for a block of hand-written steps."""
        self._begin_training()
        self._watched_function = guard
        self._witness = call_witness(self.model)

    def step_begins(self, function, step, *, as_epoch=False, iterator=None):
        """Told of a step of a block; `as_epoch`: one that begins an epoch."""
        self._begin = 0 if as_epoch else step
        self.before(function, iterator)

    def steps_committed(self, steps):
        """Told of hand-written steps that were committed."""
        self.committed(steps, self._good_logs, 0)

    def trip_at(self, trip, step, may_roll_back=True):
        """As `trip`, for a step of a block, numbered there."""
        self._begin = step
        return self.trip(trip, may_roll_back)

    # Actions.

    def _act(self, incident):
        incidents.add(self.incidents, incident)
        if incident.action == "skip":
            self.skipped += 1
            return "go on"
        if incident.action == "rollback":
            return self._roll_back()
        self._fellows.keep_backups()
        if incident.action == "raise":
            raise NonFiniteError(report.headline(incident), incident)
        self.model.stop_training = True
        return "leave"

    def _roll_back(self):
        seen = self._rollback.back(self._optimizers())
        self.model.reset_metrics()
        self._good_logs = None
        self._good_steps = 0  # They are undone with the rest.
        self._retrace_unless(seen)
        return "go on" if seen else "leave"

    def _retrace_unless(self, seen):
        if not seen:  # A schedule was replaced: traced steps hold the old.
            self.model.make_train_function(force=True)

    def _can_roll_back(self):
        return self._rollback is not None and self._rollback.is_ready

    def _diverged(self, loss):
        action = self._policy.decide()
        incident = incidents.diverged(
            epoch=self._epoch,
            step=self._begin + self._call_steps - 1,
            action=action,
            loss=loss,
            first=self._divergence.reference,
        )
        self._act(self._explain(incident))

    # Stages.

    def watched(self, name):
        """Returns the watched function for the model's train function."""
        bare = train_function.installed(self.model, name)
        if isinstance(bare, WatchedFunction):  # Another watch was first.
            return bare
        known = getattr(bare, "watched", None)
        if known is None or not known.fits():
            known = self._make_watched(name)
            # Lives and dies with the function it stands in for.
            with contextlib.suppress(AttributeError):
                bare.watched = known
        return known

    def _make_watched(self, name):
        model = self.model
        if name == "test_function":
            step = Transaction(model, model.test_step)
            return WatchedFunction(model, step, None, name)
        return WatchedFunction(
            model,
            Transaction(model, model.train_step),
            Transaction(model, model.train_step, trial=True),
        )

    def _optimizers(self):
        return self._watched_function.transaction.optimizers

    def _variables(self):
        return [
            *self.model.variables,
            *(v for o in self._optimizers() for v in optimizer_variables(o)),
        ]

    def _is_built(self):
        return self.model.built and all(o.built for o in self._optimizers())

    def _explain(self, incident, step=None):
        return investigate.investigate(
            incident,
            self.model,
            step or self.model.__dict__.get("train_step"),
            explain=self.diagnose,
            directory=self.directory,
            verbose=self.verbose,
            history=self._history.rows(),
            witness=self._witness,
        )
