"""Read idx files, the format of MNIST (http://yann.lecun.com/exdb/mnist/)."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dltool.data.download import name_content
from dltool.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
MAX_DIMENSIONS = 4
MAX_BYTES = 1 << 32
# deflate cannot pack more than 1032 bytes into one
MAX_GZIP_RATIO = 1040
CHUNK_BYTES = 1 << 20

DTYPES = {
    0x08: "uint8",
    0x09: "int8",
    0x0B: "int16",
    0x0C: "int32",
    0x0D: "float32",
    0x0E: "float64",
}


def read_idx(path: Path) -> Tensor:
    """Read an idx file of bytes, plain or gzipped (told by its first bytes, not by its name).

    No more is unpacked than the header promises, and no memory is taken before the file's size has
    been found to fit.

    Returns:
        A uint8 tensor of the shape that the header states.

    Raises:
        DataError: E501 the file is missing or unreadable, E502 it is damaged or something else.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError("E501", f"{path} {what}", expected="an idx file")
    try:
        return _read(path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, f"its gzip data is damaged or cut off: {error}") from error
    except OSError as error:
        raise DataError("E501", f"{path} cannot be read: {error.strerror}") from error


def _read(path: Path) -> Tensor:
    size = path.stat().st_size
    with path.open("rb") as plain:
        head = plain.read(512)
        plain.seek(0)
        if head.startswith(GZIP_MAGIC):
            with gzip.GzipFile(fileobj=plain) as unpacked:
                return _parse(path, cast("IO[bytes]", unpacked), None, size * MAX_GZIP_RATIO)
        if not head.startswith(b"\0\0") or not head.strip(b"\0"):
            raise _damaged(path, _stranger(path, head))
        return _parse(path, plain, size, size)


def _stranger(path: Path, head: bytes) -> str:
    content = name_content(head)
    if not content:
        return "it is neither gzip nor idx" if path.suffix == ".gz" else "it is no idx file"
    return f"it is {content}"


def _parse(path: Path, file: IO[bytes], size: int | None, most: int) -> Tensor:
    """Read header and items; `size` is the file's length where it is known, `most` its bound."""
    shape, header = _read_shape(path, file)
    count = math.prod(shape)
    if count == 0 or count > MAX_BYTES:
        raise _damaged(path, f"its header states the shape {shape}, {count:,} bytes")
    if size is not None and size != header + count:
        kind = "cut off" if size < header + count else "too long"
        raise _damaged(path, f"it is {kind}: {size:,} bytes in place of {header + count:,}")
    if header + count > most:
        raise _damaged(path, f"its header promises {count:,} bytes, more than it can hold")
    items = torch.empty(count, dtype=torch.uint8)
    _fill(path, file, items.numpy())
    # reading to the end makes gzip compare its checksum
    if file.read(1):
        raise _damaged(path, f"it goes on after the {count:,} bytes that its header promises")
    return items.reshape(shape)


def _read_shape(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], int]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise _damaged(path, f"it is {name_content(head + file.read(508)) or 'no idx file'}")
    kind, dimensions = head[2], head[3]
    if kind != 0x08:
        name = DTYPES.get(kind, f"the unknown type 0x{kind:02x}")
        raise _damaged(path, f"it holds {name}, expected uint8")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise _damaged(path, f"its header states {dimensions} dimensions, expected 1 to 4")
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise _damaged(path, "it is cut off within its header")
    return struct.unpack(f">{dimensions}I", sizes), 4 + 4 * dimensions


def _fill(path: Path, file: IO[bytes], target: npt.NDArray[np.uint8]) -> None:
    done = 0
    while done < len(target):
        chunk = file.read(min(CHUNK_BYTES, len(target) - done))
        if not chunk:
            raise _damaged(path, f"it is cut off after {done:,} of {len(target):,} bytes")
        target[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
        done += len(chunk)


def _damaged(path: Path, reason: str) -> DataError:
    cure = f"remove {os.fspath(path)} and get it again"
    return DataError("E502", f"{path} cannot be read: {reason}", cure=cure)
