"""Draw faults from a seed: which training, what is put in, where and when."""

import dataclasses

import numpy as np

from tests.faults.kinds import KINDS

__all__ = [
    "ACTIONS",
    "BATCH",
    "EPOCHS",
    "OPTIMIZERS",
    "PLACES",
    "PRECISIONS",
    "STEPS",
    "Fault",
    "Setting",
    "draw",
    "settings",
]

# An epoch is no multiple of the longest chunk, so that its last one is short.
BATCH, STEPS, EPOCHS = 8, 7, 2

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
OPTIMIZERS = (
    "adam",
    "sgd",
    "rmsprop",
    "adamw",
    "clipped",
    "nadam",
    "adagrad",
    "lion",
)
ACTIONS = ("skip", "stop", "rollback", "raise")
PLACES = (
    "input",
    "label",
    "sample weight",
    "activation",
    "gradient",
    "weight",
    "statistic",
)
_NORMALIZED = ("mlp", "cnn")


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a training runs: everything that is compiled once.

    Args:
        kind: Name of the kind of model.
        precision: A dtype policy.
        jit: Whether XLA compiles the step.
        steps: `steps_per_execution`.
        optimizer: One of `OPTIMIZERS`.
        replicas: 1, or 2 under `MirroredStrategy`.
    """

    kind: str
    precision: str
    jit: bool
    steps: int
    optimizer: str
    replicas: int = 1

    def __str__(self):
        parts = [self.kind, self.precision, self.optimizer]
        parts += ["jit"] * self.jit + [f"k={self.steps}"]
        parts += [f"{self.replicas} replicas"] * (self.replicas > 1)
        return " ".join(parts)


@dataclasses.dataclass(frozen=True)
class Fault:
    """One value put into one training.

    Args:
        seed: Seeds the data and the weights too.
        setting: The training.
        action: What the watch shall do.
        place: One of `PLACES`.
        value: `"nan"`, `"inf"`, `"-inf"` or a finite number.
        epoch: Epoch of the batch that it is in, or after which it is written.
        step: Step of that epoch.
        rows: Rows of the batch; one for a variable, of no meaning there.
        point: Draws the layer or variable, modulo how many there are.
        unit: Draws the entry, modulo how many there are.
        scale: Loss scale that the training begins with.
    """

    seed: tuple[int, int]
    setting: Setting
    action: str
    place: str
    value: str | float
    epoch: int
    step: int
    rows: tuple[int, ...]
    point: int
    unit: int
    scale: float

    @property
    def is_between(self):
        """Whether user code writes it into a variable between two steps."""
        return self.place in ("weight", "statistic")

    def __str__(self):
        what = f"{self.value} in {self.place} (point {self.point})"
        when = f"epoch {self.epoch} step {self.step} rows {self.rows}"
        return f"{self.seed} {self.setting} {self.action}: {what} at {when}"


def settings(count, seed, kinds=tuple(KINDS), mirrored=0):
    """Returns trainings in which the kinds take turns.

    Every kind goes through its own random order of the twelve combinations of
    precision, XLA and chunks, so that few settings already mix them all.

    Args:
        count: Number of settings on one device.
        seed: Of the orders.
        kinds: Names of the kinds of model.
        mirrored: Number of settings under `MirroredStrategy`.
    """
    combinations = [
        (precision, jit, steps)
        for precision in PRECISIONS
        for jit in (False, True)
        for steps in (1, 4)
    ]
    orders = {
        kind: np.random.default_rng([seed, i]).permutation(len(combinations))
        for i, kind in enumerate(kinds)
    }
    found = [
        Setting(
            kinds[i % len(kinds)],
            ("float32", "mixed_bfloat16")[i % 2],
            False,
            (1, 4)[i // 2 % 2],
            OPTIMIZERS[i % 2],
            replicas=2,
        )
        for i in range(mirrored)
    ]
    for i in range(count):
        turn, which = divmod(i, len(kinds))
        kind = kinds[which]
        order = orders[kind]
        found.append(
            Setting(
                kind,
                *combinations[order[turn % len(order)]],
                OPTIMIZERS[(i + turn) % len(OPTIMIZERS)],
            )
        )
    return found


def draw(setting, seed, number):
    """Returns fault `number` of the campaign with this seed."""
    rng = np.random.default_rng([seed, number])
    places = list(PLACES)
    if KINDS[setting.kind].is_text:
        places.remove("input")  # An id cannot be NaN.
    if setting.kind not in _NORMALIZED:
        places.remove("statistic")
    place = str(rng.choice(places))
    value = str(rng.choice(["nan", "inf", "-inf", "huge"]))
    # A clipped optimizer survives what is huge, and then nothing is wrong.
    if value == "huge" and setting.optimizer == "clipped":
        value = "nan"
    if value == "huge":
        value = float(np.float32(10.0 ** rng.uniform(14, 38)))
    epoch, step = divmod(int(rng.integers(EPOCHS * STEPS)), STEPS)
    if place in ("weight", "statistic"):
        # User code runs between two calls, and a step must follow.
        ends = {*range(setting.steps - 1, STEPS, setting.steps), STEPS - 1}
        moments = [(e, s) for e in range(EPOCHS) for s in sorted(ends)][:-1]
        epoch, step = moments[int(rng.integers(len(moments)))]
    count = int(rng.choice([1, 1, 2, 3]))
    return Fault(
        seed=(seed, number),
        setting=setting,
        action=ACTIONS[int(rng.integers(len(ACTIONS)))],
        place=place,
        value=value,
        epoch=epoch,
        step=step,
        rows=tuple(sorted(map(int, rng.choice(BATCH, count, replace=False)))),
        point=int(rng.integers(1000)),
        unit=int(rng.integers(1000)),
        scale=float(rng.choice([1.0, 1024.0])),
    )
