"""Break trainings by the hundred, and count what became of them."""

import dataclasses
import time

import keras
import numpy as np

import stablekeras
from stablekeras.errors import NonFiniteError
from tests.faults.draw import EPOCHS, draw
from tests.faults.oracle import Judge, expected_runs
from tests.faults.training import (
    Training,
    batches,
    differing,
    infected,
    nonfinite,
    values,
    variables,
)

__all__ = ["Bench", "Outcome", "campaign", "of_setting", "watch"]


def watch(action):
    """Returns the watch of the campaign; its limits are none."""
    return stablekeras.NaNWatch(
        action, max_consecutive_skips=None, directory=None, verbose=0
    )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one faulty training and of its healthy twin.

    A figure is `None` where it has no meaning: no row is to be named for a
    variable, and no step for a fault that does no harm.

    Args:
        fault: The `Fault`.
        harmful: Whether plain Keras meets something that is not finite.
        detected: The watch refused a step, or saw the loss scale overflow.
        alarm: It refused one although nothing was wrong.
        step: It refused exactly the steps that had to be refused, and
            recorded the batch as it was.
        rows: The diagnosis names exactly the rows.
        poisoned: A variable held NaN or Inf after a step or at the end,
            other than what the fault itself wrote there.
        equal: All variables and the History are bit for bit those of a
            training without the refused batches.
        as_keras: The same of plain Keras, whose steps the judge undid by
            copies; where both compile alike, without XLA and replicas.
        finished: It ended as the action says.
        false_alarms: Incidents of the healthy twin.
        seconds: Time taken.
        note: What was seen instead, for the reader of a failure.
    """

    fault: object
    harmful: bool
    detected: bool | None = None
    alarm: bool | None = None
    step: bool | None = None
    rows: bool | None = None
    poisoned: bool = False
    equal: bool | None = None
    as_keras: bool | None = None
    finished: bool = True
    false_alarms: int = 0
    seconds: float = 0.0
    note: str = ""

    @property
    def failures(self):
        """Names of the figures that are not as they must be."""
        wanted = {
            "detected": True,
            "alarm": False,
            "step": True,
            "rows": True,
            "poisoned": False,
            "equal": True,
            "finished": True,
            "false_alarms": 0,
        }
        found = {name: getattr(self, name) for name in wanted}
        return [
            name
            for name, value in found.items()
            if value is not None and value != wanted[name]
        ]


class _Inspector(keras.callbacks.Callback):
    """Looks at every variable after every call of the train function."""

    def __init__(self, sabotage):
        super().__init__()
        self._sabotage = sabotage
        self._written = None
        self.poisoned = False

    def look(self):
        masks = nonfinite(values(self.model))
        if self._sabotage is None or not self._sabotage.done:
            allowed = [None] * len(masks)
        else:
            # What stands right after the user's own write is the user's.
            self._written = self._written or masks
            allowed = self._written
        self.poisoned |= infected(masks, allowed)

    def on_train_batch_end(self, batch, logs=None):
        self.look()


class Bench:
    """The trainings of one setting, compiled once for all its faults.

    Args:
        setting: The `Setting`.
        guarded: Whether `NaNWatch` is there at all.
    """

    def __init__(self, setting, guarded=True):
        self.watched = Training(setting)
        self.plain = Training(setting, plain=True)
        self._guarded = guarded

    def run(self, fault):
        """Runs one fault and its healthy twin; returns the `Outcome`."""
        start = time.perf_counter()
        epochs = batches(fault, self.watched.model.places)
        judge = Judge()
        self.plain.reset(fault.seed, fault.scale)
        self.plain.fit(epochs, [judge, *self._sabotage(self.plain, fault)])
        outcome = self._outcome(fault, epochs, judge)
        return dataclasses.replace(
            outcome,
            false_alarms=self._healthy_twin(fault),
            seconds=time.perf_counter() - start,
        )

    def _sabotage(self, training, fault):
        return [training.sabotage(fault)] if fault.is_between else []

    def _outcome(self, fault, epochs, judge):
        watching = watch(fault.action)
        sabotage = self._sabotage(self.watched, fault)
        inspector = _Inspector(*(sabotage or [None]))
        once = keras.callbacks.LambdaCallback(
            # One explanation says it all; the next bad steps are the same.
            on_train_batch_end=lambda batch, logs: setattr(
                watching, "diagnose", not watching.incidents
            )
        )
        first = [watching, once] if self._guarded else []
        self.watched.reset(fault.seed, fault.scale)
        history, raised = {}, None
        try:
            history = self.watched.fit(epochs, [*first, *sabotage, inspector])
        except NonFiniteError as error:
            raised = error
        inspector.look()
        state = values(self.watched.model)
        incidents = watching.incidents
        refused = [(i.epoch, i.step) for i in incidents]
        expected = judge.bad
        if fault.action != "skip":
            expected = expected[:1]
        harmful = bool(judge.bad or judge.overflows)
        result = {
            "harmful": harmful,
            "poisoned": inspector.poisoned,
            "finished": self._finished(fault, history, raised, judge),
            "as_keras": self._as_keras(fault, judge, state),
            "note": f"refused {refused}, expected {expected}; overflows "
            f"{watching.overflows}, expected {judge.overflows}",
        }
        if fault.action == "rollback" and not isinstance(fault.value, str):
            # A loss that runs away while still finite is brought back too.
            diverged = [i for i in incidents if "divergence" in i.tripped]
            if diverged:
                grown = max(judge.losses.values()) > 50 * judge.losses[0, 0]
                after = all(
                    (i.epoch, i.step) >= (fault.epoch, fault.step)
                    for i in diverged
                )
                return Outcome(
                    fault, **result, alarm=not (grown and after), detected=True
                )
        if not harmful:
            return Outcome(fault, **result, alarm=bool(refused))
        result["detected"] = bool(refused) or watching.overflows > 0
        if not judge.bad:
            result["alarm"] = bool(refused)
            result["step"] = watching.overflows == judge.overflows
            return Outcome(fault, **result)
        result["step"] = refused == expected and all(
            _same(i.batch, epochs[i.epoch][i.step]) for i in incidents
        )
        # A huge value may harm the weights first and a later step only then.
        # And a finite gradient that the optimizer does not survive has no
        # rows: they were summed up before it.
        at_once = refused[:1] == [(fault.epoch, fault.step)]
        if (
            not fault.is_between
            and at_once
            and incidents[0].tripped != ("update",)
        ):
            found = incidents[0].diagnosis
            named = found.samples
            result["rows"] = named == fault.rows or (
                named == self._harmful_rows(fault)
            )
            result["note"] += (
                f"; {found.code} {found.op_type} in {found.layer}, rows {named}"
            )
        if refused == expected:
            result["equal"], note = self._equal(
                fault, epochs, judge, state, history
            )
            result["note"] += note
        return Outcome(fault, **result)

    def _harmful_rows(self, fault):
        """Returns the rows that do harm alone: dropout may spare one."""
        harmful = []
        for r in fault.rows:
            alone = dataclasses.replace(fault, rows=(r,))
            judge = Judge()
            self.plain.reset(fault.seed, fault.scale)
            self.plain.fit(batches(alone, self.watched.model.places), [judge])
            if (fault.epoch, fault.step) in judge.bad:
                harmful.append(r)
        return tuple(harmful)

    def _as_keras(self, fault, judge, state):
        setting = fault.setting
        alike = not setting.jit and setting.replicas == 1
        if not alike or setting.optimizer == "clipped":
            return None
        if judge.bad and fault.action != "skip":
            return None
        return not differing(state, values(self.plain.model))

    def _finished(self, fault, history, raised, judge):
        if fault.action == "raise" and judge.bad:
            return raised is not None
        count = EPOCHS
        if fault.action == "stop" and judge.bad:
            count = judge.bad[0][0] + 1
        return raised is None and len(history.get("loss", ())) == count

    def _equal(self, fault, epochs, judge, state, history):
        """Whether a training without the bad batches ends the same."""
        note = ""
        for parts, shown in expected_runs(fault, epochs, judge.bad):
            losses, expected = self._reference(fault, parts)
            wrong = differing(state, expected)
            same = [
                e
                for e in shown
                if fault.action != "raise"
                and not _equal_losses(history["loss"][e], losses.get(e))
            ]
            if not wrong and not same:
                return True, ""
            names = [v.path for v in variables(self.watched.model)]
            note = f"; differ: {[names[i] for i in wrong]}, losses {same}"
        return False, note

    def _reference(self, fault, parts):
        """Runs the parts; returns the losses by epoch, and the end state."""
        training = self.watched
        training.reset(fault.seed, fault.scale)
        losses = {}
        sabotage = self._sabotage(training, fault)
        if fault.action == "rollback":
            sabotage = []  # Undone with the rest.
        for epochs, first, halved in parts:
            if halved:
                rate = training.model.optimizer.learning_rate
                rate.assign(rate * 0.5)
            for number, epoch in enumerate(epochs, first):
                if epoch:
                    callbacks = [*sabotage]
                    if self._guarded:
                        callbacks.insert(0, watch("stop"))
                    history = training.fit([epoch], callbacks, number)
                    losses[number] = history["loss"][0]
        return losses, values(training.model)

    def _healthy_twin(self, fault):
        """Returns the number of incidents of the same training in health."""
        watching = watch(fault.action)
        epochs = batches(fault, self.watched.model.places, healthy=True)
        self.watched.reset(fault.seed, fault.scale)
        self.watched.fit(epochs, [watching] if self._guarded else [])
        return len(watching.incidents)


def _equal_losses(a, b):
    """Whether two losses are the same; no step at all gives NaN."""
    return np.isnan(a) if b is None else a == b


def _same(recorded, given):
    recorded = keras.tree.flatten(recorded)
    given = keras.tree.flatten(given)
    return all(
        np.asarray(a).tobytes() == b.tobytes()
        for a, b in zip(recorded, given, strict=True)
    )


def of_setting(index, settings, seed, count, guarded=True):
    """Returns the outcomes of the faults that fall to one of the settings."""
    setting = settings[index]
    numbers = range(index, count, len(settings))
    bench = Bench(setting, guarded) if numbers else None
    outcomes = [bench.run(draw(setting, seed, number)) for number in numbers]
    keras.backend.clear_session(free_memory=False)
    return outcomes


def campaign(settings, seed, count):
    """Runs faults `0 ... count - 1` of a seed; returns their outcomes.

    Args:
        settings: The `Setting`s, which the faults take in turn.
        seed: Seeds everything.
        count: Number of faults.
    """
    return [
        outcome
        for index in range(len(settings))
        for outcome in of_setting(index, settings, seed, count)
    ]
