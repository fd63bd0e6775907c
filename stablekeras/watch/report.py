"""An incident told to a person: one line, or one screen in the terminal."""

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

__all__ = ["headline", "screen", "show"]

_SAMPLES_SHOWN = 12
_CHAIN_SHOWN = 8


def headline(incident):
    """Returns the incident in one line, as `NonFiniteError` carries it.

    Args:
        incident: An `Incident`.

    Returns:
        `str`: the code, the place, the samples, the remedy and how to replay.
    """
    when = f"Epoch {incident.epoch}, step {incident.step}{_whose(incident)}"
    d = incident.diagnosis
    if d is None:
        what = ", ".join(incident.tripped) or "value"
        parts = [f"Non-finite {what}. {when}."]
    else:
        op = f"op {d.op_type}" if d.op_type else ""
        layer = f'in layer "{d.layer}"' if d.layer else ""
        line = f"({d.location})" if d.location else ""
        samples = f"samples {_listed(d.samples)}" if d.samples else ""
        # Where the data is at fault, no op is.
        place = ", ".join(filter(None, (_spaced(op, layer, line), samples)))
        parts = [f"{d.code} {d.title}. {_spaced(when, place, by=': ')}."]
        parts.append(f"Fix: {d.remedy}")
    parts.append(incident.outcome)
    if incident.path and incident.batch is not None:
        parts.append(f"Replay: {incident.replay_command}")
    return " ".join(parts)


def screen(incident):
    """Returns the incident as a renderable that fits one screen.

    Args:
        incident: An `Incident`.

    Returns:
        A `rich` renderable.
    """
    d = incident.diagnosis
    when = f"epoch {incident.epoch}, step {incident.step}{_whose(incident)}"
    if d is None:
        tripped = ", ".join(incident.tripped) or "value"
        title = Text(f"non-finite {tripped} at {when}", style="bold red")
        return Panel(_facts(incident), title=title, box=box.ROUNDED)
    title = Text.assemble(
        (f" {d.code} ", "bold white on red"),
        (f" {d.title} ", "bold"),
        (f"at {when} ", "dim"),
    )
    parts = [_facts(incident)]
    if d.chain:
        # The names of the ops tell the path; the figures are in the page.
        chain = [link.split(":")[0] for link in d.chain]
        if len(chain) > _CHAIN_SHOWN:
            cut = len(chain) - _CHAIN_SHOWN + 1
            chain[_CHAIN_SHOWN - 2 : -1] = [f"… {cut} more …"]
        parts.append(
            Text.assemble(("\nroot to loss  ", "dim"), " → ".join(chain))
        )
    if d.code == "SK000":
        parts += [Text(f"evidence  {fact}", style="dim") for fact in d.evidence]
    return Panel(
        Group(*parts), title=title, title_align="left", box=box.ROUNDED
    )


def _whose(incident):
    return "" if incident.worker is None else f", worker {incident.worker}"


def _facts(incident):
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    d = incident.diagnosis
    if d is not None:
        if d.op_type:
            table.add_row("op", f"{d.op_type}  ({d.op_name}), {d.phase} pass")
        for name, place in (("layer", d.layer), ("line", d.location)):
            if place:
                table.add_row(name, place)
        if d.samples:
            table.add_row("samples", _listed(d.samples))
        for stats in d.inputs:
            table.add_row("input", str(stats))
        table.add_row("cause", d.cause)
        for fact in d.contributing:
            table.add_row("because", fact)
        table.add_row("fix", Text(d.remedy, style="bold green"))
    for name, value in incident.logs.items():
        table.add_row(name, f"{value:.6g}")
    if incident.replica is not None:
        table.add_row("replica", str(incident.replica))
    if incident.worker is not None:
        table.add_row(
            "worker",
            f"{incident.worker}; samples are rows of its part of the batch",
        )
    table.add_row("action", incident.outcome)
    if incident.path:
        table.add_row("folder", incident.path)
    if incident.path and incident.batch is not None:
        table.add_row("replay", incident.replay_command)
    return table


def _spaced(*parts, by=" "):
    return by.join(filter(None, parts))


def _listed(samples):
    shown = ", ".join(map(str, samples[:_SAMPLES_SHOWN]))
    more = len(samples) - _SAMPLES_SHOWN
    return shown + (f" and {more} more" if more > 0 else "")


def show(incident, verbose=1, console=None):
    """Prints the incident to the terminal.

    Args:
        incident: An `Incident`.
        verbose: 0 prints nothing, 1 the screen.
        console: A `rich.console.Console`; by default one on stderr, so that
            the progress bar's line stays whole.
    """
    if not verbose:
        return
    console = console or Console(stderr=True)
    console.print()
    console.print(screen(incident))
