"""The rows of a CSV file one by one, with bounded memory, and the place of what is wrong."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dltool.errors import ConfigError, DataError
from dltool.files import describe_damage

LINE_LIMIT = 1 << 20  # bytes; a longer line is no table
DELIMITERS = (",", ";", "\t", "|")
SNIFFED_LINES = 20


@dataclass(frozen=True)
class Format:
    """How a CSV file is written.

    Attributes:
        delimiter: one character; empty: found from the first lines.
        encoding: a name that Python knows; a UTF-8 byte-order mark is skipped.
        decimal: the decimal point.
    """

    delimiter: str = ""
    encoding: str = "utf-8"
    decimal: str = "."

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.encoding)
        except LookupError as error:
            raise ConfigError(
                "E206", f"no text encoding is named {self.encoding!r}", cure="use utf-8 or latin-1"
            ) from error
        if len(self.delimiter) > 1 or self.decimal not in (".", ",") or self.clash:
            raise ConfigError(
                "E202",
                "this CSV format does not work",
                received=f"delimiter {self.delimiter!r}, decimal {self.decimal!r}",
                expected="two different characters; the decimal is . or ,",
            )

    @property
    def clash(self) -> bool:
        """Whether the delimiter cannot be told from a number or a quote."""
        return self.delimiter != "" and self.delimiter in (self.decimal, '"', "\n", "\r")

    @property
    def is_utf8(self) -> bool:
        """Whether the file is read as UTF-8."""
        return codecs.lookup(self.encoding).name in ("utf-8", "utf-8-sig", "ascii")


def lines(path: Path, form: Format, name: str = "") -> Iterator[str]:
    """Yield the lines of a file with their ends.

    Raises:
        DataError: E501, no such file; E502, a line is too long or not of the encoding.
    """
    name = name or str(path)
    if not path.is_file():
        raise DataError("E501", f"there is no file {name!r}", cure="check the path")
    return _utf8_lines(path, name) if form.is_utf8 else _other_lines(path, form, name)


def _utf8_lines(path: Path, name: str) -> Iterator[str]:
    with path.open("rb") as stream:
        number = 0
        while raw := stream.readline(LINE_LIMIT + 1):
            number += 1
            if number == 1:
                _refuse_other_files(raw, path, name)
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if len(raw) > LINE_LIMIT:
                raise _too_long(name, number)
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                before = raw[: error.start].decode("utf-8")
                raise DataError(
                    "E502",
                    f"{name}, line {number}, character {len(before) + 1}: "
                    f"byte 0x{raw[error.start]:02x} is not UTF-8",
                    cure="save the file as UTF-8, or name its encoding: --encoding latin-1",
                ) from error


def _refuse_other_files(head: bytes, path: Path, name: str) -> None:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(
            "E502",
            f"{name}, line 1, character 1: the file is UTF-16, not UTF-8",
            cure="add --encoding utf-16, or save it as UTF-8",
        )
    known = {b"\x1f\x8b": "a gzip archive", b"PK\x03\x04": "a zip archive or spreadsheet"}
    for start, what in known.items():
        if head.startswith(start):
            raise DataError("E502", f"{name} is {what}, not CSV", cure="unpack it, or export CSV")
    damage = describe_damage(path)
    if "HTML" in damage or "git-LFS" in damage:
        raise DataError("E502", f"{name} {damage}")


def _other_lines(path: Path, form: Format, name: str) -> Iterator[str]:
    number = 0
    with path.open(encoding=form.encoding, newline="") as stream:
        try:
            while line := stream.readline(LINE_LIMIT + 1):
                number += 1
                if len(line) > LINE_LIMIT:
                    raise _too_long(name, number)
                yield line.removeprefix("\ufeff") if number == 1 else line
        except UnicodeError as error:
            raise DataError(
                "E502",
                f"{name}, near line {number + 1}: this is not {form.encoding} ({error})",
                cure="name the file's own encoding with --encoding",
            ) from error


def _too_long(name: str, number: int) -> DataError:
    return DataError(
        "E502",
        f"{name}, line {number}, character {LINE_LIMIT + 1}: the line goes on beyond "
        f"{LINE_LIMIT >> 20} MiB",
        expected="a table with one row a line",
        cure="check that the file is CSV and that its quotes are closed",
    )


def settled(path: Path, form: Format, name: str = "") -> Format:
    """Return the format with a delimiter, found from the first lines where none is given.

    The candidate wins that gives the most columns, the same number in most of the lines.
    """
    if form.delimiter:
        return form
    first = [line for line, _ in zip(lines(path, form, name), range(SNIFFED_LINES), strict=False)]
    candidates = [mark for mark in DELIMITERS if mark != form.decimal]

    def merit(mark: str) -> tuple[int, int]:
        widths = [len(row) for row in csv.reader(first, delimiter=mark) if row]
        same = sum(width == widths[0] for width in widths)
        return (same if widths[0] > 1 else 0, widths[0])

    if not any(line.strip() for line in first):
        return replace(form, delimiter=candidates[0])
    try:
        return replace(form, delimiter=max(candidates, key=merit))
    except csv.Error:
        return replace(form, delimiter=candidates[0])


def rows(path: Path, form: Format, name: str = "") -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of every row that is not empty; the first is the header.

    `form` is settled. Lines count from 1; a row that spans several has the number of its last.

    Raises:
        DataError: E501, E502: an unreadable line, a quote that never closes.
    """
    name = name or str(path)
    reader = csv.reader(lines(path, form, name), delimiter=form.delimiter)
    before = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                "E502",
                f"{name}, line {before + 1}: a quote that is not closed, or line ends of another "
                f"system ({error})",
                cure="close the quotes, or save the file with usual line ends",
            ) from error
        if cells is None:
            return
        before = reader.line_num
        if cells:
            yield before, cells


def header(path: Path, form: Format, name: str = "") -> list[str]:
    """Return the column names, checked: present, no numbers, none empty or twice.

    Raises:
        DataError: E502, naming line and column.
    """
    name = name or str(path)
    line, cells = next(rows(path, form, name), (1, []))
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise DataError("E502", f"{name} is empty", cure="give a CSV file with a header line")
    if all(number(cell, form.decimal) is not None for cell in names):
        raise DataError(
            "E502",
            f"{name}, line {line}: the first line holds numbers, not the names of the columns",
            cure="put a header line on top, such as "
            + form.delimiter.join(f"x{i + 1}" for i in range(min(len(names), 3))),
        )
    for place, text in enumerate(names, 1):
        if not text or text in names[: place - 1]:
            what = f"the name {text!r} occurs twice" if text else "the column has no name"
            raise DataError(
                "E502",
                f"{name}, line {line}, column {place}: {what}",
                cure="give every column a name of its own",
            )
    return names


def number(cell: str, decimal: str = ".") -> float | None:
    """Return a cell as a finite number, or None when it is none."""
    # "1_000" is Python's own spelling; beside a decimal comma a point would be for thousands
    if "_" in cell or (decimal == "," and "." in cell):
        return None
    try:
        value = float(cell.replace(decimal, "."))
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def check_widths(path: Path, form: Format, name: str = "") -> int:
    """Read the whole file and return its number of rows without the header.

    Raises:
        DataError: E502, the first row with too few or too many cells.
    """
    name = name or str(path)
    names = header(path, form, name)
    count = -1
    for line, cells in rows(path, form, name):
        count += 1
        if len(cells) != len(names):
            raise ragged(name, line, cells, names)
    return count


def ragged(name: str, line: int, cells: list[str], names: list[str]) -> DataError:
    """Return the error for a row that is shorter or longer than the header."""
    place = min(len(cells), len(names)) + 1
    if len(cells) < len(names):
        what = f"the row ends before column {names[place - 1]!r}"
    else:
        what = f"there is a cell {cells[place - 1][:40]!r} beyond the last column {names[-1]!r}"
    return DataError(
        "E502",
        f"{name}, line {line}, column {place}: {what}",
        received=f"{len(cells)} cells",
        expected=f"{len(names)}, as in the header",
        cure="mend the line; a cell that holds the delimiter needs quotes around it",
    )


def find(
    path: Path, form: Format, column: int, is_bad: Callable[[str], bool], name: str = ""
) -> tuple[int, str] | None:
    """Return (line, cell) of the first cell below the header in a column that is bad."""
    found = rows(path, form, name)
    next(found, None)
    for line, cells in found:
        if column < len(cells) and is_bad(cells[column].strip()):
            return line, cells[column].strip()
    return None
