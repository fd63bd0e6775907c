"""What the README and the docs show is what happens."""

import importlib.util
import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import keras
import pytest

from benchmarks import page as measured
from tests.architecture.source import ROOT

# A block may say which packages it needs beyond those of this project, the
# file it stands in, and what it prints.
_BLOCK = re.compile(
    r"^(?:<!-- needs: (?P<needs>[\w ]+) -->\n)?"
    r"```python\n(?P<code>(?:# (?P<file>\w+\.py)\n)?.*?)^```\n"
    r"(?:\n```text\n(?P<prints>.*?)^```\n)?",
    re.M | re.S,
)
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")

PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    # Hazard pages have a test of their own, which also checks the failure.
    if "hazards" not in page.parts
]
# Its blocks are programs: they settle what devices there are.
REPLICAS = ROOT / "docs/how-to/replicas.md"
WITH_CODE = [
    page
    for page in PAGES
    if page != REPLICAS and _BLOCK.search(page.read_text())
]


def _words(printed):
    """Without line breaks and figures, which differ between machines."""
    return re.sub(r"[-+]?\d[\d.e+-]*", "#", printed).split()


def _name(page):
    return str(page.relative_to(ROOT))


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder to write to, and Keras' settings as they were afterwards."""
    monkeypatch.chdir(tmp_path)
    keras.utils.clear_session()  # Layers are counted from the beginning.
    policy = keras.config.dtype_policy()
    yield tmp_path
    keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize("page", WITH_CODE, ids=_name)
def test_blocks_run_in_order(page, own_folder, capsys):
    """A page's Python blocks run as a reader would type them, and print so."""
    namespace = {"__name__": "__main__"}
    text = page.read_text()
    ran = 0
    for block in _BLOCK.finditer(text):
        needed = (block["needs"] or "").split()
        if not all(map(importlib.util.find_spec, needed)):
            continue
        # Traced functions look their own source up by file and line.
        line = text.count("\n", 0, block.start("code"))
        source = "\n" * (0 if block["file"] else line) + block["code"]
        path = pathlib.Path(own_folder, block["file"] or page.stem + ".py")
        path.write_text(source)
        capsys.readouterr()
        exec(compile(source, str(path), "exec"), namespace)
        if block["prints"] is not None:
            printed = capsys.readouterr().out
            assert _words(printed) == _words(block["prints"])
        ran += 1
    assert ran > 0


def _programs(page, folder):
    paths = []
    for number, block in enumerate(_BLOCK.finditer(page.read_text())):
        paths.append(folder / f"train{number}.py")
        paths[-1].write_text(block["code"])
    return paths


def _start(program, **environment):
    return subprocess.Popen(
        [sys.executable, program],
        cwd=program.parent,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "TF_NUM_INTEROP_THREADS": "2"}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.distributed
def test_two_replicas_of_the_page(tmp_path):
    """The program for one machine runs as it is, in a process of its own."""
    process = _start(_programs(REPLICAS, tmp_path)[0])
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error[-2000:]


@pytest.mark.slow
@pytest.mark.distributed
def test_two_workers_of_the_page(tmp_path):
    """The program for several machines: two workers print the same."""
    program = _programs(REPLICAS, tmp_path)[1]
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    hosts = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    workers = [
        _start(
            program,
            TF_CONFIG=json.dumps(
                {
                    "cluster": {"worker": hosts},
                    "task": {"type": "worker", "index": index},
                }
            ),
        )
        for index in range(2)
    ]
    outputs = [worker.communicate(timeout=240) for worker in workers]
    for worker, (_, error) in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, error[-2000:]
    assert outputs[0][0] == outputs[1][0] != ""


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


def test_every_page_is_in_the_navigation():
    """What is written can be found."""
    navigation = (ROOT / "mkdocs.yml").read_text()
    lost = [
        _name(page)
        for page in PAGES[1:]
        if str(page.relative_to(ROOT / "docs")) not in navigation
    ]
    assert lost == []


def test_measured_blocks_have_a_benchmark_each():
    """`make bench` writes every measured block; none stands twice."""
    names = [name for page in PAGES for name in measured.blocks(page)]
    assert names
    assert len(names) == len(set(names))
    for name in names:
        script = ROOT / "benchmarks" / f"{name.split('.')[0]}.py"
        assert f'"{name}"' in script.read_text(), name


def test_a_benchmark_replaces_its_block_only(tmp_path):
    """The rest of the page stays, letter for letter."""
    page = tmp_path / "page.md"
    text = (
        "before\n\n<!-- measured: one -->\n\nold\n\n<!-- /measured -->\n\n"
        "between\n\n<!-- measured: two -->\n\nkept\n\n<!-- /measured -->\n"
    )
    page.write_text(text)
    measured.write("one", "| new |", "line", docs=tmp_path)
    assert page.read_text() == text.replace("old", "| new |\n\nline")
    assert measured.blocks(page) == {"one": "| new |\n\nline", "two": "kept"}
    with pytest.raises(ValueError, match="must stand in one page"):
        measured.write("three", "nowhere", docs=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["page.md"]
