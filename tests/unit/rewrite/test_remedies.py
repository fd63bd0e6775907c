"""What a diagnosis says of `stabilize` is what `stabilize` does."""

import re

import pytest

import stablekeras
from stablekeras.hazards.catalogue import CATALOGUE, hazard
from stablekeras.hazards.rewrites import REWRITES
from stablekeras.rewrite.patterns import ALL
from tests.unit.hazards.test_pages import _page, _run

# The page shows a case with no finite rewrite: a probability that is 1
# already, an exp that truly overflows, a result beyond float16.
TRULY_INFINITE = {"SK103", "SK306", "SK314"}
SUMS = "SK314"


def test_the_catalogue_names_what_the_patterns_cure():
    """A hazard has a rewrite exactly where a pattern has its code."""
    told = {entry.code for entry in CATALOGUE if entry.rewrite}
    cured = {code for pattern in ALL for code in pattern.codes}
    assert told == set(REWRITES) == cured | {SUMS}


@pytest.mark.parametrize("code", sorted(set(REWRITES) - {SUMS}))
def test_the_texts_agree(code):
    """Formula and stand-in of a hazard stand in one pattern of its code."""
    before, after = REWRITES[code]
    assert any(
        before in pattern.before and after in pattern.after
        for pattern in ALL
        if code in pattern.codes
    )
    assert hazard(code).rewrite == f"{before} -> {after}"


@pytest.mark.parametrize("code", sorted(REWRITES))
def test_the_page_tells_it(code):
    """The page of a hazard shows the rewrite under "Use instead"."""
    part = _page(code).split("## Use instead\n")[1].split("\n## ")[0]
    text = " ".join(part.split())
    assert "`@stablekeras.stabilize`" in text
    assert f"`{REWRITES[code][0].removesuffix(' in float16')}`" in text


@pytest.mark.parametrize("code", sorted(REWRITES))
def test_the_remedy_cures_the_example(code, tmp_path):
    """Decorated as the remedy says, the page's example is finite."""
    loss, x = _run(code, "Example", tmp_path)
    remedy = stablekeras.diagnose(loss, x).remedy
    assert remedy == hazard(code).remedy
    assert re.search(r"decorate .*@stablekeras\.stabilize", remedy)
    assert hazard(code).rewrite in remedy
    after = stablekeras.diagnose(stablekeras.stabilize(loss), x)
    assert (after is None) == (code not in TRULY_INFINITE)


def test_others_do_not_promise_it():
    """A hazard that no pattern cures does not name `stabilize`."""
    others = [entry for entry in CATALOGUE if entry.code not in REWRITES]
    assert others
    assert all("stabilize" not in entry.remedy for entry in others)
