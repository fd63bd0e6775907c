"""The HTML page: complete, self-contained, and nothing runs in it."""

import dataclasses
import html.parser
import pathlib

import numpy as np
import pytest

from stablekeras.watch.page import render
from stablekeras.watch.records import Diagnosis, Incident, TensorStats


class _Reader(html.parser.HTMLParser):
    """Collects tags, attributes and text; checks that tags are closed."""

    VOID = frozenset({"meta", "polyline", "line"})

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def incident():
    x = np.ones((32, 30), "float32")
    x[7] *= 1000
    x[19, 3] = np.nan
    return Incident(
        epoch=3,
        step=417,
        action="stop",
        tripped=("loss",),
        diagnosis=Diagnosis(
            code="SK101",
            title="log of an underflowed softmax",
            cause="3 of 320 <script>alert(1)</script>",
            remedy="pass logits",
            op_type="Log",
            samples=(7, 19),
            inputs=(TensorStats("a", (32, 10), "float32", 320, zeros=3),),
            chain=("Log", "Mul", "loss"),
        ),
        path="incidents/x",
        batch=(x, None),
        logs={"loss": float("nan")},
    )


@pytest.fixture(scope="module")
def page(incident):
    return render(
        incident,
        badness=[("head", "forward", 0, 50), ("head", "backward", 5, 10)],
        history={"loss": [3.0, 2.0, float("nan")], "none": [float("nan")]},
        versions={"keras": "1"},
    )


def test_every_part_is_there(page):
    """Headline, chain, heat map, rows, history and remedy are all told."""
    text = "".join(_Reader(page).text)
    for part in ("SK101", "pass logits", "Log", "50.0%", "loss", "keras 1"):
        assert part in text
    for heading in (
        "From the root to the loss",
        "Where values are not finite",
        "The samples concerned",
        "Before the incident",
        "Run it again",
    ):
        assert heading in text


def test_page_is_well_formed_and_self_contained(page):
    """Tags are closed; no script runs and nothing is fetched."""
    reader = _Reader(page)
    assert reader.open == []
    assert "script" not in reader.tags
    assert not {"src", "href", "onload", "onclick"} & {
        name for name, _ in reader.attributes
    }
    assert "url(" not in page
    assert "@import" not in page


def test_text_from_the_training_is_escaped(page):
    """Markup in a cause is shown, not interpreted."""
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_bad_entries_and_extreme_rows_are_marked(page):
    """The NaN is red, the row that is 1000 times the others is orange."""
    reader = _Reader(page)
    classes = [v for name, v in reader.attributes if name == "class"]
    assert sum("bad" in c for c in classes) == 1
    assert sum("extreme" in c for c in classes) == 10


def test_page_without_diagnosis(incident):
    """An incident that was not diagnosed still gets a page."""
    page = render(dataclasses.replace(incident, diagnosis=None))
    assert "Non-finite loss" in page


def test_the_command_to_replay_can_be_pasted(incident):
    """A folder whose name a shell would take apart is quoted."""
    incident = dataclasses.replace(incident, path="my incidents/$x")
    line = "python -m stablekeras replay 'my incidents/$x'"
    assert line in "".join(_Reader(render(incident)).text)
    # Written into the folder before that has its name.
    incident = dataclasses.replace(incident, path=None)
    text = "".join(_Reader(render(incident)).text)
    assert "replay <the folder of this page>" in text


def test_missing_jinja2_costs_only_the_page(incident, monkeypatch):
    """Without the extra, `render` returns None."""
    import builtins

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert render(incident) is None


def test_template_is_packaged():
    """The template stands beside the module, where the wheel takes it."""
    import stablekeras.watch.page as module

    assert pathlib.Path(module.__file__).with_name("page.html.j2").is_file()
