"""One incident from the bare record to the reader: replay, explain, tell.

Each stage may fail without harm: a report is worth less than the training.
"""

import dataclasses
import logging

from stablekeras.watch import bundle, diagnose, page, replay, report
from stablekeras.watch.incident import scale_lost, unknown

__all__ = ["investigate", "tell"]

_log = logging.getLogger("stablekeras")


def investigate(incident, model, step, *, explain, directory, history=()):
    """Replays and explains an incident, and writes its folder.

    Args:
        incident: The bare `Incident`, with its batch.
        model: The model; its variables are those before the step.
        step: The step to run again, or `None` for the model's own.
        explain: Whether to replay and explain.
        directory: Folder of the incidents' folders, or `None`.
        history: Logs of the steps before, oldest first.

    Returns:
        The incident with its `diagnosis` and `path`.
    """
    trace = None
    if explain:
        try:
            trace = replay.replay_step(model, incident, step, history)
            found = diagnose.explain(trace)
            if "scale" in incident.tripped:
                found = scale_lost(found)
        except Exception as error:
            found = unknown(incident, error)
        incident = dataclasses.replace(incident, diagnosis=found)
    if directory is not None:
        path = bundle.write(
            incident, model, directory, page=_page(incident, trace, history)
        )
        incident = dataclasses.replace(incident, path=path)
    return incident


def tell(incident, verbose):
    """Shows the incident on the terminal; never raises."""
    try:
        report.show(incident, verbose)
    except Exception as error:
        _log.warning("An incident could not be shown. Received: %s.", error)


def _page(incident, trace, history):
    try:
        names = {name for logs in history for name in logs}
        return page.render(
            incident,
            badness=() if trace is None else trace.badness,
            history={
                name: [logs.get(name, float("nan")) for logs in history]
                for name in sorted(names)
            },
            versions=bundle.versions(),
        )
    except Exception as error:
        _log.warning("The page could not be drawn. Received: %s.", error)
        return None
