"""The header of a safetensors file, read and written without torch.

Eight bytes give the header's length, then JSON names each tensor with dtype, shape and the place of
its bytes; the data follows without a hole (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltool import files
from dltool.errors import CheckpointError

HEADER_LIMIT = 100_000_000
METADATA = "__metadata__"
MAX_DIMENSIONS = 64  # as many as torch knows
# bits an element, as the format names the types
BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U64": 64,
    "U32": 32,
    "U16": 16,
    "U8": 8,
    "BOOL": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "C64": 64,
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    Attributes:
        dtype: a key of `BITS`.
        start, end: its bytes, counted from the end of the header.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def values(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """The size in the file."""
        return self.end - self.start


def read(path: Path) -> list[Entry]:
    """Return the tensors of a safetensors file in the order of their bytes.

    Raises:
        CheckpointError: it is no such file, cut off, or its header contradicts itself or its size.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(HEADER_LIMIT, size - 8):
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length).decode())
        entries = [_entry(name, item) for name, item in header.items() if name != METADATA]
        entries.sort(key=lambda entry: (entry.start, entry.end))
        _check_places(entries, size - 8 - length)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise damaged(path, files.describe_damage(path)) from error
    except RecursionError as error:
        raise damaged(path, "is damaged: its header is nested without end") from error
    return entries


def _entry(name: str, item: Mapping[str, Any]) -> Entry:
    shape, (start, end) = item["shape"], item["data_offsets"]
    numbers = (*shape, start, end)
    if len(shape) > MAX_DIMENSIONS or not all(_is_size(number) for number in numbers):
        raise ValueError(f"{name}: sizes and places are whole numbers")
    entry = Entry(name, item["dtype"], tuple(shape), start, end)
    if entry.values * BITS[entry.dtype] != 8 * entry.bytes:
        raise ValueError(f"{name}: dtype and shape do not fit the bytes")
    return entry


def _is_size(number: object) -> bool:
    return type(number) is int and 0 <= number < 1 << 63


def _check_places(entries: Iterable[Entry], size: int) -> None:
    """Demand that the tensors cover the data without hole or overlap."""
    place = 0
    for entry in entries:
        if entry.start != place:
            raise ValueError(f"{entry.name}: its bytes begin at the wrong place")
        place = entry.end
    if place != size:
        raise ValueError(f"{place} bytes are described, {size} are there")


def encode(entries: Iterable[Entry], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes that stand before the data; they end at a multiple of 8."""
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def damaged(path: Path, what: str) -> CheckpointError:
    """Return the error for a file of a checkpoint that cannot be used."""
    # a name that came out of a damaged file may hold what no terminal can show
    shown = re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", lambda found: ascii(found[0])[1:-1], str(path))
    return CheckpointError(
        "E512", f"{shown} {what}", cure="use an older checkpoint, or copy the file again"
    )
