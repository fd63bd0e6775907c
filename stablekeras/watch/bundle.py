"""One incident, one folder: written whole or not at all, read without trust.

    incidents/20260131T101500-e3-s417/
        report.html     the page for people (with the `report` extra)
        report.json     incident, diagnosis, versions, the batch's structure
        batch.npz       the failing batch
        state.npz       every variable before the step
        model.json      the model's configuration, where it has one
        manifest.json   size and SHA-256 of each file; written last

A folder is filled under a temporary name and then renamed, so that one with
an incident's name is complete. A disk that is full or read-only costs the
report, never the training: `write` then returns `None` and says so once.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import logging
import math
import os
import pathlib
import platform
import re
import shutil
import tempfile
import time
from typing import Any

import keras
import numpy as np

from stablekeras.errors import BundleError
from stablekeras.watch.archive import pack, read_arrays, unpack, write_arrays
from stablekeras.watch.records import Diagnosis, Incident

__all__ = ["Bundle", "read", "versions", "write"]

MAX_INCIDENTS = 50
MAX_BYTES = 2**31
_FORMAT = 1
_NAME = re.compile(r"\d{8}T\d{6}-e\d+-s\d+(-\d+)?")
_PARTIAL = ".partial-"
_STALE_SECONDS = 3600
_TEXT_LIMIT = 64 * 2**20
_FILES = ("report.json", "batch.npz", "state.npz", "model.json", "report.html")

_log = logging.getLogger("stablekeras")


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An incident's folder, read back.

    Args:
        path: The folder.
        incident: The incident with its diagnosis and batch.
        state: Values of all variables before the step: pairs of variable
            path and array, the model's variables first, in their order.
        model_variables: How many of `state` are the model's own.
        model: The model's configuration for Keras, or `None`.
        versions: Versions of Python, Keras, TensorFlow and stablekeras.
        notes: What was left out when the folder was written, and why.
    """

    path: pathlib.Path
    incident: Incident
    state: tuple[tuple[str, np.ndarray], ...]
    model_variables: int
    model: dict[str, Any] | None
    versions: dict[str, str]
    notes: tuple[str, ...]


def write(
    incident,
    model,
    directory,
    *,
    page=None,
    max_incidents=MAX_INCIDENTS,
    max_bytes=MAX_BYTES,
):
    """Writes an incident's folder.

    Args:
        incident: The `Incident`; `incident.state` overrides the values that
            the model's variables hold now.
        model: The model, whose variables are those before the step.
        directory: Folder that receives the incident's folder; made if it is
            not there.
        page: Text of `report.html`, or `None`.
        max_incidents: Folders kept; beyond it the oldest are removed.
        max_bytes: Bytes that the arrays of one folder may have. What does
            not fit is left out and noted: first the optimizer's slots, then
            the weights.

    Returns:
        The folder's path as `str`, or `None` where it could not be written.
    """
    directory = pathlib.Path(directory)
    partial = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _sweep(directory)
        partial = pathlib.Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=directory))
        _fill(partial, incident, model, page, max_bytes)
        final = _publish(partial, directory, incident)
        _bound(directory, max_incidents)
        return str(final)
    except Exception as e:
        # Whatever went wrong here is smaller than losing the training, and
        # so is a terminal that is gone.
        with contextlib.suppress(Exception):
            _log.warning(
                "An incident's folder must be writable. Received: %s: %s in "
                "%s. The training goes on without it; free space or pass "
                "another directory.",
                type(e).__name__,
                e,
                directory,
            )
        return None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _fill(folder, incident, model, page, max_bytes):
    notes = []
    batch_arrays: list[np.ndarray] = []
    try:
        structure = pack(incident.batch, batch_arrays)
    except TypeError as e:
        structure = None
        notes.append(f"batch left out: {e}")
    size = sum(array.nbytes for array in batch_arrays)
    if size > max_bytes:
        notes.append(f"batch left out: {size} bytes, limit {max_bytes}")
        structure, batch_arrays, size = None, [], 0
    names, values, own = _state(incident, model, max_bytes - size, notes)
    state_arrays: list[np.ndarray] = []
    state_structure = pack(values, state_arrays)
    config = _model_config(model, notes)

    write_arrays(folder / "batch.npz", batch_arrays)
    write_arrays(folder / "state.npz", state_arrays)
    if config is not None:
        (folder / "model.json").write_text(config, encoding="utf-8")
    if page is not None:
        (folder / "report.html").write_text(page, encoding="utf-8")
    report = {
        "format": _FORMAT,
        "created": datetime.datetime.now().astimezone().isoformat(),
        "incident": {
            "epoch": incident.epoch,
            "step": incident.step,
            "action": incident.action,
            "tripped": list(incident.tripped),
            "logs": {
                k: float(v) if math.isfinite(v) else repr(float(v))
                for k, v in incident.logs.items()
            },
            "replica": incident.replica,
            "worker": incident.worker,
        },
        "diagnosis": incident.diagnosis
        and json.loads(incident.diagnosis.to_json()),
        "batch": structure,
        "state": {"names": names, "values": state_structure, "model": own},
        "versions": versions(),
        "notes": notes,
    }
    (folder / "report.json").write_text(
        json.dumps(report, indent=1, allow_nan=False), encoding="utf-8"
    )
    manifest = {
        path.name: {"bytes": path.stat().st_size, "sha256": _digest(path)}
        for path in sorted(folder.iterdir())
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for path in [*folder.iterdir(), folder]:
        _sync(path)


def _state(incident, model, room, notes):
    """Names and values before the step; the model's own variables first."""
    groups = [list(model.variables)]
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        groups.append(list(optimizer.variables))
    names: list[str] = []
    values: list[np.ndarray] = []
    own = 0
    for index, variables in enumerate(groups):
        taken = [
            np.asarray(
                incident.state[v.path]
                if v.path in incident.state
                else keras.ops.convert_to_numpy(v.value)
            )
            for v in variables
        ]
        size = sum(value.nbytes for value in taken)
        if size > room:
            what = "weights" if index == 0 else "optimizer variables"
            notes.append(f"{what} left out: {size} bytes, limit {room}")
            continue
        room -= size
        names += [v.path for v in variables]
        values += taken
        if index == 0:
            own = len(variables)
    return names, values, own


def _model_config(model, notes):
    try:
        config = keras.saving.serialize_keras_object(model)
        text = json.dumps(config)
    except Exception as e:
        notes.append(
            f"model left out: {type(e).__name__}: {e}. Replay needs "
            "--model module:factory"
        )
        return None
    if '"__lambda__"' in text:
        notes.append(
            "model left out: it holds a lambda, which is code. Replay needs "
            "--model module:factory"
        )
        return None
    return text


def _publish(partial, directory, incident):
    """Renames the complete folder to the incident's name."""
    now = datetime.datetime.now().strftime("%Y%m%dT%H%M%S")
    stem = f"{now}-e{incident.epoch}-s{incident.step}"
    os.chmod(partial, 0o755)
    for attempt in range(10_000):
        final = directory / (stem if not attempt else f"{stem}-{attempt}")
        # A rename onto a folder that holds files fails: nothing is replaced.
        try:
            os.rename(partial, final)
        except OSError:
            if not final.exists():
                raise
        else:
            _sync(directory)
            return final
    raise FileExistsError(f"10,000 incidents are named {stem}")


def _bound(directory, max_incidents):
    """Removes the oldest incident folders beyond `max_incidents`."""
    if max_incidents is None:
        return
    ours = []
    for path in directory.iterdir():
        # Another training may be writing, and removing, here too.
        with contextlib.suppress(FileNotFoundError):
            if _NAME.fullmatch(path.name):
                ours.append((path.stat().st_mtime_ns, path.name, path))
    for *_, path in sorted(ours)[: max(0, len(ours) - max_incidents)]:
        # Away first: a folder half removed must not look like an incident. A
        # new place each time: a writer that was killed may have left one.
        doomed = tempfile.mkdtemp(prefix=_PARTIAL, dir=directory)
        with contextlib.suppress(OSError):
            os.rename(path, os.path.join(doomed, path.name))
        shutil.rmtree(doomed, ignore_errors=True)


def _sweep(directory):
    """Removes what an interrupted writer left behind."""
    for path in directory.glob(f"{_PARTIAL}*"):
        try:
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
        except FileNotFoundError:
            continue


def _sync(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path):
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions():
    """Returns the versions that matter for a replay, by package name."""
    import stablekeras

    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "keras": keras.__version__,
        "stablekeras": stablekeras.__version__,
    }
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        versions["tensorflow"] = tf.__version__
    return versions


def read(path, *, max_bytes=MAX_BYTES):
    """Reads an incident's folder; runs no code that stands in it.

    Args:
        path: The folder.
        max_bytes: Bytes that its arrays may have together.

    Returns:
        A `Bundle`.

    Raises:
        BundleError: If the folder is missing, incomplete, damaged or larger
            than allowed.
    """
    folder = pathlib.Path(path)
    if not (folder / "manifest.json").is_file():
        raise BundleError(
            "An incident is a folder with a manifest.json. Received: "
            f"{str(path)!r}. Pass the folder that the report names."
        )
    try:
        _verify(folder)
        report = json.loads(_text(folder / "report.json"))
        if report["format"] != _FORMAT:
            raise ValueError(f"format {report['format']}")
        batch = unpack(
            report["batch"], read_arrays(folder / "batch.npz", max_bytes)
        )
        state = report["state"]
        values = unpack(
            state["values"], read_arrays(folder / "state.npz", max_bytes)
        )
        names, own = state["names"], int(state["model"])
        if len(names) != len(values) or not 0 <= own <= len(names):
            raise ValueError(f"{len(names)} names, {len(values)} values")
        fields = report["incident"]
        incident = Incident(
            epoch=int(fields["epoch"]),
            step=int(fields["step"]),
            action=str(fields["action"]),
            tripped=tuple(map(str, fields["tripped"])),
            diagnosis=report["diagnosis"]
            and Diagnosis.from_json(json.dumps(report["diagnosis"])),
            path=str(folder),
            batch=batch,
            logs={str(k): float(v) for k, v in fields["logs"].items()},
            replica=fields["replica"],
            worker=fields.get("worker"),
        )
        config = folder / "model.json"
        model = json.loads(_text(config)) if config.is_file() else None
        return Bundle(
            path=folder,
            incident=incident,
            state=tuple(zip(map(str, names), values, strict=True)),
            model_variables=own,
            model=model,
            versions=dict(report["versions"]),
            notes=tuple(map(str, report["notes"])),
        )
    except BundleError:
        raise
    except Exception as e:
        # Whatever the bytes are, the reader answers with one kind of error.
        raise BundleError(
            "An incident's folder must be as it was written. Received: "
            f"{folder}: {type(e).__name__}: {e}. Take another copy of it."
        ) from e


def _verify(folder):
    manifest = json.loads(_text(folder / "manifest.json"))
    required = {"report.json", "batch.npz", "state.npz"}
    if not required <= set(manifest) <= set(_FILES):
        raise ValueError(f"manifest lists {sorted(manifest)}")
    for name, expected in manifest.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"{name} is not a plain file")
        if path.stat().st_size != expected["bytes"]:
            raise ValueError(f"{name} has not the size in the manifest")
        if _digest(path) != expected["sha256"]:
            raise ValueError(f"{name} is not the file in the manifest")


def _text(path):
    if path.stat().st_size > _TEXT_LIMIT:
        raise ValueError(f"{path.name} is larger than {_TEXT_LIMIT} bytes")
    return path.read_text(encoding="utf-8")
