"""Tables from CSV files: types inferred, missing values known, faults named by line and column.

With pyarrow (the extra `tables`) a million rows are read in about two seconds; without it Python's
own csv module reads the same table more slowly. Both hold the columns once and little beside.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dltool.data import table_rows
from dltool.data.table_rows import Format, ragged
from dltool.errors import ConfigError, DataError, MissingExtra

__all__ = ["MISSING", "Column", "Format", "Table", "read"]

# "None" is left out: in real tables it is a value, such as a house without a veneer
MISSING = frozenset(("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NAN", "null", "NULL", "?"))
ENGINES = ("auto", "pyarrow", "csv")
CHUNK_ROWS = 20_000
MOSTLY = 0.5  # a column with a larger share of numbers is a number column

Numbers = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Column:
    """One column: numbers, or texts as codes.

    Attributes:
        numbers: (N,) float64, NaN where missing; empty for a text column.
        codes: (N,) int32 into `levels`, -1 where missing; empty for a number column.
        levels: the different texts in the order of their first use; None for a number column.
    """

    name: str
    numbers: Numbers
    codes: Codes
    levels: tuple[str, ...] | None = None

    @property
    def is_number(self) -> bool:
        """Whether the column holds numbers."""
        return self.levels is None

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        """(N,) where there is no value."""
        empty: npt.NDArray[np.bool_] = np.isnan(self.numbers) if self.is_number else self.codes < 0
        return empty

    def text(self, row: int) -> str:
        """Return one cell as text; a missing one is empty."""
        if self.levels is not None:
            return self.levels[self.codes[row]] if self.codes[row] >= 0 else ""
        value = float(self.numbers[row])
        return "" if np.isnan(value) else f"{value:.17g}" if value % 1 else f"{value:.0f}"


@dataclass(frozen=True)
class Table:
    """The columns of a CSV file, in the order of the file.

    Attributes:
        path: where it was read from.
        name: what errors call it.
        form: the settled format.
        header: every column name of the file, also of those that were not read.
    """

    path: Path
    name: str
    form: Format
    header: tuple[str, ...]
    num_rows: int
    columns: dict[str, Column] = field(repr=False)

    def line_of(self, column: str, row: int) -> int:
        """Return the line in the file of a row; it reads the file up to there."""
        found = islice(table_rows.rows(self.path, self.form, self.name), row + 1, None)
        return next(found, (0, []))[0]


def read(
    path: Path,
    *,
    form: Format | None = None,
    name: str = "",
    wanted: Collection[str] | None = None,
    numbers: Collection[str] = (),
    texts: Collection[str] = (),
    engine: str = "auto",
) -> Table:
    """Read a CSV file with a header line.

    A column is numeric when all of its values are numbers, and text otherwise; a column where
    more than half of the values are numbers and others are not is a fault. The cells of `MISSING`
    are missing values, also in quotes and with spaces around.

    Args:
        form: delimiter, encoding, decimal point.
        name: what errors call the file, by default its path.
        wanted: names of the columns to read; all by default.
        numbers: columns that must be numbers.
        texts: columns that are texts, also when they look like numbers.
        engine: `pyarrow`, `csv`, or `auto` for the first that is installed.

    Raises:
        DataError: E501, no such file; E502, a fault, with line and column; E503, no rows.
        ConfigError: E206, an unknown engine.
        MissingExtra: pyarrow was asked for and is not there.
    """
    name = name or str(path)
    form = table_rows.settled(path, form or Format(), name)
    header = table_rows.header(path, form, name)
    chosen = [text for text in header if wanted is None or text in wanted]
    source = _Source(path, name, form, header, frozenset(chosen), frozenset(texts))
    columns = _read_columns(source, engine)
    sizes = {len(column.codes) + len(column.numbers) for column in columns.values()}
    num_rows = sizes.pop() if sizes else table_rows.check_widths(path, form, name)
    if num_rows == 0:
        raise DataError(
            "E503",
            f"{name}, line 2: there is no row below the header",
            expected="at least one row",
            cure="give a file with data",
        )
    for column in columns.values():
        _check(column, source, column.name in numbers)
    return Table(path, name, form, tuple(header), num_rows, columns)


@dataclass(frozen=True)
class _Source:
    path: Path
    name: str
    form: Format
    header: list[str]
    wanted: frozenset[str]
    texts: frozenset[str]

    def column_of(self, name: str) -> int:
        return self.header.index(name)


def _read_columns(source: _Source, engine: str) -> dict[str, Column]:
    if engine not in ENGINES:
        raise ConfigError("E206", f"no CSV engine is named {engine!r}", expected=", ".join(ENGINES))
    has_arrow = find_spec("pyarrow") is not None
    if engine == "pyarrow" and not has_arrow:
        raise MissingExtra("pyarrow", "tables")
    if engine == "csv" or not has_arrow:
        return _with_csv(source)
    return _with_arrow(source)


# ---- the engines: both give number columns and raw texts -----------------------------------


class _Texts:
    """Collect a text column as codes."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.parts: list[Codes] = []

    def add(self, cells: Sequence[str | None], places: npt.NDArray[Any] | None = None) -> None:
        """Add cells, or the cells that `places` point to."""
        known = [
            -1 if cell is None else self.codes.setdefault(cell, len(self.codes)) for cell in cells
        ]
        own = np.array(known, dtype=np.int32)
        self.parts.append(own if places is None else own[places])

    def column(self, name: str, form: Format, *, keep: bool) -> Column:
        """Return the column; numbers in disguise (spaces, quotes) become numbers unless kept."""
        raw = np.concatenate(self.parts) if self.parts else np.empty(0, np.int32)
        self.parts = []
        stripped = [cell.strip() for cell in self.codes]
        present = [cell for cell in dict.fromkeys(stripped) if cell not in MISSING]
        values = [table_rows.number(cell, form.decimal) for cell in present]
        # one place more, for the code -1
        if not keep and all(value is not None for value in values):
            known = dict(zip(present, values, strict=True))
            table = [known.get(cell, np.nan) for cell in stripped]
            looked_up = np.array([*table, np.nan], dtype=np.float64)
            return Column(name, looked_up[raw], np.empty(0, np.int32))
        order = {cell: code for code, cell in enumerate(present)}
        codes = np.array([*(order.get(cell, -1) for cell in stripped), -1], dtype=np.int32)
        return Column(name, np.empty(0), codes[raw], tuple(present))


def _with_csv(source: _Source) -> dict[str, Column]:
    texts = {name for name in source.texts if name in source.wanted}
    numbers: dict[str, list[Numbers]] = {}
    found = _csv_pass(source, source.wanted - texts, texts, numbers)
    late = {name for name in source.wanted - texts if name not in numbers}
    if late:  # a number column that turned out to be text: its first cells are read again
        found |= _csv_pass(source, frozenset(), late, {})
    columns = {}
    for name in source.header:
        if name in numbers:
            columns[name] = _numeric(name, numbers.pop(name))
        elif name in found:
            keep = name in source.texts
            columns[name] = found.pop(name).column(name, source.form, keep=keep)
    return columns


def _csv_pass(
    source: _Source,
    hoped: frozenset[str],
    texts: set[str],
    numbers: dict[str, list[Numbers]],
) -> dict[str, _Texts]:
    """Read the file once: columns of `hoped` into `numbers` while they are, `texts` as texts."""
    numbers.update({name: [] for name in hoped})
    collected = {name: _Texts() for name in texts}
    for chunk in _chunks(source):
        cells = list(zip(*chunk, strict=True))
        for name in list(numbers):
            part = _to_numbers(cells[source.column_of(name)], source.form.decimal)
            if part is None:
                del numbers[name]
            else:
                numbers[name].append(part)
        for name, texts_of in collected.items():
            texts_of.add(cells[source.column_of(name)])
    return collected


def _chunks(source: _Source) -> Iterator[list[list[str]]]:
    found = table_rows.rows(source.path, source.form, source.name)
    next(found, None)
    width = len(source.header)
    chunk: list[list[str]] = []
    for line, cells in found:
        if len(cells) != width:
            raise ragged(source.name, line, cells, source.header)
        chunk.append(cells)
        if len(chunk) == CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _to_numbers(cells: Sequence[str], decimal: str) -> Numbers | None:
    """Return cells as numbers, NaN where missing, or None when one is no number."""
    if decimal == ".":
        try:
            part = np.array([float(cell) for cell in cells])
        except ValueError:
            pass
        else:
            if np.isfinite(part).all() and "_" not in "".join(cells):
                return part
    values = []
    for cell in cells:
        bare = cell.strip()
        value = np.nan if bare in MISSING else table_rows.number(bare, decimal)
        if value is None:
            return None
        values.append(value)
    return np.array(values)


def _numeric(name: str, parts: list[Numbers]) -> Column:
    numbers = np.concatenate(parts) if parts else np.empty(0)
    parts.clear()
    return Column(name, numbers, np.empty(0, np.int32))


def _with_arrow(source: _Source) -> dict[str, Column]:
    import pyarrow

    texts = set(source.texts & source.wanted)
    while True:
        try:
            return _arrow_pass(source, texts)
        except pyarrow.ArrowInvalid as error:
            # a text below the block that the types were guessed from
            place = re.match(r"In CSV column #(\d+):", str(error))
            name = source.header[int(place[1])] if place else ""
            if name not in source.wanted or name in texts:
                # a ragged row, a line too long, another encoding: this engine names the place
                return _with_csv(source)
            texts.add(name)


def _arrow_pass(source: _Source, texts: set[str]) -> dict[str, Column]:
    reader = _arrow_reader(source, texts)
    order = [name for name in source.header if name in source.wanted]
    if not order:
        return {}
    numbers: dict[str, list[Numbers]] = {name: [] for name in order if name not in texts}
    collected = {name: _Texts() for name in order if name in texts}
    for batch in reader:
        for name, parts in numbers.items():
            # a copy lets go of the block's own memory
            parts.append(np.array(batch.column(name).to_numpy(zero_copy_only=False)))
        for name, texts_of in collected.items():
            encoded = batch.column(name).dictionary_encode()
            places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            texts_of.add([*encoded.dictionary.to_pylist(), None], places)
    return {
        name: _numeric(name, numbers.pop(name))
        if name in numbers
        else collected.pop(name).column(name, source.form, keep=name in source.texts)
        for name in order
    }


def _arrow_reader(source: _Source, texts: set[str]) -> Any:
    """Return a reader of record batches; adds the columns whose first values are texts."""
    import pyarrow
    from pyarrow import csv

    form = source.form
    read_options = {
        "block_size": table_rows.LINE_LIMIT,
        "encoding": "utf8" if form.is_utf8 else form.encoding,
        "column_names": source.header,
        "skip_rows_after_names": 1,
    }
    # a quoted cell may hold a line break: without this option a block could end inside of it
    parse = csv.ParseOptions(delimiter=form.delimiter, newlines_in_values=True)
    convert = {
        "null_values": sorted(MISSING),
        "strings_can_be_null": True,
        "include_columns": [name for name in source.header if name in source.wanted],
        "decimal_point": form.decimal,
    }

    def opened(types: dict[str, Any]) -> Any:
        return csv.open_csv(
            str(source.path),
            read_options=csv.ReadOptions(**read_options),
            parse_options=parse,
            convert_options=csv.ConvertOptions(**convert, column_types=types),
        )

    known = {name: pyarrow.string() for name in texts}
    for column in opened(known).schema:
        kinds = (pyarrow.types.is_integer, pyarrow.types.is_floating, pyarrow.types.is_null)
        if column.name not in texts and not any(kind(column.type) for kind in kinds):
            texts.add(column.name)
    chosen = [name for name in source.header if name in source.wanted]
    return opened(
        {name: pyarrow.string() if name in texts else pyarrow.float64() for name in chosen}
    )


# ---- faults in a column -----------------------------------------------------------------------


def _check(column: Column, source: _Source, must_be_number: bool) -> None:
    if column.levels is None:
        if bool(np.isinf(column.numbers).any()):
            raise _fault(column, source, "is not finite")
        return
    if column.name in source.texts:
        return
    decimal = source.form.decimal
    is_number = np.array([table_rows.number(cell, decimal) is not None for cell in column.levels])
    present = column.codes[column.codes >= 0]
    if must_be_number or float(is_number[present].mean()) > MOSTLY:
        raise _fault(column, source, "is no number")


def _fault(column: Column, source: _Source, what: str) -> DataError:
    decimal = source.form.decimal
    place = source.column_of(column.name)

    def is_bad(cell: str) -> bool:
        return cell not in MISSING and table_rows.number(cell, decimal) is None

    found = table_rows.find(source.path, source.form, place, is_bad, source.name)
    line, cell = found or (0, "")
    cure = f"correct the cell, or take the column as text: --categories {column.name}"
    if re.fullmatch(r"[+-]?\d[\d.]*,\d+", cell) and decimal == ".":
        cure = "if the comma is the decimal point, add --decimal ,"
    return DataError(
        "E502",
        f"{source.name}, line {line}, column {place + 1} ({column.name}): {cell[:60]!r} {what}",
        expected="a number, as in the rest of the column, or an empty cell",
        cure=cure,
    )
