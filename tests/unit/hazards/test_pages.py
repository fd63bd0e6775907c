"""Each hazard has one page, and the page's code does what it says."""

import pathlib
import re

import pytest

import stablekeras
from stablekeras.hazards.catalogue import CATALOGUE, UNKNOWN, hazard

FOLDER = pathlib.Path(__file__).parents[3] / "docs" / "hazards"
CODES = sorted(entry.code for entry in (UNKNOWN, *CATALOGUE))
SECTIONS = [
    "What it is",
    "Why it happens",
    "Example",
    "Use instead",
    "Known limits",
]


def _page(code):
    return (FOLDER / f"{code}.md").read_text()


def _run(code, section, tmp_path):
    """Runs the code of a section as a file, so that it has lines."""
    text = _page(code).split(f"## {section}\n")[1].split("\n## ")[0]
    source = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    file = tmp_path / f"{section.replace(' ', '_').lower()}.py"
    file.write_text(source)
    names = {}
    exec(compile(source, str(file), "exec"), names)
    return names["loss"], names["x"]


def test_codes_equal_pages():
    """Each code has a page, and each page a code."""
    pages = sorted(path.stem for path in FOLDER.glob("SK*.md"))
    assert pages == CODES
    assert len(set(CODES)) == len(CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_page_has_its_sections(code):
    """A page holds the title and the five sections, in order, not empty."""
    text = _page(code)
    assert text.startswith(f"# {code}: {hazard(code).title}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert all(part.strip() for part in text.split("\n## ")[1:])


@pytest.mark.parametrize("code", CODES)
def test_the_example_shows_the_hazard(code, tmp_path):
    """The example is not finite, and is diagnosed with the page's code."""
    loss, x = _run(code, "Example", tmp_path)
    diagnosis = stablekeras.diagnose(loss, x)
    assert diagnosis is not None
    assert diagnosis.code == code, str(diagnosis)
    if diagnosis.op_type is not None and diagnosis.location is not None:
        assert diagnosis.location.startswith("example.py:")


@pytest.mark.parametrize("code", CODES)
def test_the_replacement_is_finite(code, tmp_path):
    """What to use instead has a finite value and gradient."""
    loss, x = _run(code, "Use instead", tmp_path)
    assert stablekeras.diagnose(loss, x) is None


def test_the_index_lists_every_page():
    """The index names each code with its title."""
    text = (FOLDER / "index.md").read_text()
    for code in CODES:
        assert f"[{code}]({code}.md) {hazard(code).title}" in text
