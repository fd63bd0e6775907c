"""Incident folders: what goes in comes out, and nothing else is believed."""

import json
import os
import pathlib
import random
import shutil

import keras
import ml_dtypes
import numpy as np
import pytest

from stablekeras.errors import BundleError
from stablekeras.watch import bundle
from stablekeras.watch.archive import pack, unpack
from stablekeras.watch.records import Diagnosis, Incident, TensorStats


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)]
    )
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((2, 3)), np.ones((2, 2)))
    return model


@pytest.fixture(scope="module")
def incident():
    return Incident(
        epoch=2,
        step=417,
        action="stop",
        tripped=("loss",),
        diagnosis=Diagnosis(
            code="SK101",
            title="log of an underflowed softmax",
            cause="3 of 320 are 0",
            remedy="use logits",
            op_type="Log",
            samples=(7, 19),
            inputs=(TensorStats("head/Log:0", (4, 2), "float32", 8, zeros=3),),
        ),
        batch=(
            {"a": np.arange(6.0).reshape(2, 3), "b": [np.int8(3), None]},
            np.array(["x", "é"]),
            np.ones((2, 2), ml_dtypes.bfloat16),
        ),
        logs={"loss": float("nan"), "grad_norm": 1.5},
    )


@pytest.fixture
def folder(incident, model, tmp_path):
    return pathlib.Path(bundle.write(incident, model, tmp_path / "incidents"))


def test_round_trip_keeps_every_field(folder, incident, model):
    """What `write` was given, `read` returns, to the bit."""
    found = bundle.read(folder)
    assert found.incident.diagnosis == incident.diagnosis
    assert (found.incident.epoch, found.incident.step) == (2, 417)
    assert found.incident.logs["grad_norm"] == 1.5
    assert np.isnan(found.incident.logs["loss"])
    inputs, strings, half = found.incident.batch
    assert inputs["a"].tobytes() == incident.batch[0]["a"].tobytes()
    assert inputs["b"][0] == 3
    assert inputs["b"][1] is None
    assert [item.decode() for item in strings] == ["x", "é"]
    assert half.dtype == ml_dtypes.bfloat16
    assert half.tobytes() == incident.batch[2].tobytes()
    expected = [*model.variables, *model.optimizer.variables]
    assert [name for name, _ in found.state] == [v.path for v in expected]
    for (_, value), variable in zip(found.state, expected, strict=True):
        assert value.tobytes() == variable.numpy().tobytes()
    assert found.model_variables == len(model.variables)
    assert found.notes == ()


def test_recorded_state_overrides_the_models(incident, model, tmp_path):
    """A value in `incident.state` is written in place of the variable's."""
    kernel = model.layers[0].kernel
    import dataclasses

    changed = dataclasses.replace(
        incident, state={kernel.path: np.full((3, 2), 7.0, "float32")}
    )
    found = bundle.read(bundle.write(changed, model, tmp_path))
    assert dict(found.state)[kernel.path].tolist() == [[7.0, 7.0]] * 3


def test_report_is_strict_json(folder):
    """`report.json` holds no NaN token, so that any parser reads it."""

    def refuse(token):
        raise AssertionError(token)

    text = (folder / "report.json").read_text()
    report = json.loads(text, parse_constant=refuse)
    assert report["incident"]["logs"]["loss"] == "nan"


def test_size_cap_leaves_out_slots_then_weights(incident, model, tmp_path):
    """What does not fit is left out in order, and noted."""
    own = sum(v.numpy().nbytes for v in model.variables)
    batch = 6 * 8 + 1 + 4 * 2
    found = bundle.read(
        bundle.write(incident, model, tmp_path, max_bytes=batch + own)
    )
    assert found.model_variables == len(model.variables) == len(found.state)
    assert [note.split(":")[0] for note in found.notes] == [
        "optimizer variables left out"
    ]
    found = bundle.read(bundle.write(incident, model, tmp_path, max_bytes=0))
    assert found.state == ()
    assert found.incident.batch is None
    assert len(found.notes) == 3


def test_oldest_folders_go_first(incident, model, tmp_path):
    """At most `max_incidents` folders are kept, the newest ones."""
    written = [
        bundle.write(incident, model, tmp_path, max_incidents=3)
        for _ in range(6)
    ]
    kept = {str(path) for path in tmp_path.iterdir()}
    assert kept == set(written[-3:])


def test_foreign_files_are_left_alone(incident, model, tmp_path):
    """Bounding the folder removes only what was written here."""
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "20260101").mkdir()
    for _ in range(3):
        bundle.write(incident, model, tmp_path, max_incidents=1)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"notes.txt", "20260101"} < names
    assert len(names) == 3


def test_unwritable_directory_costs_only_the_report(
    incident, model, tmp_path, caplog
):
    """A directory that cannot be made is reported, not raised."""
    (tmp_path / "file").write_text("in the way")
    assert bundle.write(incident, model, tmp_path / "file" / "in") is None
    assert "The training goes on without it" in caplog.text


def test_writer_leaves_nothing_half_written(
    incident, model, tmp_path, monkeypatch
):
    """An error in the middle of writing leaves no folder behind."""

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "write_arrays", full)
    assert bundle.write(incident, model, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_lambda_is_never_recorded(incident, tmp_path):
    """A model with a lambda is noted as not recorded: a lambda is code."""
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Lambda(lambda x: x * 2)]
    )
    model.compile("sgd", "mse")
    found = bundle.read(bundle.write(incident, model, tmp_path))
    assert found.model is None
    assert "lambda" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("manifest.json", lambda p: p.unlink()),
        ("report.json", lambda p: p.unlink()),
        ("report.json", lambda p: p.write_text("{}")),
        ("batch.npz", lambda p: p.write_bytes(p.read_bytes()[:-7])),
        ("state.npz", lambda p: os.symlink("/etc/passwd", _gone(p))),
    ],
)
def test_damage_is_named(folder, name, damage):
    """A damaged or incomplete folder is refused with a clear error."""
    damage(folder / name)
    with pytest.raises(BundleError, match="Received: "):
        bundle.read(folder)


def _gone(path):
    path.unlink()
    return path


def test_pickled_arrays_are_refused(folder, monkeypatch):
    """An object array, which needs pickle, is refused even if listed."""
    np.savez(folder / "batch.npz", **{"0": np.array([print], dtype=object)})
    monkeypatch.setattr(bundle, "_verify", lambda folder: None)
    with pytest.raises(BundleError, match="dtype"):
        bundle.read(folder)


def test_announced_sizes_are_not_believed(folder, monkeypatch):
    """A header that announces a terabyte is refused before memory is asked."""
    import zipfile

    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1<<38,), }"
    header = header.replace(b"1<<38", str(1 << 38).encode())
    pad = b" " * (64 - (10 + len(header) + 1) % 64) + b"\n"
    body = b"\x93NUMPY\x01\x00" + (len(header) + len(pad)).to_bytes(2, "little")
    with zipfile.ZipFile(folder / "batch.npz", "w") as archive:
        archive.writestr("0.npy", body + header + pad)
    monkeypatch.setattr(bundle, "_verify", lambda folder: None)
    with pytest.raises(BundleError, match="bytes for shape"):
        bundle.read(folder)


def test_nesting_is_bounded():
    """A structure nested without end is refused, not recursed into."""
    data = {"list": []}
    for _ in range(10_000):
        data = {"list": [data]}
    with pytest.raises(BundleError, match="nested at most"):
        unpack(data, [])


def test_unknown_leaves_are_refused():
    """A leaf that is neither number nor string is named by its dtype."""
    with pytest.raises(TypeError, match="Received: dtype=void"):
        pack(np.zeros(2, dtype=[("a", "f4")]), [])


@pytest.mark.parametrize(
    "mutations",
    [300, pytest.param(10_000, marks=pytest.mark.slow)],
)
def test_mutated_folders_give_one_kind_of_error(
    folder, tmp_path, monkeypatch, mutations
):
    """Random bytes in any file end in `BundleError` or a whole record."""
    # Without the checksums: the parsers themselves must hold.
    monkeypatch.setattr(bundle, "_verify", lambda folder: None)
    rng = random.Random(20260124)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    refused = 0
    for _ in range(mutations):
        name = rng.choice(["report.json", "batch.npz", "state.npz"])
        original = (folder / name).read_bytes()
        damaged = bytearray(original)
        for _ in range(rng.choice([1, 4, 64])):
            where = rng.randrange(len(damaged))
            how = rng.randrange(3)
            if how == 0:
                damaged[where] = rng.randrange(256)
            elif how == 1:
                del damaged[where : where + rng.randrange(1, 64)]
            else:
                damaged[where:where] = rng.randbytes(rng.randrange(1, 64))
            if not damaged:
                damaged = bytearray(b"\0")
        (copy / name).write_bytes(damaged)
        try:
            found = bundle.read(copy)
        except BundleError:
            refused += 1
        else:
            assert isinstance(found.incident, Incident)
        (copy / name).write_bytes(original)
    assert refused > mutations // 2
