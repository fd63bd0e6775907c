"""The house stays the house: who may import whom, and how long a file is."""

import ast

import pytest

from tests.architecture.source import (
    MODULES,
    PACKAGE,
    imported,
    module_name,
    room,
)

# A room may import itself and the rooms named here.
BELOW = {
    "errors": set(),
    "ops": {"errors"},
    "activations": {"errors", "ops"},
    "losses": {"errors", "ops", "activations", "graphs"},
    "optimizers": {"errors", "ops", "graphs"},
    "graphs": {"errors"},
    "hazards": {"errors", "graphs"},
    "rewrite": {"errors", "ops", "graphs", "hazards"},
    "watch": {"errors", "optimizers", "graphs", "hazards"},
    "demo": {"errors", "ops", "activations", "losses", "optimizers", "watch"},
}
# The only modules that see more than one stage of the watch.
WIRING = {"callback", "investigate", "rerun", "records", "__init__"}

FILES = sorted(MODULES, key=str)
IDS = [module_name(path) for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_go_down_only(path):
    """A module imports only from its own room and the rooms below."""
    own = room(module_name(path))
    if own in ("", "__main__"):
        pytest.skip("the front door may import every room")
    outside = {
        target
        for name in imported(path, MODULES[path])
        if name.startswith("stablekeras.")
        and (target := room(name)) not in BELOW[own] | {own}
    }
    assert outside == set()


def test_stages_of_the_watch_do_not_import_each_other():
    """Stages meet only through records, wired in one place."""
    stages = [
        p
        for p in FILES
        if p.parent == PACKAGE / "watch" and p.stem not in WIRING
    ]
    crossings = {
        (path.stem, name.split(".")[2])
        for path in stages
        for name in imported(path, MODULES[path])
        if name.startswith("stablekeras.watch.")
        and name.split(".")[2] in {"callback", "replay", "diagnose", "report"}
        and name.split(".")[2] != path.stem
    }
    assert crossings == set()


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_private_interfaces_stay_in_one_room(path):
    """Only `graphs` names `keras.src` or `tensorflow.python`."""
    if room(module_name(path)) == "graphs":
        pytest.skip("the room for them")
    private = [
        name
        for name in imported(path, MODULES[path])
        if name.startswith(("keras.src", "tensorflow.python"))
    ]
    assert private == []


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_files_stay_readable(path):
    """No file passes 500 lines, and none is named for what it is not."""
    assert len(path.read_text().splitlines()) <= 500
    assert not {"utils", "util", "helpers", "manager", "misc"} & set(
        path.stem.split("_")
    )


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_all_equals_the_public_names(path):
    """`__all__` lists every public name defined there, once."""
    tree = MODULES[path]
    names = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and [t.id for t in node.targets if isinstance(t, ast.Name)]
        == ["__all__"]
    ]
    if path.name in ("__init__.py", "__main__.py"):
        assert all(len(listed) == len(set(listed)) for listed in names)
        return
    defined = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    ]
    assert names, "the module has no __all__"
    (listed,) = names
    assert len(listed) == len(set(listed))
    assert set(defined) <= set(listed)
