"""One incident from the bare record to the reader: replay, explain, tell.

Each stage may fail without harm: a report is worth less than the training.
"""

import contextlib
import dataclasses
import logging

from stablekeras.watch import bundle, diagnose, page, replay, report
from stablekeras.watch.incident import scale_lost, unknown

__all__ = ["investigate"]

_log = logging.getLogger("stablekeras")


def investigate(
    incident,
    model,
    step,
    *,
    explain,
    directory,
    verbose=0,
    history=(),
    witness=None,
):
    """Replays and explains an incident, writes its folder and shows it.

    Args:
        incident: The bare `Incident`, with its batch; one that has its
            diagnosis already is only written and shown.
        model: The model; its variables are those before the step.
        step: The step to run again, or `None` for the model's own.
        explain: Whether to replay and explain.
        directory: Folder of the incidents' folders, or `None`.
        verbose: 0 shows nothing.
        history: Logs of the steps before, oldest first.
        witness: The `Witness` of several processes, or `None`.

    Returns:
        The incident with its `diagnosis` and `path`.
    """

    def explained(incident):
        if not explain or incident.diagnosis is not None:
            return incident, ()
        return _explained(incident, model, step, history)

    if witness is None or incident.diagnosis is not None:
        incident, badness = explained(incident)
    else:
        incident, badness = witness.hear(incident, explained)
    if directory is not None and (witness is None or witness.is_chief):
        path = bundle.write(
            incident, model, directory, page=_page(incident, badness, history)
        )
        incident = dataclasses.replace(incident, path=path)
    _tell(incident, verbose, witness)
    return incident


def _explained(incident, model, step, history):
    badness = ()
    if incident.batch is None:
        found = unknown(incident)
        return dataclasses.replace(incident, diagnosis=found), badness
    try:
        trace = replay.replay_step(model, incident, step, history)
        found = diagnose.explain(trace)
        badness = trace.badness
        if "scale" in incident.tripped:
            found = scale_lost(found)
    except Exception as error:
        found = unknown(incident, error)
    return dataclasses.replace(incident, diagnosis=found), badness


def _tell(incident, verbose, witness=None):
    """Shows the incident on the chief's terminal; never raises."""
    try:
        if witness is None or witness.is_chief:
            report.show(incident, verbose)
    except Exception as error:
        with contextlib.suppress(Exception):  # The terminal may be gone.
            _log.warning("An incident could not be shown. Received: %s.", error)


def _page(incident, badness, history):
    try:
        names = {name for logs in history for name in logs}
        return page.render(
            incident,
            badness=badness,
            history={
                name: [logs.get(name, float("nan")) for logs in history]
                for name in sorted(names)
            },
            versions=bundle.versions(),
        )
    except Exception as error:
        _log.warning("The page could not be drawn. Received: %s.", error)
        return None
