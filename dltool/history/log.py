"""Read `metrics.jsonl`: the line of the best epoch, or whole columns of a long log at once."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Column = npt.NDArray[np.float64]

NAME = "metrics.jsonl"
LONG = 10_000  # lines from which time is saved
X_AXES = ("epoch", "step")


def best_record(folder: Path) -> dict[str, Any]:
    """Return the line of the newest epoch that is marked as best, else the last whole line."""
    return _best(_content(folder))


def _content(folder: Path) -> bytes:
    try:
        return (folder / NAME).read_bytes()
    except OSError:
        return b""


def _best(content: bytes) -> dict[str, Any]:
    end = content.rfind(b"\n") + 1  # the last line may be half-written
    for place in (content.rfind(b'"best": true', 0, end), end - 2):
        start = content.rfind(b"\n", 0, max(place, 0)) + 1
        record = _parsed(content[start : content.find(b"\n", max(place, 0))])
        if place >= 0 and record is not None:
            return record
    records = _records(content)
    return records[-1] if records else {}


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _records(content: bytes) -> list[dict[str, Any]]:
    """Return the lines up to the first that is damaged."""
    records = []
    for line in content.splitlines():
        record = _parsed(line)
        if record is None:
            break
        records.append(record)
    return records


def columns(content: bytes, names: list[str]) -> dict[str, Column]:
    """Return columns of numbers out of a log, one value a line, NaN where a line has none.

    A log as training writes it, one flat object a line, is read by a pattern for each name, some
    ten times faster than line by line; any other falls back to that.
    """
    end = content.rfind(b"\n") + 1  # the last line may be half-written
    count = content.count(b"\n")
    is_regular = content[:1] == b"{" and content.count(b"{", 0, end) == count
    fast = _by_pattern(content, names, count, end) if is_regular else None
    return _line_by_line(content, names) if fast is None else fast


def _by_pattern(content: bytes, names: list[str], count: int, end: int) -> dict[str, Column] | None:
    """Return the columns, or None where a line lacks a name or holds another kind of value."""
    import numpy as np

    found = {}
    for name in names:
        # a quotation mark inside of a JSON text has a backslash before it, so this is a key
        key = re.escape(json.dumps(name, ensure_ascii=False).encode())
        if name == "epoch" and (counted := _counted(content, count, end)) is not None:
            found[name] = counted
            continue
        texts = re.compile(key + rb": ?([^,}]+)").findall(content, 0, end)
        if len(texts) != count:
            return None
        try:
            found[name] = np.fromiter(map(float, texts), np.float64, count)
        except ValueError:
            return None
    return found


def _counted(content: bytes, count: int, end: int) -> Column | None:
    """Return the epochs of a long log that counts them one by one, by its first and last line."""
    import numpy as np

    if count < LONG:
        return None
    lines = (content[: content.find(b"\n")], content[content.rfind(b"\n", 0, end - 1) : end])
    ends = [(_parsed(line) or {}).get("epoch") for line in lines]
    first, last = ends
    if not isinstance(first, int) or last != first + count - 1:
        return None
    return np.arange(first, first + count, dtype=np.float64)


def _line_by_line(content: bytes, names: list[str]) -> dict[str, Column]:
    import numpy as np

    records = _records(content)
    return {
        name: np.array([_number(record.get(name)) for record in records], dtype=np.float64)
        for name in names
    }


def _number(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def curves(folder: Path, names: Sequence[str]) -> dict[str, tuple[Column, Column, str]]:
    """Return metrics over the epochs, or steps, or lines: x, y (same length) and what x is.

    Lines without a finite value are left out; a metric that was never logged has no curve.
    """
    import numpy as np

    content = _content(folder)
    known = _best(content)
    axis = next((axis for axis in X_AXES if axis in known), "line")
    found = columns(content, [*(name for name in (axis, *names) if name != "line")])
    lines = max(map(len, found.values()), default=0)
    x = found.get(axis, np.arange(1, lines + 1, dtype=np.float64))
    drawn = {}
    for name in names:
        keep = np.isfinite(x) & np.isfinite(found[name])
        if keep.any():
            drawn[name] = (x[keep], found[name][keep], axis)
    return drawn


def numeric_names(record: Mapping[str, Any]) -> list[str]:
    """Return the names of a line's numbers, in the order in which they are written."""
    return [
        name
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
