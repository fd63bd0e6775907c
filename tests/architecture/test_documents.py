"""What the README and the docs show is what happens."""

import pathlib
import re

import pytest

from tests.architecture.source import ROOT

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")

PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    # Hazard pages have a test of their own, which also checks the failure.
    if "hazards" not in page.parts
]
WITH_CODE = [page for page in PAGES if _BLOCK.search(page.read_text())]


def _name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_CODE, ids=_name)
def test_blocks_run_in_order(page, tmp_path, monkeypatch):
    """A page's Python blocks run as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    text = page.read_text()
    ran = 0
    for block in _BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        # Traced functions look their own source up by file and line.
        source = "\n" * line + block.group(1)
        path = pathlib.Path(tmp_path, page.stem + ".py")
        path.write_text(source)
        exec(compile(source, str(path), "exec"), namespace)
        ran += 1
    assert ran == len(_BLOCK.findall(text)) > 0


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=_name
)
def test_links_lead_somewhere(page):
    """A relative link names a file of the project."""
    broken = [
        link
        for link in _LINK.findall(page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []
