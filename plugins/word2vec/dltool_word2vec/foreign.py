"""Read the files that other programs write vectors to, refusing what contradicts itself."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from dltool.data import texts
from dltool.errors import CheckpointError, DataError
from dltool_word2vec import store
from dltool_word2vec.store import Array

ROWS = 4096
READ = 1 << 20
LONGEST_WORD = 4096  # bytes
MOST_DIMENSIONS = 100_000
FASTTEXT_MAGIC = struct.pack("<i", 793712314)
PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass
class Found:
    """Vectors as they came out of a file: words, their matrix (V, D) and what else was there."""

    words: list[str]
    matrix: Array
    counts: list[int] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


Tell = Callable[[int], None]


def fault(path: Path, line: int, message: str, **details: Any) -> DataError:
    """Return the error for one line of a file of vectors."""
    return DataError("E502", f"{path}, line {line}: {message}", **details)


def sniff(path: Path) -> str:
    """Return the form of a file by its first bytes.

    Raises:
        DataError: there is no such file, or it is none of vectors.
    """
    if path.is_dir():
        raise DataError(
            "E502", f"{path} is a folder", cure="a model folder needs no import: use it as RUN"
        )
    with texts.opened(path) as stream:
        head = _read(stream, path, 1 << 16)
    if head.startswith(FASTTEXT_MAGIC):
        return "fasttext"
    if head.startswith(b"PK\x03\x04"):
        return "numpy"
    if head[8:9] == b"{" and path.suffix == ".safetensors":
        return "safetensors"
    if head.startswith(PICKLE):
        return "gensim"
    first, _, rest = head.partition(b"\n")
    if _header(first) is None:
        return "glove"
    _, dim = _header(first) or (0, 0)
    line = rest.partition(b"\n")[0]
    # a number in bytes may look like a line break or a blank, never throughout
    is_text = len(line.split()) == dim + 1 and all(map(_is_number, line.split()[1:]))
    return "word2vec" if is_text or not rest else _text_or_binary(rest)


def _text_or_binary(rest: bytes) -> str:
    try:
        rest[:4096].decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        cut = error.start > 4090  # a letter at the end of what was looked at
        return "word2vec" if cut else "word2vec-binary"
    return "word2vec-binary" if b"\0" in rest[:4096] else "word2vec"


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _header(line: bytes) -> tuple[int, int] | None:
    parts = line.split()
    if len(parts) == 2 and all(part.isdigit() for part in parts):
        return int(parts[0]), int(parts[1])
    return None


def _read(stream: IO[bytes], path: Path, count: int) -> bytes:
    try:
        return stream.read(count)
    except (OSError, EOFError, ValueError) as error:
        raise DataError("E502", f"{path} is cut off or damaged ({error})") from error


class _Rows:
    """Collect rows in blocks: the count that a header promises is not trusted with memory."""

    def __init__(self, dim: int) -> None:
        self.words: list[str] = []
        self.known: set[str] = set()
        self.blocks: list[Array] = []
        self.dim, self.filled, self.repeated = dim, ROWS, 0

    def add(self, word: str, values: Any) -> None:
        if word in self.known:
            self.repeated += 1
            return
        self.known.add(word)
        self.words.append(word)
        if self.filled == ROWS:
            self.blocks.append(np.empty((ROWS, self.dim), np.float32))
            self.filled = 0
        self.blocks[-1][self.filled] = values
        self.filled += 1

    def found(self, path: Path) -> Found:
        if not self.words:
            raise DataError("E503", f"{path} holds no vectors", cure="check the file")
        self.blocks[-1] = self.blocks[-1][: self.filled]
        matrix = np.concatenate(self.blocks)
        if not np.isfinite(matrix).all():
            row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
            raise DataError(
                "E502",
                f"{path}: the vector of {self.words[row]!r} holds NaN or infinity",
                cure="mend or remove its line",
            )
        return Found(self.words, matrix, about={"repeated": self.repeated})


def read_text(path: Path, *, header: bool, encoding: str, top: int, tell: Tell) -> Found:
    """Read word2vec text, or GloVe text without its header.

    Raises:
        DataError: naming the line: a ragged row, no number, a header that promises something else.
    """
    lines = enumerate(texts.lines(path, encoding=encoding), 1)
    promised, dim = -1, 0
    if header:
        _, first = next(lines, (1, ""))
        sizes = _header(first.encode())
        if sizes is None:
            raise fault(
                path,
                1,
                "no header of two whole numbers",
                received=first[:60],
                expected="the number of words and of dimensions",
                cure="for a file without header use --format glove",
            )
        promised, dim = sizes
        _check_dim(path, dim)
    rows: _Rows | None = None
    for number, line in lines:
        if top and rows is not None and len(rows.words) >= top:
            return rows.found(path)
        if not line.strip():
            continue
        parts = line.rstrip().split(" ")
        if rows is None:
            dim = dim or len(parts) - 1
            _check_dim(path, dim)
            rows = _Rows(dim)
        word, values = _row(path, number, parts, dim)
        rows.add(word, values)
        tell(1)
    if rows is None:
        raise DataError("E503", f"{path} holds no vectors", cure="check the file")
    total = len(rows.words) + rows.repeated
    if header and total != promised:
        raise fault(
            path,
            1,
            f"the header promises {promised:,} words, the file holds {total:,}",
            cure="the file is cut off or was edited: copy it again, or mend the header",
        )
    return rows.found(path)


def _check_dim(path: Path, dim: int) -> None:
    if not 1 <= dim <= MOST_DIMENSIONS:
        raise fault(
            path, 1, f"vectors of {dim:,} numbers", expected="1 or more", cure="check the file"
        )


def _row(path: Path, number: int, parts: list[str], dim: int) -> tuple[str, Array]:
    extra = parts[1 : len(parts) - dim]
    # GloVe has words with blanks (`. . .`); one number too many is no such word
    if len(parts) < dim + 1 or any(_is_number(each.encode()) for each in extra):
        raise fault(
            path,
            number,
            f"a row of {len(parts) - 1} numbers among rows of {dim}",
            received=" ".join(parts)[:60],
            cure="the file is damaged there, or its header is false",
        )
    try:
        return " ".join(parts[: len(parts) - dim]), np.array(parts[-dim:], np.float32)
    except ValueError as error:
        raise fault(
            path,
            number,
            "a cell is no number",
            received=" ".join(parts)[:60],
            cure="mend the line, or give the file its right --format",
        ) from error


def read_binary(path: Path, *, encoding: str, top: int, tell: Tell) -> Found:
    """Read word2vec's binary form: a header, then each word, a blank, and float32 numbers.

    Raises:
        DataError: no header, a word without end, a file that is shorter or longer than promised.
    """
    with texts.opened(path) as stream:
        source = Bytes(stream, path)
        line = source.until(b"\n", 64)
        sizes = _header(line)
        if sizes is None:
            raise DataError(
                "E502",
                f"{path} does not begin with two whole numbers",
                received=line[:40].decode("utf-8", errors="replace"),
                expected="the number of words and of dimensions",
                cure="give the file its right --format",
            )
        count, dim = sizes
        _check_dim(path, dim)
        rows = _Rows(dim)
        for number in range(count):
            if top and len(rows.words) >= top:
                return rows.found(path)
            raw = source.until(b" ", LONGEST_WORD).lstrip(b"\n")
            data = source.take(4 * dim)
            if len(data) < 4 * dim:
                raise DataError(
                    "E502",
                    f"{path} ends in word {number + 1:,} of the {count:,} that its header promises",
                    cure="copy the file again, or mend the header",
                )
            rows.add(decoded(path, number, raw, encoding), np.frombuffer(data, "<f4"))
            tell(1)
        if source.take(2).strip():
            raise DataError(
                "E502",
                f"{path} goes on after the {count:,} words of {dim} numbers that it promises",
                cure="the header is false, or the file holds no float32 numbers",
            )
    return rows.found(path)


def decoded(path: Path, number: int, raw: bytes, encoding: str) -> str:
    """Return a word's letters.

    Raises:
        DataError: they are of another encoding.
    """
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            "E502",
            f"{path}, word {number + 1:,}: byte 0x{raw[error.start]:02x} is not {encoding.upper()}",
            cure="name the words' encoding: --encoding latin-1",
        ) from error


class Bytes:
    """Read a stream up to a mark, or so many bytes."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.stream, self.path = stream, path
        self.data, self.place = b"", 0

    def _fill(self) -> bool:
        more = _read(self.stream, self.path, READ)
        self.data, self.place = self.data[self.place :] + more, 0
        return bool(more)

    def until(self, mark: bytes, limit: int) -> bytes:
        """Return what stands before the mark, which is passed over."""
        while (end := self.data.find(mark, self.place)) < 0:
            if len(self.data) - self.place > limit or not self._fill():
                break
        if end < 0 or end - self.place > limit:
            raise DataError(
                "E502",
                f"{self.path}: no end of a word within {limit:,} bytes",
                cure="the file is cut off, its header is false, or it has another --format",
            )
        found, self.place = self.data[self.place : end], end + len(mark)
        return found

    def take(self, count: int) -> bytes:
        """Return so many bytes, or what is left."""
        while len(self.data) - self.place < count and self._fill():
            pass
        found = self.data[self.place : self.place + count]
        self.place += len(found)
        return found


def read_npz(path: Path) -> Found:
    """Read `words` and `vectors` of a .npz file; nothing in it is unpickled.

    Raises:
        DataError: it is damaged, or lacks one of them.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            words, matrix = stored["words"], np.asarray(stored["vectors"], np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            "E502",
            f"{path} cannot be read: {error}",
            expected="arrays `words` (text) and `vectors` (numbers)",
            cure="np.savez(path, words=np.array(words), vectors=matrix)",
        ) from error
    return _matched(path, [str(word) for word in words.reshape(-1)], matrix)


def read_safetensors(path: Path) -> Found:
    """Read the array `vectors` of a .safetensors file, its words in the .json file beside it.

    Raises:
        DataError: one of the two is damaged or missing.
    """
    beside = path.with_suffix(".json")
    try:
        words = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            "E502",
            f"the words of {path} cannot be read: {error}",
            expected=f"a JSON list, or an object with `words`, in {beside.name}",
            cure="put the file beside it",
        ) from error
    try:
        arrays = store.open_arrays(path)
        matrix = np.array(arrays["vectors"], np.float32)
    except (CheckpointError, KeyError) as error:
        raise DataError("E502", f"{path} cannot be read: {error}") from error
    listed = words.get("words", []) if isinstance(words, dict) else words
    return _matched(path, [str(word) for word in listed], matrix)


def _matched(path: Path, words: list[str], matrix: Array) -> Found:
    if matrix.ndim != 2 or len(words) != len(matrix):
        raise DataError(
            "E502",
            f"{path}: {len(words):,} words and an array of shape {matrix.shape}",
            expected="a row for each word",
            cure="write both from the same vectors",
        )
    rows = _Rows(matrix.shape[1])
    for word, row in zip(words, matrix, strict=True):
        rows.add(word, row)
    return rows.found(path)
