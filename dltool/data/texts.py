"""The user's own texts as a stream: lines, and cells of CSV, TSV and JSON Lines files.

Files may be plain or compressed (gzip, xz, bzip2, told by their first bytes); `-` is standard
input. No more than a line is held in memory.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import itertools
import json
import lzma
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from dltool.errors import ConfigError, DataError, closest
from dltool.files import describe_damage

LINE_LIMIT = 16 << 20  # bytes; a longer line is no line of text
PACKED = {".gz": b"\x1f\x8b", ".xz": b"\xfd7zXZ\x00", ".bz2": b"BZh"}
TABLES = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (".txt", ".text", ".md", *TABLES, *JSON_LINES)
DELIMITERS = (",", "\t", ";", "|")
STDIN = "-"


@dataclass(frozen=True)
class Row:
    """One row of a table: the line it ends on, and its cells in the order that was asked for."""

    line: int
    cells: tuple[str, ...]


def kind(source: str | Path) -> str:
    """Return the suffix that says what a file holds, in lower case, without that of a packer."""
    path = Path(source)
    if path.suffix.lower() in PACKED:
        path = path.with_suffix("")
    return path.suffix.lower()


def is_table(source: str | Path) -> bool:
    """Whether a file's name promises columns: CSV, TSV or JSON Lines."""
    return kind(source) in (*TABLES, *JSON_LINES)


def files(sources: Sequence[str]) -> list[str]:
    """Return the files meant by names of files, folders and `-`, folders in sorted order.

    Raises:
        DataError: E501, a name that is neither; E503, a folder without text files.
    """
    found: list[str] = []
    for source in sources:
        path = Path(source)
        if source != STDIN and path.is_dir():
            inside = sorted(str(each) for each in path.rglob("*") if _is_text_file(each, path))
            if not inside:
                raise DataError(
                    "E503",
                    f"the folder {source!r} holds no text files",
                    expected=f"files named {', '.join(SUFFIXES)}, plain or {', '.join(PACKED)}",
                )
            found += inside
        elif source == STDIN or path.exists():
            found.append(source)
        else:
            raise _missing(source)
    return found


def _is_text_file(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return kind(path) in SUFFIXES and not hidden and path.is_file()


def _missing(source: str) -> DataError:
    return DataError("E501", f"there is no file {source!r}", cure="check the path")


@contextmanager
def opened(source: str | Path) -> Iterator[IO[bytes]]:
    """Open a file, or standard input for `-`, and unpack it while it is read.

    Raises:
        DataError: E501, no such file; E502, a pointer or a page in the file's place.
    """
    if str(source) == STDIN:
        stdin = cast(io.BufferedReader, sys.stdin.buffer)
        yield _unpacked(stdin, stdin.peek(8))  # not ours to close
        return
    path = Path(source)
    if not path.is_file():
        raise _missing(str(source))
    with path.open("rb") as stream:
        damage = describe_damage(path)
        if "HTML" in damage or "git-LFS" in damage:
            raise DataError("E502", f"{source} {damage}")
        yield _unpacked(stream, stream.peek(8))


def _unpacked(stream: io.BufferedReader, head: bytes) -> IO[bytes]:
    if head.startswith(PACKED[".gz"]):
        return cast(IO[bytes], gzip.open(stream))
    if head.startswith(PACKED[".xz"]):
        return lzma.open(stream)
    return bz2.open(stream) if head.startswith(PACKED[".bz2"]) else stream


def lines(source: str | Path, *, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the lines of a text without their ends, the empty ones too.

    Raises:
        DataError: E501, no such file; E502, with the line: a binary file, another encoding, an
            archive that is cut, a line beyond the limit.
        ConfigError: E206, an encoding that Python does not know.
    """
    name = "standard input" if str(source) == STDIN else str(source)
    with opened(source) as stream:
        for number, raw in enumerate(_raw_lines(stream, name), 1):
            if number == 1:
                _refuse_other_encodings(raw, name, encoding)
            yield _text(raw, name, number, encoding)


def _raw_lines(stream: IO[bytes], name: str) -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        try:
            raw = stream.readline(LINE_LIMIT + 1)
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise DataError(
                "E502",
                f"{name}, line {number}: the archive is cut off or damaged ({error})",
                cure="copy or download the file again",
            ) from error
        if not raw:
            return
        if len(raw) > LINE_LIMIT:
            raise DataError(
                "E502",
                f"{name}, line {number}: the line goes on beyond {LINE_LIMIT >> 20} MiB",
                expected="text with one sentence, document or row a line",
                cure="check that the file is text; break it into lines",
            )
        yield raw


def _refuse_other_encodings(raw: bytes, name: str, encoding: str) -> None:
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        known = codecs.lookup(encoding).name
    except LookupError as error:
        raise ConfigError(
            "E206", f"no text encoding is named {encoding!r}", cure="use utf-8 or latin-1"
        ) from error
    wide = known.startswith(("utf-16", "utf-32"))
    if wide or raw.startswith(marks):
        raise DataError(
            "E502",
            f"{name}, line 1: UTF-16 and UTF-32 are not read line by line",
            received=f"encoding {encoding}, first bytes {raw[:4].hex(' ')}",
            expected="UTF-8, or a code in which a line ends with the byte 0a",
            cure=f"iconv -f UTF-16 -t UTF-8 {name} > utf8.txt",
        )


def _text(raw: bytes, name: str, number: int, encoding: str) -> str:
    if b"\0" in raw:
        raise DataError(
            "E502",
            f"{name}, line {number}: byte 0x00 in the text; this is a binary file",
            expected="plain text, or text packed with gzip, xz or bzip2",
        )
    if number == 1:
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return raw.decode(encoding).rstrip("\r\n")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode(encoding, errors="replace")
        raise DataError(
            "E502",
            f"{name}, line {number}, character {len(before) + 1}: byte 0x{raw[error.start]:02x} "
            f"is not {encoding.upper()}",
            cure="save the file as UTF-8, or name its encoding: --encoding latin-1",
        ) from error


def columns(source: str | Path, *, encoding: str = "utf-8") -> list[str]:
    """Return the cells of a table's first row, or the keys of the first JSON object.

    Raises:
        DataError: as `lines`; E503, the file is empty.
    """
    for _, cells in _table(source, encoding):
        return list(cells)
    raise DataError("E503", f"{source} is empty", cure="give a file with at least one row")


def rows(source: str | Path, wanted: Sequence[str], *, encoding: str = "utf-8") -> Iterator[Row]:
    """Yield the wanted columns of a CSV, TSV or JSON Lines file, row by row.

    Columns that are all named by numbers (`1`, `2`) are counted from 1 in a file without a header;
    else the first row holds the names. Between tabs a quote is a character like any other; between
    commas it encloses a cell. Empty rows are passed over.

    Raises:
        DataError: as `lines`; E506, a column that is not there, with the names that are; E502, a
            row that is too short, no JSON object, a quote that never closes.
    """
    if kind(source) in JSON_LINES:
        return _json_rows(source, wanted, encoding)
    return _cell_rows(source, wanted, encoding)


def _cell_rows(source: str | Path, wanted: Sequence[str], encoding: str) -> Iterator[Row]:
    table = _table(source, encoding)
    if all(name.isdecimal() and int(name) > 0 for name in wanted):
        places = [int(name) - 1 for name in wanted]
    else:
        _, names = next(table, (1, []))
        places = [_place(source, name, names) for name in wanted]
    for line, cells in table:
        if len(cells) <= max(places):
            raise DataError(
                "E502",
                f"{source}, line {line}: the row has {len(cells)} columns, "
                f"column {max(places) + 1} was asked for",
                cure="mend the line; between commas a cell that holds a comma needs quotes",
            )
        yield Row(line, tuple(cells[place] for place in places))


def _place(source: str | Path, name: str, names: Sequence[str]) -> int:
    stripped = [each.strip() for each in names]
    if stripped.count(name) == 1:
        return stripped.index(name)
    problem = "occurs twice" if name in stripped else "is not there"
    near = closest(name, stripped)
    raise DataError(
        "E506",
        f"{source}: the column {name!r} {problem}",
        expected=f"one of {', '.join(names)}" if any(stripped) else "a header line with names",
        cure=f"did you mean {near!r}?" if near else "name columns by number if there is no header",
    )


def _table(source: str | Path, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of every row that is not empty; of JSON Lines the keys."""
    if kind(source) in JSON_LINES:
        yield from ((line, list(item)) for line, item in _objects(source, encoding))
        return
    found = lines(source, encoding=encoding)
    first = list(itertools.islice(found, 20))
    mark = TABLES.get(kind(source)) or _delimiter(first)
    if mark == "," and first:
        mark = max((",", ";"), key=first[0].count)
    csv.field_size_limit(LINE_LIMIT)
    text: Iterable[str] = (line + "\n" for line in itertools.chain(first, found))
    if mark == "\t":
        reader = csv.reader(text, delimiter=mark, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(text, delimiter=mark)
    while True:
        begun = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                "E502",
                f"{source}, line {begun}: a quote that is not closed ({error})",
                cure="close the quotes; a quote inside a cell is written twice",
            ) from error
        if cells is None:
            return
        if any(cells):
            yield reader.line_num, cells


def _delimiter(first: Sequence[str]) -> str:
    return max(DELIMITERS, key=lambda mark: min((line.count(mark) for line in first), default=0))


def _json_rows(source: str | Path, wanted: Sequence[str], encoding: str) -> Iterator[Row]:
    for line, item in _objects(source, encoding):
        for name in wanted:
            if name not in item:
                near = closest(name, list(item))
                raise DataError(
                    "E506",
                    f"{source}, line {line}: the key {name!r} is not there",
                    expected=f"one of {', '.join(map(str, item))}",
                    cure=f"did you mean {near!r}?" if near else "name a key that every line has",
                )
        yield Row(line, tuple(_cell(item[name]) for name in wanted))


def _objects(source: str | Path, encoding: str) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(lines(source, encoding=encoding), 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                "E502", f"{source}, line {number}: this is not JSON ({error})"
            ) from error
        if not isinstance(item, dict):
            raise DataError(
                "E502",
                f"{source}, line {number}: a {type(item).__name__} in place of an object",
                expected='one object a line, such as {"text": "…", "label": "…"}',
            )
        yield number, item


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
