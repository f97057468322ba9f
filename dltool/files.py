"""Atomic writes: a reader sees the old content or the new, never a part of either."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dltool.errors import DltoolError

TEMPORARY = ".tmp-"


def temporary_name(target: Path) -> Path:
    """Return a sibling of `target` that no other process uses and a later start can sweep."""
    return target.with_name(f".{target.name}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")


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


def write_synced(path: Path, data: bytes | memoryview) -> None:
    """Write bytes to `path` and flush them to the disk."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


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
        path.parent.mkdir(parents=True, exist_ok=True)
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
    """Fill a hidden sibling folder and rename it to `target` when the block ends well.

    An older `target` is moved aside first and removed after the new one stands. The files inside
    must be flushed by the block (`write_synced`); the folders are flushed here.
    """
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(target)
        temporary.mkdir()
        try:
            yield temporary
            sync_folder(temporary)
            replace_folder(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, target: Path) -> None:
    """Put folder `new` in the place of `target`."""
    old = temporary_name(target)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def sweep_temporaries(folder: Path) -> list[Path]:
    """Remove what dead processes left half-written in `folder`; return what was removed."""
    removed = []
    for path in sorted(folder.glob(f".*{TEMPORARY}*")):
        owner = path.name.rpartition(TEMPORARY)[2].partition("-")[0]
        if owner.isdigit() and not process_lives(int(owner)):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
            removed.append(path)
    return removed


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
    if not path.exists():
        return "is missing"
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(512)
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
