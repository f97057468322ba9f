"""Arrays to safetensors files and back, without torch: written whole, hashed, opened in place."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dltool import files, headers, manifests
from dltool.errors import CheckpointError, Diverged
from dltool.headers import Entry, damaged

Array = npt.NDArray[Any]

MODEL = manifests.MODEL
DTYPES = {"float32": "F32", "float16": "F16", "int8": "I8", "int32": "I32", "int64": "I64"}
NUMPY = {short: np.dtype(name).newbyteorder("<") for name, short in DTYPES.items()}
# rows looked at together, so that no second copy of a large matrix is made
BLOCK = 1 << 14


def blocks(rows: int, size: int = BLOCK) -> Iterator[slice]:
    """Yield the slices that cover so many rows."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def refuse_non_finite(arrays: Mapping[str, Array]) -> None:
    """Raise when an array of floats holds NaN or infinity.

    Raises:
        Diverged: naming the first such array.
    """
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        # one sum a block: NaN and infinity go through it, and no array of flags is made
        total = sum(float(np.sum(array[place], dtype=np.float64)) for place in blocks(len(array)))
        if not math.isfinite(total):
            raise Diverged("E702", f"{name!r} is no longer finite; it was not saved")


def _pieces(entries: list[Entry], arrays: Mapping[str, Array]) -> Iterator[files.Bytes]:
    yield headers.encode(entries, {"format": "np"})
    for entry in entries:
        array = arrays[entry.name]
        for place in blocks(len(array)):
            block = np.ascontiguousarray(array[place], dtype=NUMPY[entry.dtype])
            yield block.reshape(-1).view(np.uint8).data


def _write_arrays(path: Path, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Write a safetensors file; return its entry of the manifest."""
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    entries, place = [], 0
    for name in order:
        array = arrays[name]
        end = place + array.nbytes
        entries.append(Entry(name, DTYPES[array.dtype.name], array.shape, place, end))
        place = end
    return files.write_hashed(path, _pieces(entries, arrays))


def write_folder(folder: Path, arrays: Mapping[str, Array], documents: Mapping[str, Any]) -> None:
    """Write a folder of `model.safetensors`, JSON documents by name, and the manifest last.

    Raises:
        Diverged: an array is not finite; nothing is written.
        DltoolError: the folder cannot be written.
    """
    refuse_non_finite(arrays)
    with files.folder_written_atomically(folder) as temporary:
        entries = {MODEL: _write_arrays(temporary / MODEL, arrays)}
        for name, document in documents.items():
            # no indent: a vocabulary has hundreds of thousands of lines else
            plain = json.dumps(document, ensure_ascii=False, allow_nan=False)
            text = plain.encode("utf-8", errors="replace") + b"\n"
            entries[name] = files.write_hashed(temporary / name, [text])
        files.write_synced(temporary / manifests.MANIFEST, manifests.manifest_bytes(entries))


def open_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of a safetensors file, mapped: what is not looked at is not read.

    Raises:
        CheckpointError: it is damaged, or holds a type that vectors never have.
    """
    start = _data_start(path)
    found: dict[str, Array] = {}
    for entry in headers.read(path):
        if entry.dtype not in NUMPY:
            raise damaged(path, f"holds {entry.dtype} in {entry.name}, which no vectors are")
        if not entry.values:
            found[entry.name] = np.zeros(entry.shape, NUMPY[entry.dtype])
            continue
        mapped = np.memmap(
            path, NUMPY[entry.dtype], mode="r", offset=start + entry.start, shape=entry.shape
        )
        found[entry.name] = np.asarray(mapped)
    return found


def _data_start(path: Path) -> int:
    headers.read(path)
    with path.open("rb") as stream:
        return 8 + int.from_bytes(stream.read(8), "little")


def read_document(folder: Path, name: str) -> dict[str, Any]:
    """Return a JSON object of a folder that a manifest lists.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / name
    try:
        value = json.loads(files.read_limited(path, 4 * files.JSON_LIMIT))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, files.describe_damage(path)) from error
    if not isinstance(value, dict):
        raise damaged(path, "holds no JSON object")
    return value


def check_sizes(folder: Path) -> None:
    """Compare the sizes of a folder's files with its manifest, which vouches for itself.

    The vectors' own hash is left to `dltool checkpoint verify`: it takes longer than a search.

    Raises:
        CheckpointError: naming the file that is cut, missing or too long.
    """
    for name, entry in manifests.read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            raise damaged(path, "is missing")
        if path.stat().st_size != entry["bytes"]:
            raise damaged(path, files.describe_damage(path, entry["bytes"]))


def native(array: Array) -> Array:
    """Return an array in the byte order of this machine."""
    return array if sys.byteorder == "little" else array.astype(array.dtype.newbyteorder("="))


def require(arrays: Mapping[str, Array], name: str, folder: Path) -> Array:
    """Return the array of this name.

    Raises:
        CheckpointError: it is not there.
    """
    if name not in arrays:
        raise CheckpointError("E511", f"{folder} holds no {name}", cure="train or import it again")
    return native(arrays[name])
