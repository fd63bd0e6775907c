"""Broken programs with a known cause: each is named, three ways."""

import pytest

import stablekeras
from stablekeras.watch.diagnose import explain
from stablekeras.watch.records import Incident
from stablekeras.watch.replay import replay_step
from tests.scenarios.broken import batch, check, compiled, takes_y
from tests.scenarios.programs_of_disguises import DISGUISES
from tests.scenarios.programs_of_gradients import GRADIENTS
from tests.scenarios.programs_of_logs import LOGS
from tests.scenarios.programs_of_ratios import RATIOS

PROGRAMS = [*LOGS, *RATIOS, *GRADIENTS, *DISGUISES]
NAMED = [pytest.param(program, id=program.name) for program in PROGRAMS]


def test_there_are_enough_programs():
    """The suite holds at least sixty programs, each with a name of its own."""
    assert len({program.name for program in PROGRAMS}) == len(PROGRAMS) >= 60


@pytest.mark.parametrize("program", NAMED)
def test_a_function_is_explained(program):
    """`diagnose` names code, op, phase, rows and line of a bare function."""
    args = batch(program) if takes_y(program) else batch(program)[:1]
    check(program, stablekeras.diagnose(program.fn, *args), None)


@pytest.mark.parametrize("place", ["loss", "layer"])
@pytest.mark.parametrize("program", NAMED)
def test_a_replayed_step_is_explained(program, place):
    """The replay of a training step names the same, and the layer."""
    if place == "layer" and takes_y(program):
        place = "loss"
    model = compiled(program, place)
    incident = Incident(0, 0, "stop", ("loss",), batch=batch(program))
    layer = "formula" if place == "layer" else None
    check(program, explain(replay_step(model, incident)), layer)


FEW = [
    pytest.param(
        program,
        id=program.name,
        marks=() if place % 12 == 0 else pytest.mark.slow,
    )
    for place, program in enumerate(PROGRAMS)
]


@pytest.mark.parametrize("program", FEW)
def test_a_fit_is_explained(program):
    """A watched `fit` stops at its first step with the same diagnosis."""
    model = compiled(program, "loss")
    watch = stablekeras.NaNWatch(directory=None, verbose=0)
    x, y = batch(program)
    model.fit(
        x,
        y,
        batch_size=len(x),
        shuffle=False,
        epochs=2,
        verbose=0,
        callbacks=[watch],
    )
    (incident,) = watch.incidents
    assert (incident.epoch, incident.step) == (0, 0)
    check(program, incident.diagnosis, None)
