"""The demo's narration: break, protect, cure, and draw it."""

import dataclasses
import pathlib

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.rule import Rule

import stablekeras
from stablekeras.demo import picture, tasks

__all__ = ["Run", "tell"]


@dataclasses.dataclass
class Run:
    """What one training left behind, a value a step.

    Args:
        title: Its name in the picture.
        loss: Loss of each step, NaN where it was.
        grad_norm: Norm of each step's gradient.
        incident: Step at which a watch caught it, or `None`.
    """

    title: str
    loss: list[float] = dataclasses.field(default_factory=list)
    grad_norm: list[float] = dataclasses.field(default_factory=list)
    incident: int | None = None


class _Follow(keras.callbacks.Callback):
    """Records each step, keeps the state before it, moves the bar."""

    def __init__(self, run, progress, label):
        super().__init__()
        self.run = run
        self.before = []
        self._progress = progress
        self._label = label

    def on_train_begin(self, logs=None):
        self._bar = self._progress.add_task(
            self._label, total=self.params["epochs"], note=""
        )

    def on_train_batch_begin(self, batch, logs=None):
        self.before = _state(self.model)

    def on_train_batch_end(self, batch, logs=None):
        if "grad_norm" in logs:
            self.run.loss.append(float(logs["loss"]))
            self.run.grad_norm.append(float(logs["grad_norm"]))

    def on_epoch_end(self, epoch, logs=None):
        self._progress.update(
            self._bar, advance=1, note=f"loss {logs.get('loss', np.nan):.4g}"
        )


def _state(model):
    """Copies of every weight, slot and counter, by path."""
    return [
        (v.path, v.numpy())
        for v in [*model.variables, *model.optimizer.variables]
    ]


def _bits(state):
    return [(path, value.tobytes()) for path, value in state]


def tell(output="demo-output"):
    """Runs the demo.

    Args:
        output: Folder for the picture and the incidents.

    Returns:
        0 when each part did what it shows, else 1.
    """
    console = Console(soft_wrap=False)
    output = pathlib.Path(output)
    columns = (
        TextColumn("  {task.description:<34}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("epochs  {task.fields[note]}"),
    )
    pages = []
    ok = True
    for task in (tasks.cancer(), tasks.digits()):
        console.print(Rule(f"[bold]{task.name}[/bold], features as they come"))
        with Progress(*columns, console=console) as progress:
            runs, good = _task(task, console, progress, output)
        pages.append((task.name, runs))
        ok = ok and good
    path = picture.draw(pages, output / "demo.png")
    console.print(Rule("picture"))
    console.print(f"Loss and gradient norm of the runs: [bold]{path}[/bold]")
    return 0 if ok else 1


def _fit(task, model, run, progress, *callbacks):
    follow = _Follow(run, progress, run.title)
    x, y = task.train
    model.fit(
        x,
        y,
        batch_size=tasks.BATCH,
        epochs=task.epochs,
        verbose=0,
        callbacks=[*callbacks, follow],
    )
    return follow


def _task(task, console, progress, output):
    say = console.print

    say("\n[bold]a. Textbook formulas, Keras' TerminateOnNaN[/bold]")
    plain = Run("textbook, TerminateOnNaN")
    model = task.model(task.by_hand)
    _fit(task, model, plain, progress, keras.callbacks.TerminateOnNaN())
    lost = [v for v in model.variables if not np.isfinite(v.numpy()).all()]
    say(
        f"  Stopped at step {len(plain.loss) - 1} with loss "
        f"{plain.loss[-1]}: [red]{len(lost)} of {len(model.variables)} "
        "weights hold NaN[/red]. The training is lost."
    )

    say("\n[bold]b. The same, with NaNWatch()[/bold]")
    watched = Run("textbook, NaNWatch")
    watch = stablekeras.NaNWatch(directory=str(output / "incidents"))
    model = task.model(task.by_hand)
    follow = _fit(task, model, watched, progress, watch)
    if not watch.incidents:
        say("  This machine's rounding spared the run: no NaN came.")
        return [plain, watched], False
    intact = _bits(_state(model)) == _bits(follow.before)
    caught = watch.incidents[0]
    watched.incident = len(watched.loss)
    say(
        f"  Step {caught.step} of epoch {caught.epoch} was not applied: "
        f"[green]all {len(follow.before)} weights, slots and counters equal "
        f"those before it, bit for bit: {intact}[/green]."
    )
    say(f"  Recorded in {caught.path}")

    say(
        "\n[bold]c. The same, stable loss and activation, "
        "ClippedOptimizer[/bold]"
    )
    cured = Run("stable, ClippedOptimizer")
    model = task.model(task.stable, _clipped(task))
    _fit(task, model, cured, progress)
    finite = bool(np.isfinite(cured.loss).all())
    say(
        f"  {len(cured.loss)} steps on the same unscaled features, every loss "
        f"finite: {finite}; accuracy {task.accuracy(model):.4f}"
    )
    scaled = task.scaled()
    reference = scaled.model(task.keras, scaled.adam(decay=True))
    _fit(scaled, reference, Run("Keras, scaled features"), progress)
    ours = scaled.model(task.stable, _clipped(scaled, decay=True))
    _fit(scaled, ours, Run("stable, scaled features"), progress)
    theirs, mine = scaled.accuracy(reference), scaled.accuracy(ours)
    say(
        "  On scaled features, decaying learning rate: accuracy "
        f"{mine:.4f}, standard Keras model {theirs:.4f}"
    )
    say()
    good = bool(lost) and intact and finite and mine >= theirs
    return [plain, watched, cured], good


def _clipped(task, *, decay=False):
    return stablekeras.optimizers.ClippedOptimizer(
        task.adam(decay=decay), global_clipnorm=task.clipnorm
    )
