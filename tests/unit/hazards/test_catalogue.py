"""The catalogue: codes, look-up, what the command prints."""

import re

import pytest

import stablekeras
from stablekeras.hazards.catalogue import (
    CATALOGUE,
    UNKNOWN,
    describe,
    hazard,
)

ENTRIES = (UNKNOWN, *CATALOGUE)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.code)
def test_an_entry_is_complete(entry):
    """Code, title, why and fix are there; the fix names what exists."""
    assert re.fullmatch(r"SK\d{3}", entry.code)
    assert entry.title
    assert entry.why
    assert entry.fix
    assert set(entry.phases) <= {"forward", "backward"}
    names = re.findall(
        r"stablekeras\.(ops|losses|optimizers)\.(\w+)", entry.fix
    )
    if entry.replacement is not None:
        names.append(entry.replacement.split("."))
    for module, name in names:
        assert hasattr(getattr(stablekeras, module), name)


def test_every_family_is_there():
    """Each family of the catalogue has entries."""
    assert {entry.code[2] for entry in ENTRIES} == set("01234567")


def test_look_up_takes_either_case():
    """A code is found however it is written."""
    assert hazard("sk101") is hazard("SK101")


def test_an_unknown_code_is_refused():
    """A code that does not exist is refused, and the codes are listed."""
    with pytest.raises(ValueError, match=r"Received: code='SK999'.*SK101"):
        hazard("SK999")
    with pytest.raises(ValueError, match="must be that of a hazard"):
        describe("nonsense")


def test_the_list_names_each_once():
    """Without a code, each hazard stands on one line, in order."""
    lines = describe().splitlines()
    assert [line.split()[0] for line in lines] == sorted(
        entry.code for entry in ENTRIES
    )


def test_one_entry_in_full():
    """With a code, why, fix and page are told."""
    text = describe("SK101")
    entry = hazard("SK101")
    assert entry.why in text
    assert entry.fix in text
    assert "docs/hazards/SK101.md" in text
