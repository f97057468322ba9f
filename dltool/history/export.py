"""Runs as one table for other programs: CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dltool import runs
from dltool.errors import ConfigError, MissingExtra
from dltool.files import write_bytes_atomic
from dltool.history.folders import PastRun
from dltool.history.values import short

FORMATS = {"csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet"}
TABLES = ("metrics", "runs")

Row = dict[str, Any]


def format_of(path: Path, wanted: str | None) -> str:
    """Return the format that was asked for, or the one that the file's name says.

    Raises:
        ConfigError: neither says one.
    """
    named = next((name for name, end in FORMATS.items() if path.suffix.lower() == end), None)
    chosen = wanted or named
    if chosen not in FORMATS:
        raise ConfigError(
            "E202",
            "the format of the export is not known",
            received=wanted or str(path),
            expected=", ".join(FORMATS),
            cure="add --format csv",
        )
    return chosen


def rows(found: Sequence[PastRun], table: str) -> Iterator[Row]:
    """Yield one row a logged line (`metrics`), or one a run with settings and result (`runs`)."""
    for run in found:
        identity: Row = {"run": str(run.folder), "topic": run.topic}
        if table == "metrics":
            seed = {"seed": run.settings.get("seed")}
            yield from ({**identity, **seed, **line} for line in runs.read_records(run.folder))
            continue
        facts = {"status": run.state, "grade": run.facts.get("grade"), "created": run.created}
        settings = {f"setting.{name}": value for name, value in run.settings.items()}
        results = {f"result.{name}": score.value for name, score in run.scores.items()}
        yield {**identity, **facts, **settings, **results, "note": run.note or None}


def write(found: Sequence[PastRun], table: str, path: Path, form: str) -> int:
    """Write the table atomically; return its number of rows.

    Raises:
        MissingExtra: Parquet without pyarrow.
    """
    if form == "parquet":
        return _write_parquet(list(rows(found, table)), path)
    content = io.StringIO(newline="")
    count = 0
    if form == "jsonl":
        for row in rows(found, table):
            content.write(json.dumps(_plain(row), ensure_ascii=False) + "\n")
            count += 1
    else:
        listed = list(rows(found, table))
        count = len(listed)
        writer = csv.DictWriter(content, _columns(listed), restval="", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in listed)
    write_bytes_atomic(path, content.getvalue().encode())
    return count


def _columns(listed: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in listed for name in row))


def _cell(value: Any) -> Any:
    """Return a cell for CSV: nested values as JSON, None empty; floats keep every digit."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value


def _plain(row: Row) -> Row:
    # NaN and infinity are no JSON
    return {k: None if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}


def _write_parquet(listed: Sequence[Row], path: Path) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "tables") from error
    columns = {
        name: _column([row.get(name) for row in listed], pyarrow) for name in _columns(listed)
    }
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), content)
    write_bytes_atomic(path, content.getvalue())
    return len(listed)


def _column(values: Sequence[Any], pyarrow: Any) -> Any:
    """Return a column of one type; values of several kinds become text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and float in kinds:
        return pyarrow.array([None if v is None else float(v) for v in values], pyarrow.float64())
    if len(kinds) <= 1 and not kinds & {dict, list}:
        return pyarrow.array(values)
    return pyarrow.array([None if value is None else _text(value) for value in values])


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else short(value)
