"""The frozen records that the stages of `watch/` hand to each other.

    guard ─► Incident ─► replay ─► Trace ─► diagnose ─► Diagnosis
                                                 report, recover ◄┘

A stage takes one record and returns the next; none changes one.
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from typing import Any

from stablekeras.graphs.statistics import TensorStats

__all__ = [
    "ACTIONS",
    "GRADIENT",
    "LOSS",
    "SCALE",
    "STATE",
    "SUSPECT",
    "UPDATE",
    "Diagnosis",
    "Incident",
    "TensorStats",
    "Trace",
    "Trip",
    "tripped",
]

ACTIONS = ("stop", "skip", "rollback", "raise")

# What tripped, as bits that a compiled step can hand out. SUSPECT alone: every
# value is finite but a sum of squares overflowed; only running the update
# shows whether the optimizer survives it.
LOSS, GRADIENT, STATE, UPDATE, SUSPECT, SCALE = 1, 2, 4, 8, 16, 32

_NAMES = {
    LOSS: "loss",
    GRADIENT: "gradient",
    STATE: "state",
    UPDATE: "update",
    SCALE: "scale",
}


def tripped(bits):
    """Returns the names of what tripped, as in `Incident.tripped`.

    Args:
        bits: A sum of `LOSS`, `GRADIENT`, `STATE`, `UPDATE`, `SCALE`, and
            `SUSPECT`, which has no name: it is no fault yet.
    """
    return tuple(name for bit, name in _NAMES.items() if int(bits) & bit)


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Why a step went non-finite: where, on what, and the cure.

    Args:
        code: The hazard's code, `"SK101"`; `"SK000"` where the cause was not
            shown.
        title: The hazard in a few words.
        cause: What happened, with the figures that show it.
        remedy: The exact replacement.
        phase: `"forward"` or `"backward"`: where the root op ran.
        op_type: The root op's type, `"Log"`, or `None`.
        op_name: Its name in the traced step, or `None`.
        layer: Path of the layer that made it, or `None` outside layers.
        location: The user's own code line, `"train.py:41"`, or `None`.
        samples: Rows of the failing batch that are concerned.
        inputs: Statistics of the root op's inputs.
        chain: From the root to the loss or gradient, one line an op.
        contributing: Upstream facts that led to it: a layer that saturated,
            an extreme input row.
        evidence: What was measured, for the reader who doubts; the whole of
            what is known when the code is `"SK000"`.
    """

    code: str
    title: str
    cause: str
    remedy: str
    phase: str = "forward"
    op_type: str | None = None
    op_name: str | None = None
    layer: str | None = None
    location: str | None = None
    samples: tuple[int, ...] = ()
    inputs: tuple[TensorStats, ...] = ()
    chain: tuple[str, ...] = ()
    contributing: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = [self.op_type and f"op {self.op_type} ({self.op_name})"]
        place.append(self.layer and f'layer "{self.layer}"')
        place.append(self.location)
        where = ", ".join(p for p in place if p)
        lines = [f"{self.code} {self.title}"]
        if where:  # Nowhere in the step, if the data is at fault.
            lines.append(f"  where    {where}, {self.phase} pass")
        if self.samples:
            shown = ", ".join(map(str, self.samples[:10]))
            more = len(self.samples) - 10
            tail = f" and {more} more" if more > 0 else ""
            lines.append(f"  samples  {shown}{tail}")
        lines += [f"  input    {stats}" for stats in self.inputs]
        lines.append(f"  cause    {self.cause}")
        lines += [f"  because  {fact}" for fact in self.contributing]
        lines.append(f"  fix      {self.remedy}")
        if self.code == "SK000":
            lines += [f"  evidence {fact}" for fact in self.evidence]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Returns the diagnosis as a JSON object, floats in full precision."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Diagnosis":
        """Returns the diagnosis that `to_json` wrote.

        Raises:
            ValueError: If `text` is not such an object.
        """
        fields = json.loads(text)
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or set(fields) - names:
            raise ValueError(
                "A diagnosis must be a JSON object with the fields of "
                f"`Diagnosis`. Received: {text[:80]!r}. Pass what "
                "`Diagnosis.to_json` wrote."
            )
        inputs = []
        for stats in fields.get("inputs", ()):
            measured: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v
                for k, v in stats.items()
            }
            inputs.append(TensorStats(**measured))
        fields["inputs"] = tuple(inputs)
        for name in ("samples", "chain", "contributing", "evidence"):
            fields[name] = tuple(fields.get(name, ()))
        return cls(**fields)


@dataclasses.dataclass(frozen=True)
class Incident:
    """One training step that was not committed, or a training that diverged.

    Args:
        epoch: Epoch, from 0.
        step: Step of the epoch, from 0.
        action: What was done: `"stop"`, `"skip"`, `"rollback"`, `"raise"`;
            `"report"` for a validation step, which changes nothing.
        tripped: What was not finite: among `"loss"`, `"gradient"`,
            `"update"` (what the optimizer made of a finite gradient),
            `"state"` (a statistic), `"scale"` (the loss scale),
            `"variable"` (bad before the step), `"validation"`; or
            `"divergence"`, finite but run away.
        diagnosis: Why, or `None` when `diagnose=False`.
        path: The incident's folder, or `None` when nothing was written.
        batch: The failing batch as `train_step` received it, leaves as
            NumPy arrays.
        state: Values before the step that the replay needs, by variable
            path; what is not listed is still in the model.
        logs: The step's own figures: loss, gradient norm.
        replica: Rank of the replica whose rows failed, the first of several;
            `None` with one replica, or where none stands out.
        worker: Rank of the worker process whose part of the batch this is;
            the rows of the diagnosis are its own. `None` with one process.
    """

    epoch: int
    step: int
    action: str
    tripped: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None
    path: str | None = None
    batch: Any = dataclasses.field(default=None, repr=False)
    state: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, repr=False
    )
    logs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    replica: int | None = None
    worker: int | None = None

    @property
    def outcome(self):
        """What became of training and weights, in one sentence."""
        if "divergence" in self.tripped and self.action == "stop":
            return "Training stopped; weights are the last ones, still finite."
        return _OUTCOMES[self.action]

    @property
    def replay_command(self):
        """The line for a shell that replays it; `None` without a folder."""
        if self.path is None:
            return None
        return f"python -m stablekeras replay {shlex.quote(self.path)}"


_OUTCOMES = {
    "stop": "Training stopped; weights are those before the step.",
    "skip": "Step skipped; training goes on.",
    "rollback": "Rolled back to the last good snapshot; training goes on.",
    "raise": "Weights are those before the step.",
    "report": "Validation goes on; weights are not touched.",
}


@dataclasses.dataclass(frozen=True)
class Trace:
    """One step or function, run again with every tensor measured.

    Args:
        execution: The `stablekeras.graphs.execution.Execution`: every op
            that ran, its inputs and the statistics of what it gave.
        losses: Name and reference of what was differentiated, or of the
            results of a function that differentiates nothing.
        gradients: Variable's path and reference of each gradient.
        outputs: Name and reference of each result.
        rows: Number of rows of the batch, or `None`.
        arrays: Names of the batch's arrays, `"x"`, `"y"`, in flat order.
        notes: What could not be run as it was in the failing step.
        history: Loss and gradient norm of the last steps, oldest first.
        compiled: Where the run was finite throughout: which losses and
            gradients are so when the step is compiled as in training; `None`
            where that was not tried or cannot be.
    """

    execution: Any = dataclasses.field(repr=False)
    losses: tuple[tuple[str, Any], ...] = ()
    gradients: tuple[tuple[str, Any], ...] = ()
    outputs: tuple[tuple[str, Any], ...] = ()
    rows: int | None = None
    arrays: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    history: tuple[Mapping[str, float], ...] = ()
    compiled: Mapping[str, bool] | None = None

    @property
    def tensors(self) -> tuple[TensorStats, ...]:
        """Statistics of every float tensor, in the order they were made."""
        return tuple(self.execution.tensors())

    @property
    def badness(self) -> tuple[tuple[str, str, int, int], ...]:
        """`(layer, phase, bad, size)`, in the order of the step.

        Entries that are not finite, of all entries that the layer's ops gave
        in the forward or the backward pass; ops outside layers count as
        `"loss"`.
        """
        from stablekeras.graphs.badness import by_layer

        return by_layer(self.execution)

    @property
    def reproduced(self) -> bool:
        """Whether anything that a step hands on was not finite."""
        refs = (*self.losses, *self.gradients, *self.outputs)
        written = self.execution.writes
        return self.execution.error is not None or any(
            self.execution.is_bad(ref) for _, ref in (*refs, *written)
        )


@dataclasses.dataclass(frozen=True)
class Trip:
    """A step that the guard refused, before anything was done about it.

    Args:
        offset: Number of the step within the call of the train function.
        tripped: As in `Incident`.
        batch: The failing batch, tensors still where they were.
        loss: The step's loss as logged, 0 where the step logs none.
        gradient_norm: Global norm of the gradients, may be NaN or infinite.
        replica: The first replica of all with a fault of its own; `None`
            with one replica, or where none stands out.
    """

    offset: int
    tripped: tuple[str, ...]
    batch: Any = dataclasses.field(repr=False)
    loss: float = 0.0
    gradient_norm: float = 0.0
    replica: int | None = None
