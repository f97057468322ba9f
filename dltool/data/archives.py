"""Unpack zip and tar archives that a stranger made, or read them in place."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from dltool.data.download import name_content
from dltool.errors import DataError, DltoolError
from dltool.files import explained, folder_written_atomically

MAX_FILES = 1_000_000
MAX_BYTES = 50 << 30
MAX_RATIO = 1000
# small members may shrink by any factor without harm, and their sum is limited anyway
RATIO_FLOOR_BYTES = 1 << 20
# a tar header may claim gigabytes for a name; nothing that tarfile reads at once is this large
TAR_READ_BYTES = 1 << 24
CHUNK_BYTES = 1 << 20

DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    LookupError,
    ValueError,
    OverflowError,
    RecursionError,
    NotImplementedError,
)


def extract(
    archive: Path,
    folder: Path,
    *,
    max_files: int = MAX_FILES,
    max_bytes: int = MAX_BYTES,
    max_ratio: float = MAX_RATIO,
) -> Path:
    """Unpack a zip or tar archive into a new `folder`; only regular files and folders come out.

    Everything is unpacked beside `folder` and renamed at the end, so a failure leaves nothing.
    Modes, owners and times of the archive are not kept.

    Args:
        archive: .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz, told by its first bytes.
        folder: must not exist or be empty.
        max_files: members, folders included.
        max_bytes: size of all members together once unpacked.
        max_ratio: unpacked bytes per packed byte; in a zip of each member, in a tar of the whole.

    Raises:
        DataError: E501 the archive is missing, E502 it is damaged or no archive, E505 it is unsafe.
        DltoolError: E101, `folder` holds something or cannot be written.
    """
    kind = _kind(archive)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DltoolError("E101", f"{folder} exists already", cure="name a new folder")
    budget = _Budget(archive, max_files, max_bytes, max_ratio)
    unpack = _unpack_zip if kind == "zip" else _unpack_tar
    with folder_written_atomically(folder) as temporary, _damage_named(archive):
        unpack(archive, temporary, budget)
        if hasattr(os, "sync"):
            os.sync()  # one for all files: an fsync of each would take minutes
    return folder


def safe_members(
    archive: zipfile.ZipFile,
    *,
    max_files: int = MAX_FILES,
    max_bytes: int = MAX_BYTES,
    max_ratio: float = MAX_RATIO,
) -> list[zipfile.ZipInfo]:
    """Return the members of an open zip, folders included, when all of them are harmless.

    Raises:
        DataError: E505 naming the first member that is not, E502 when one is encrypted.
    """
    path = Path(archive.filename or "archive.zip")
    budget = _Budget(path, max_files, max_bytes, max_ratio)
    members = archive.infolist()
    for member in members:
        budget.take(member.filename, member.file_size)
        budget.check_ratio(member.filename, member.file_size, member.compress_size)
        _check_zip_member(member, path)
    # members that share their packed bytes unpack to more than any ratio shows
    if members and sum(member.compress_size for member in members) > archive.start_dir:
        raise _unsafe(path, members[-1].filename, "overlaps another member")
    return members


def member_parts(name: str) -> tuple[str, ...]:
    """Split a member's name at slashes of both kinds; "." and empty parts fall away."""
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


@dataclass
class _Budget:
    """Count what has been unpacked and refuse what goes too far."""

    archive: Path
    max_files: int
    max_bytes: int
    max_ratio: float
    files: int = 0
    bytes: int = 0
    seen: set[tuple[str, ...]] = field(default_factory=set)

    def take(self, name: str, size: int) -> tuple[str, ...]:
        """Check one member's name and size; return the parts of its path."""
        self.files += 1
        if self.files > self.max_files:
            raise _unsafe(self.archive, name, f"is one of more than {self.max_files:,} members")
        parts = self._check_name(name)
        self.bytes += size
        if size < 0 or self.bytes > self.max_bytes:
            raise _unsafe(self.archive, name, f"takes the size beyond {self.max_bytes:,} bytes")
        return parts

    def check_ratio(self, name: str, size: int, packed: int) -> None:
        if size > RATIO_FLOOR_BYTES and size > self.max_ratio * packed:
            raise _unsafe(self.archive, name, f"grows more than {self.max_ratio:g}-fold: a bomb")

    def _check_name(self, name: str) -> tuple[str, ...]:
        parts = member_parts(name)
        if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
            raise _unsafe(self.archive, name, "is an absolute path")
        if ".." in parts:
            raise _unsafe(self.archive, name, "leaves the folder by '..'")
        if "\0" in name or (not parts and name not in (".", "./")):
            raise _unsafe(self.archive, name, "has no usable name")
        if parts in self.seen:
            raise _unsafe(self.archive, name, "occurs twice")
        self.seen.add(parts)
        return parts


def _unsafe(archive: Path, name: str, reason: str) -> DataError:
    # repr, because a member's name may hold control characters or no valid text
    return DataError(
        "E505",
        f"{archive}: the member {name!r} {reason}",
        expected="regular files and folders within the limits",
        cure="get the archive from a source you trust",
    )


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(archive, error) from error  # bz2 tells damage in this way


def _damaged(archive: Path, error: Exception) -> DataError:
    reason = str(error) or type(error).__name__
    return DataError(
        "E502", f"{archive} is damaged or cut off: {reason}", cure="get the archive again"
    )


def _kind(archive: Path) -> str:
    if not archive.is_file():
        raise DataError("E501", f"there is no file {archive}", cure="check the path")
    with archive.open("rb") as file:
        head = file.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if _tar_opener(head) is not None or head[257:262] == b"ustar":
        return "tar"
    content = name_content(head)
    raise DataError(
        "E502",
        f"{archive} is no archive" + (f": it is {content}" if content else ""),
        expected=".zip, .tar, .tar.gz, .tar.bz2 or .tar.xz",
    )


def _tar_opener(head: bytes) -> Callable[[IO[bytes]], IO[bytes]] | None:
    for signature, opener in (
        (b"\x1f\x8b", gzip.open),
        (b"BZh", bz2.open),
        (b"\xfd7zXZ", lzma.open),
    ):
        if head.startswith(signature):
            return cast("Callable[[IO[bytes]], IO[bytes]]", opener)
    return None


def _check_zip_member(member: zipfile.ZipInfo, archive: Path) -> None:
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe(archive, member.filename, "is a link or a device")
    if member.flag_bits & 1:
        raise DataError("E502", f"{archive}: the member {member.filename!r} is encrypted")


def _unpack_zip(archive: Path, folder: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = safe_members(
            opened,
            max_files=budget.max_files,
            max_bytes=budget.max_bytes,
            max_ratio=budget.max_ratio,
        )
        for member in members:
            target = folder.joinpath(*member_parts(member.filename))
            if member.is_dir():
                _make_folder(target, archive, member.filename)
                continue
            with opened.open(member) as source:
                _write(source, target, archive, member.filename)


def _unpack_tar(archive: Path, folder: Path, budget: _Budget) -> None:
    size = archive.stat().st_size
    with archive.open("rb") as packed:
        opener = _tar_opener(packed.read(6))
        packed.seek(0)
        raw = _Bounded(archive, packed if opener is None else opener(packed))
        with tarfile.open(fileobj=cast("IO[bytes]", raw), mode="r:") as opened:
            for member in opened:
                parts = budget.take(member.name, member.size)
                budget.check_ratio(member.name, budget.bytes, size)
                _unpack_tar_member(opened, member, folder.joinpath(*parts), archive)
            raw.check_end(opened.offset, budget.max_bytes)


def _unpack_tar_member(
    opened: tarfile.TarFile, member: tarfile.TarInfo, target: Path, archive: Path
) -> None:
    if member.isdir():
        _make_folder(target, archive, member.name)
        return
    source = opened.extractfile(member) if member.isreg() and not member.issparse() else None
    if source is None:
        raise _unsafe(archive, member.name, "is a link, a device or a sparse file")
    with source:
        _write(source, target, archive, member.name)


def _make_folder(target: Path, archive: Path, name: str) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _unsafe(archive, name, "is a file and a folder at once") from error


def _write(source: IO[bytes], target: Path, archive: Path, name: str) -> None:
    _make_folder(target.parent, archive, name)
    try:
        with explained(target), target.open("xb") as file:
            for chunk in _chunks(source, archive):
                file.write(chunk)
    except DltoolError as error:
        if isinstance(error.__cause__, FileExistsError):
            # two names that differ in case only, on a file system that does not tell them apart
            raise _unsafe(archive, name, "occurs twice") from error
        raise


def _chunks(source: IO[bytes], archive: Path) -> Iterator[bytes]:
    """Yield what the archive gives; its damage must not be taken for the disk's."""
    with _damage_named(archive):
        while chunk := source.read(CHUNK_BYTES):
            yield chunk


class _Bounded:
    """Let tarfile read in small pieces only, whatever its headers claim."""

    def __init__(self, archive: Path, raw: IO[bytes]) -> None:
        self.archive, self.raw = archive, raw
        self.seek, self.tell = raw.seek, raw.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= TAR_READ_BYTES:
            raise _unsafe(self.archive, "header", f"claims {size:,} bytes")
        return self.raw.read(size)

    def check_end(self, offset: int, limit: int) -> None:
        """Demand the end mark, and read on to the end, where gzip and xz keep their checksums."""
        self.raw.seek(offset)
        if self.raw.read(512) != bytes(512):
            raise tarfile.ReadError("the mark at its end is missing")
        while chunk := self.raw.read(CHUNK_BYTES):
            limit -= len(chunk)
            if limit < 0:
                raise _unsafe(self.archive, "end", "is followed by too many bytes: a bomb")
