"""Arrays and nested structures to files and back, without pickle.

A structure (tuples, lists, dicts of tensors, as `train_step` receives it) is
written as JSON whose leaves name arrays of an uncompressed `.npz`. The reader
trusts nothing: each member's header must announce exactly the bytes that
follow, so a damaged or hostile file can neither run code nor ask for more
memory than it brings.
"""

import base64
import io
import reprlib
import zipfile

import numpy as np

from stablekeras.errors import BundleError

__all__ = ["pack", "read_arrays", "unpack", "write_arrays"]

# Dtypes that .npy does not know, by the integers that carry their bits.
_CARRIERS = {
    "bfloat16": np.uint16,
    "float8_e4m3fn": np.uint8,
    "float8_e5m2": np.uint8,
}
_PLAIN_KINDS = "biufc"
_DEPTH_LIMIT = 64
_MEMBER_LIMIT = 100_000


def pack(structure, arrays):
    """Returns `structure` as JSON-able data, its leaves added to `arrays`.

    Args:
        structure: Nested tuples, lists and dicts of arrays, tensors, numbers,
            strings and `None`.
        arrays: List that receives the arrays, in order.

    Raises:
        TypeError: If a leaf is none of these.
    """
    if structure is None:
        return None
    if isinstance(structure, dict):
        return {
            "dict": [[str(k), pack(v, arrays)] for k, v in structure.items()]
        }
    if isinstance(structure, tuple | list):
        kind = "tuple" if isinstance(structure, tuple) else "list"
        return {kind: [pack(item, arrays) for item in structure]}
    value = np.asarray(structure)
    name = value.dtype.name
    if value.dtype.kind in "OSU":
        return {
            "strings": [
                base64.b64encode(
                    item if isinstance(item, bytes) else str(item).encode()
                ).decode()
                for item in value.ravel()
            ],
            "shape": list(value.shape),
        }
    if name in _CARRIERS:
        value = np.ascontiguousarray(value).view(_CARRIERS[name])
    elif value.dtype.kind not in _PLAIN_KINDS:
        raise TypeError(
            "A batch may hold numbers and strings. Received: dtype="
            f"{name}. Convert that column before training."
        )
    arrays.append(value)
    return {"array": len(arrays) - 1, "dtype": name}


def unpack(data, arrays, depth=0):
    """Returns the structure that `pack` described.

    Raises:
        BundleError: If `data` is not such a description.
    """
    if depth > _DEPTH_LIMIT:
        raise BundleError(
            f"A batch is nested at most {_DEPTH_LIMIT} deep. Received: more. "
            "The folder is damaged; take another copy of it."
        )
    if data is None:
        return None
    try:
        if "dict" in data:
            return {k: unpack(v, arrays, depth + 1) for k, v in data["dict"]}
        if "tuple" in data:
            return tuple(unpack(v, arrays, depth + 1) for v in data["tuple"])
        if "list" in data:
            return [unpack(v, arrays, depth + 1) for v in data["list"]]
        if "strings" in data:
            items = [base64.b64decode(item) for item in data["strings"]]
            return np.array(items, dtype=object).reshape(data["shape"])
        value = arrays[data["array"]]
        return value.view(_extended(data["dtype"], value.dtype))
    except BundleError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as e:
        raise BundleError(
            "A batch must be described by tuples, lists, dicts and arrays. "
            f"Received: {reprlib.repr(data)}. The folder is damaged; take "
            "another copy of it."
        ) from e


def _extended(name, stored):
    if name == stored.name:
        return stored
    if name in _CARRIERS and stored == _CARRIERS[name]:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    raise ValueError(name)


def write_arrays(path, arrays):
    """Writes a list of arrays to an uncompressed `.npz`."""
    # numpy before 2.2 takes savez(allow_pickle=False) for one more array.
    with zipfile.ZipFile(path, "w") as archive:
        for i, array in enumerate(arrays):
            with archive.open(f"{i}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(
                    member, np.asanyarray(array), allow_pickle=False
                )


def read_arrays(path, max_bytes):
    """Reads the arrays that `write_arrays` wrote, trusting nothing.

    Args:
        path: The `.npz` file.
        max_bytes: Bytes that all arrays together may have.

    Returns:
        List of arrays.

    Raises:
        BundleError: If the file is not exactly such an archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if len(members) > _MEMBER_LIMIT or total > max_bytes:
                raise BundleError(
                    f"An incident's arrays have at most {max_bytes} bytes. "
                    f"Received: {total} in {len(members)} members of {path}. "
                    "Pass a larger max_bytes if you trust it."
                )
            by_name = {member.filename: member for member in members}
            return [
                _read_member(archive, by_name[f"{i}.npy"])
                for i in range(len(members))
            ]
    except BundleError:
        raise
    except Exception as e:
        raise BundleError(
            "An incident's arrays must be an uncompressed .npz as written "
            f"here. Received: {path}: {type(e).__name__}: {e}. The folder is "
            "damaged; take another copy of it."
        ) from e


def _read_member(archive, member):
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"member {member.filename} is compressed")
    # The announced size bounds the read, whatever the header says.
    stream = io.BytesIO(archive.read(member))
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"format {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    body = stream.read()
    if dtype.kind not in _PLAIN_KINDS or any(n < 0 for n in shape):
        raise ValueError(f"dtype {dtype}, shape {shape}")
    count = 1
    for n in shape:
        count *= n
    if count * dtype.itemsize != len(body):
        raise ValueError(f"{len(body)} bytes for shape {shape} of {dtype}")
    values = np.frombuffer(body, dtype)
    if fortran:
        return values.reshape(shape[::-1]).T.copy()
    return values.reshape(shape).copy()
