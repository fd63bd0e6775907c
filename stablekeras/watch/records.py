"""The frozen records that the stages of `watch/` hand to each other.

    guard ─► Incident ─► replay ─► Trace ─► diagnose ─► Diagnosis
                                                 report, recover ◄┘

A stage takes one record and returns the next; none changes one.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["Diagnosis", "Incident", "TensorStats"]


@dataclasses.dataclass(frozen=True)
class TensorStats:
    """What was measured of one float tensor.

    Args:
        name: The tensor's name in the traced step, `"head/Log:0"`.
        shape: Its shape in that run.
        dtype: Its dtype's name.
        size: Number of entries.
        nan: Number of NaN entries.
        posinf: Number of +Inf entries.
        neginf: Number of -Inf entries.
        zeros: Number of entries equal to zero.
        min: Smallest finite entry, or `None` without one.
        max: Largest finite entry, or `None` without one.
        rows: Indices along the first axis that hold a non-finite entry,
            where that axis is the batch; else empty.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    zeros: int = 0
    min: float | None = None
    max: float | None = None
    rows: tuple[int, ...] = ()

    @property
    def finite(self) -> int:
        """Number of finite entries."""
        return self.size - self.nan - self.posinf - self.neginf

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        parts = [f"{self.name} {self.dtype} {shape}"]
        if self.min is not None:
            parts.append(f"finite in [{self.min:.6g}, {self.max:.6g}]")
        for label, count in (
            ("NaN", self.nan),
            ("+Inf", self.posinf),
            ("-Inf", self.neginf),
            ("zero", self.zeros),
        ):
            if count:
                parts.append(f"{count} {label} of {self.size}")
        return ", ".join(parts)


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
        where = ", ".join(p for p in place if p) or "unknown"
        lines = [
            f"{self.code} {self.title}",
            f"  where    {where}, {self.phase} pass",
        ]
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
        fields["inputs"] = tuple(
            TensorStats(
                **{
                    k: tuple(v) if isinstance(v, list) else v
                    for k, v in stats.items()
                }
            )
            for stats in fields.get("inputs", ())
        )
        for name in ("samples", "chain", "contributing", "evidence"):
            fields[name] = tuple(fields.get(name, ()))
        return cls(**fields)


@dataclasses.dataclass(frozen=True)
class Incident:
    """One training step that was not committed.

    Args:
        epoch: Epoch, from 0.
        step: Step of the epoch, from 0.
        action: What was done: `"stop"`, `"skip"`, `"rollback"` or `"raise"`.
        tripped: What was not finite: among `"loss"`, `"gradient"`,
            `"update"`, `"state"`, `"variable"`.
        diagnosis: Why, or `None` when `diagnose=False`.
        path: The incident's folder, or `None` when nothing was written.
        batch: The failing batch as `train_step` received it, leaves as
            NumPy arrays.
        state: Values before the step that the replay needs, by variable
            path; what is not listed is still in the model.
        logs: The step's own figures: loss, gradient norm.
        replica: Rank of the replica or worker that failed first, or `None`.
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
