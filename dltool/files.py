"""Atomic writes: a reader sees the old content or the new, never a part of either."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dltool.errors import DltoolError

TEMPORARY = ".tmp-"
# a folder that stood in the way of a new one; it comes back when the new one never arrived
ASIDE = ".old-"
PIECE_BYTES = 4 << 20
READ_BYTES = 1 << 20
PIECES_IN_FLIGHT = 4
JSON_LIMIT = 256 << 20

Bytes = bytes | bytearray | memoryview


def temporary_name(target: Path, mark: str = TEMPORARY) -> Path:
    """Return a sibling of `target` that no other process uses and a later start can sweep."""
    return target.with_name(f".{target.name}{mark}{os.getpid()}-{secrets.token_hex(4)}")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk where the system can (not on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network file systems refuse fsync on folders; the rename itself stays atomic
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, and flush the entry of each to the disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_folder(path.parent)


def open_new(path: Path) -> io.RawIOBase:
    """Open a file for writing without a buffer of Python's own."""
    return path.open("wb", buffering=0)


def write_synced(path: Path, data: Bytes) -> None:
    """Write bytes to `path` and flush them to the disk."""
    with open_new(path) as stream:
        _write_all(stream, data)
        os.fsync(stream.fileno())


def write_hashed(path: Path, pieces: Iterable[Bytes]) -> dict[str, Any]:
    """Write pieces one after the other, read each back, hash them, and flush them to the disk.

    A second thread computes the hash meanwhile, so that a verified file takes little longer than
    the slower of the two. Only a few pieces are in memory at a time.

    Returns:
        The file's size as `bytes` and its SHA-256 as `sha256`: an entry of a manifest.

    Raises:
        OSError: the file cannot be written, or other bytes are read back than were written.
    """
    # light commands use this module too and start without a pool of threads
    from concurrent.futures import Future, ThreadPoolExecutor

    digest, buffer = hashlib.sha256(), bytearray(READ_BYTES)
    size = 0
    pending: deque[Future[None]] = deque()
    with (
        ThreadPoolExecutor(1) as hasher,
        open_new(path) as stream,
        path.open("rb", buffering=0) as again,
    ):
        for piece in _even(pieces):
            pending.append(hasher.submit(digest.update, piece))
            _write_all(stream, piece)
            _compare(again, piece, buffer)
            size += len(piece)
            if len(pending) > PIECES_IN_FLIGHT:
                pending.popleft().result()
        os.fsync(stream.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _compare(stream: io.RawIOBase, piece: Bytes, buffer: bytearray) -> None:
    """Read as many bytes as `piece` has and demand that they are the same."""
    view, window = memoryview(piece), memoryview(buffer)
    while view:
        count = stream.readinto(window[: len(view)]) or 0
        # startswith takes any buffer and compares it as a block, unlike ==
        if not count or not buffer.startswith(view[:count]):
            raise OSError(errno.EIO, "the disk gives back other bytes than were written")
        view = view[count:]


def _even(pieces: Iterable[Bytes]) -> Iterator[Bytes]:
    """Cut large pieces and gather small ones, so that each is worth a system call."""
    gathered = bytearray()
    for piece in pieces:
        if len(gathered) + len(piece) <= PIECE_BYTES // 4:
            gathered += piece
            continue
        if gathered:
            yield gathered
            gathered = bytearray()
        view = memoryview(piece)
        yield from (view[i : i + PIECE_BYTES] for i in range(0, len(view), PIECE_BYTES))
    if gathered:
        yield gathered


def _write_all(stream: io.RawIOBase, data: Bytes) -> None:
    view = memoryview(data)
    while view:
        # the system may take less than it is given, and says why at the next call
        view = view[stream.write(view) or 0 :]


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(READ_BYTES))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def read_limited(path: Path, limit: int = JSON_LIMIT) -> bytes:
    """Read a whole file that must not be larger than `limit` bytes.

    Raises:
        ValueError: it is larger.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} has more than {limit:,} bytes")
    return data


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn an operating-system error of a write into one line with its cure."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = "free some space or choose another folder with --out"
            raise DltoolError("E101", f"no space left to write {target}", cure=cure) from error
        reason = error.strerror or str(error)
        cure = "check the folder's permissions or choose another with --out"
        raise DltoolError("E101", f"cannot write {target}: {reason}", cure=cure) from error


def write_bytes_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write a file beside its name, flush it, and rename it into place."""
    with explained(path):
        make_folder(path.parent)
        temporary = temporary_name(path)
        try:
            write_synced(temporary, data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_json_atomic(path: Path, value: Any) -> None:
    """Write a value as indented JSON in UTF-8, atomically."""
    write_bytes_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Encode a value as indented JSON in UTF-8; NaN and infinity are refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


@contextmanager
def folder_written_atomically(target: Path) -> Iterator[Path]:
    """Fill a hidden sibling folder and put it in the place of `target` when the block ends well.

    The files inside must be flushed by the block (`write_synced`, `write_hashed`); the folders are
    flushed here. An older `target` is removed after the new one stands.
    """
    with explained(target):
        make_folder(target.parent)
        temporary = temporary_name(target)
        temporary.mkdir()
        try:
            yield temporary
            sync_folder(temporary)
            replace_folder(temporary, target)
        finally:
            remove(temporary)


def replace_folder(new: Path, target: Path) -> None:
    """Put folder `new` in the place of `target`; a kill at any moment loses neither.

    Where the system swaps two names in one step (Linux, macOS) `target` is never missing. Elsewhere
    the old one is moved aside first, and `sweep_temporaries` brings it back when the new one never
    came.
    """
    if not target.exists():
        os.replace(new, target)
        sync_folder(target.parent)
        return
    if swap(new, target):
        sync_folder(target.parent)
        remove(new)
        return
    old = temporary_name(target, ASIDE)
    os.replace(target, old)
    try:
        os.replace(new, target)
    except OSError:
        os.replace(old, target)
        raise
    sync_folder(target.parent)
    remove(old)


def swap(one: Path, other: Path) -> bool:
    """Exchange two names in one step; return False where the system or its disk cannot."""
    import ctypes

    name = {"linux": "renameat2", "darwin": "renameatx_np"}.get(sys.platform)
    try:
        call = getattr(ctypes.CDLL(None), name) if name else None
    except (OSError, AttributeError):
        return False  # a C library that is older than the call
    if call is None:
        return False
    here, exchange = (-100, 2) if sys.platform == "linux" else (-2, 2)  # AT_FDCWD, RENAME_EXCHANGE
    result = call(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(exchange))
    return bool(result == 0)


def sweep_temporaries(folder: Path) -> list[Path]:
    """Remove what dead processes left half-written in and below `folder`; return what it was.

    A folder that was moved aside for a new one that never came gets its name back.
    """
    removed = []
    for path in sorted([*folder.rglob(f".*{TEMPORARY}*"), *folder.rglob(f".*{ASIDE}*")]):
        mark = ASIDE if ASIDE in path.name else TEMPORARY
        name, _, owner = path.name.rpartition(mark)
        process = owner.partition("-")[0]
        if not process.isdigit() or process_lives(int(process)) or not os.path.lexists(path):
            continue
        target = path.with_name(name[1:])
        if mark == ASIDE and not target.exists():
            os.replace(path, target)
            continue
        remove(path)
        removed.append(path)
    return removed


def discard(folder: Path) -> None:
    """Remove a folder that others may read: its name goes first, so that no part is ever seen."""
    with explained(folder):
        temporary = temporary_name(folder)
        os.replace(folder, temporary)
        remove(temporary)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, as far as the system lets us."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        # rmtree holds folders open, and the process may have no descriptors left
        with suppress(OSError):
            path.rmdir()
        with suppress(OSError):
            for name in os.listdir(path):
                (path / name).unlink()
            path.rmdir()


def process_lives(pid: int) -> bool:
    """Tell whether a process of this number runs on this machine."""
    if pid == os.getpid():
        return False  # a temporary of our own number was left by an earlier process
    if os.name == "nt":
        return True  # no harmless way to ask: leave the file
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def describe_damage(path: Path, expected_bytes: int | None = None) -> str:
    """Say in a few words what a file that cannot be read really is."""
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
            size = os.fstat(stream.fileno()).st_size
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if size == 0:
        return "is empty (0 bytes)"
    if head.startswith(b"version https://git-lfs.github.com/"):
        return "is a git-LFS pointer, not the file itself: run git lfs pull"
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "is an HTML page, most likely an error page saved in its place"
    if expected_bytes is not None and size < expected_bytes:
        return f"is cut off: {size} of {expected_bytes} bytes"
    if expected_bytes is not None and size > expected_bytes:
        return f"is too long: {size} bytes in place of {expected_bytes}"
    if not head.strip(b"\0"):
        return "is damaged: it begins with nothing but zero bytes"
    return "is damaged: its content has changed"


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in and below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        DltoolError: E101, with the bytes that are free and those that are needed.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise DltoolError(
            "E101",
            f"too little space at {folder} for {what}",
            received=f"{free / 1e6:,.1f} MB free",
            expected=f"{needed / 1e6:,.1f} MB",
            cure="free some space or choose another folder with --out",
        )
