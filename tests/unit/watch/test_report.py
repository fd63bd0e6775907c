"""An incident in one line and on one screen."""

import io
import shlex

from rich.console import Console

from stablekeras.watch import report
from stablekeras.watch.records import Diagnosis, Incident


def told(**diagnosis):
    """Returns line and screen of an incident whose folder has a space."""
    incident = Incident(
        epoch=0,
        step=3,
        action="skip",
        tripped=("loss",),
        diagnosis=Diagnosis(
            code="SK501", title="t", cause="c", remedy="r.", **diagnosis
        ),
        batch=(1.0,),
        path="my runs/i",
    )
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.screen(incident))
    return report.headline(incident), console.export_text()


def test_bad_data_has_no_place_in_the_step():
    """Neither op, layer nor line is spoken of, but the samples are."""
    line, screen = told(samples=(2,))
    assert line.startswith("SK501 t. Epoch 0, step 3: samples 2. Fix: r.")
    words = screen.split()
    assert "samples" in words
    assert not {"op", "layer", "line"} & set(words)
    assert "where" not in str(Diagnosis("SK501", "t", "c", "r"))


def test_an_op_is_told_with_its_layer_and_line():
    """In the line, on the screen and in the text of the diagnosis."""
    place = {"op_type": "Log", "layer": "head", "location": "train.py:4"}
    line, screen = told(**place)
    assert 'step 3: op Log in layer "head" (train.py:4). Fix' in line
    assert {"Log", "head", "train.py:4"} <= set(screen.split())
    assert '  where    op Log (None), layer "head", train.py:4, forward' in str(
        Diagnosis("SK501", "t", "c", "r", **place)
    )


def test_the_replay_command_can_be_pasted():
    """A folder with a space in its name is one argument of the shell."""
    line, screen = told()
    for text in (line, screen):
        command = text[text.index("python -m") :].split("│")[0]
        assert shlex.split(command)[-1] == "my runs/i"
