"""Downloads that announce themselves, resume, and are checked before anything reads them."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from dltool import __version__
from dltool.console import Console, Progress
from dltool.errors import ConfigError, DataError, DltoolError
from dltool.files import explained, sync_folder

TIMEOUT_SECONDS = 10.0
# a server that sends a byte now and then must not hold anyone for days
PATIENCE_SECONDS = 60.0
PATIENCE_BYTES = 60_000
CHUNK_BYTES = 1 << 16
ATTEMPTS = 5
# a server that never stops sending must not fill the disk when the size is not known
MAX_BYTES = 50 << 30

SIGNATURES = (
    (b"version https://git-lfs.github.com/", "a git-LFS pointer, not the file itself"),
    (b"\x1f\x8b", "gzip data"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"\x80\x02", "a pickle"),
)


@dataclass(frozen=True)
class Source:
    """One file on the internet and how to know it.

    Args:
        urls: mirrors in the order in which they are tried; https only.
        size: its size in bytes, or None when it is not known.
        checksum: `sha256:…` or `md5:…`, in hexadecimal digits.

    Raises:
        ConfigError: no address, an address that is not https, or another kind of checksum.
    """

    urls: tuple[str, ...]
    size: int | None
    checksum: str

    def __post_init__(self) -> None:
        if not self.urls:
            raise ConfigError("E202", "a source needs at least one address")
        for url in self.urls:
            if not _is_allowed(url):
                raise ConfigError("E202", "this address is refused", received=url, expected="https")
        kind, _, digits = self.checksum.partition(":")
        if kind not in ("sha256", "md5") or not digits:
            raise ConfigError(
                "E202",
                "this checksum is not understood",
                received=self.checksum,
                expected="sha256:… or md5:…",
            )


def cache_folder(name: str) -> Path:
    """Return the folder of one data set below `DLTOOL_HOME` or the user's cache; create nothing."""
    home = os.environ.get("DLTOOL_HOME")
    if home:
        return Path(home).expanduser() / "data" / name
    import platformdirs

    return platformdirs.user_cache_path("dltool", appauthor=False) / "data" / name


def is_offline() -> bool:
    """Tell whether `DLTOOL_OFFLINE` forbids downloads."""
    return os.environ.get("DLTOOL_OFFLINE", "0").lower() not in ("", "0", "false", "no")


def fetch(source: Source, target: Path, console: Console | None = None) -> Path:
    """Return `target` once it holds the source's bytes, and download it where it does not.

    The bytes arrive in `<target>.part`, which a later call continues, and only a file of the right
    size and checksum gets the name `target`. One process downloads at a time.

    Raises:
        DataError: E504, no mirror gave the file, or `DLTOOL_OFFLINE` forbids to ask.
        DltoolError: E101, the file cannot be written.
    """
    console = console or Console("data")
    if _is_whole(target, source):
        return target
    if is_offline():
        raise DataError(
            "E504",
            f"{target.name} is not here and DLTOOL_OFFLINE forbids to download it",
            cure=f"put {target.name} into {target.parent} or unset DLTOOL_OFFLINE",
        )
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target, console):
        if not _is_whole(target, source):
            _from_mirrors(source, target, console)
    return target


@contextmanager
def locked(target: Path, console: Console) -> Iterator[None]:
    """Hold `<target>.lock`, so that only one process makes `target` at a time."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(target.name + ".lock"))
    with explained(target):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            console.note(f"another process is making {target}; waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def name_content(head: bytes) -> str:
    """Say what a file that begins with `head` is, for the errors of a reader that expected else.

    Args:
        head: the first bytes of the file, 512 or more where it has them.

    Returns:
        A noun such as "an HTML page" or "text", or "" when nothing is recognised.
    """
    if not head:
        return "empty (0 bytes)"
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page, most likely an error page saved in its place"
    for signature, name in SIGNATURES:
        if head.startswith(signature):
            return name
    if start.startswith(b"<?xml"):
        return "an XML document, perhaps a server's error message"
    is_text = all(byte >= 32 or byte in (9, 10, 12, 13) for byte in head[:512])
    return "text" if is_text else ""


class _Failed(Exception):
    """One mirror did not give the file; the message says why."""


class _SameRules(HTTPRedirectHandler):
    """Follow a redirect only to an address that would be allowed by itself."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not _is_allowed(newurl):
            raise URLError(f"it redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_allowed(url: str) -> bool:
    address = urlsplit(url)
    return address.scheme == "https" or (
        address.scheme == "http" and address.hostname == "127.0.0.1"
    )


def _from_mirrors(source: Source, target: Path, console: Console) -> None:
    part = target.with_name(target.name + ".part")
    size = f"{source.size:,} bytes" if source.size else "size not known"
    if target.exists():
        console.note(f"{target} {_mismatch(target, source)}; downloading it again")
    _check_space(source, part)
    reasons = []
    for url in source.urls:
        console.note(f"downloading {url} ({size}, {source.checksum}) to {target}")
        try:
            _download(url, part, source, console)
        except _Failed as error:
            reasons.append(f"{url}: {error}")
            continue
        with explained(target):
            os.replace(part, target)
            sync_folder(target.parent)
        return
    raise DataError(
        "E504",
        f"{target.name} could not be downloaded: {'; '.join(reasons)}",
        cure=f"try again later, or put the file into {target.parent} yourself",
    )


def _check_space(source: Source, part: Path) -> None:
    missing = (source.size or 0) - _size(part)
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise DltoolError(
            "E101",
            f"no space for {part.name}: {missing:,} bytes are needed, {free:,} are free",
            cure="free some space or set DLTOOL_HOME to another disk",
        )


def _download(url: str, part: Path, source: Source, console: Console) -> None:
    """Continue while bytes arrive; start over once where an older part does not fit."""
    opener = build_opener(_SameRules)
    for _ in range(ATTEMPTS):
        had = _size(part)
        if had != source.size:
            try:
                _receive(opener, url, part, source, console)
            except _Failed:
                if _size(part) <= had:
                    raise
                continue
        reason = _mismatch(part, source)
        if not reason:
            return
        part.unlink(missing_ok=True)
        if not had:
            raise _Failed(reason)
    raise _Failed("the connection broke off again and again")


def _receive(
    opener: OpenerDirector, url: str, part: Path, source: Source, console: Console
) -> None:
    had = _size(part)
    with _answer(opener, url, had) as response:
        if response.status == 206 and not _continues(response, had):
            raise _Failed("the server sent another range than the one asked for")
        have = had if response.status == 206 else 0
        expected = None if response.length is None else have + response.length
        if source.size is not None and expected not in (None, source.size):
            _refuse_page(response)
            raise _Failed(f"the server has {expected:,} bytes, expected {source.size:,}")
        total = source.size or expected
        with (
            explained(part),
            part.open("ab" if have else "wb") as file,
            console.progress(total and -(-total // 1024), part.stem, "kB") as bar,
        ):
            bar.advance(have // 1024)
            _store(response, file, bar, (source.size or MAX_BYTES) - have)
        if total is not None and _size(part) < total:
            raise _Failed(f"cut off after {_size(part):,} of {total:,} bytes")


def _answer(opener: OpenerDirector, url: str, had: int) -> HTTPResponse:
    headers = {"User-Agent": f"dltool/{__version__}", "Accept-Encoding": "identity"}
    if had:
        headers["Range"] = f"bytes={had}-"
    try:
        return cast(
            HTTPResponse, opener.open(Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
        )
    except HTTPError as error:
        error.close()
        if had and error.code == 416:
            return _answer(opener, url, 0)
        raise _Failed(f"the server answered {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _Failed(_reason(error)) from error


def _continues(response: HTTPResponse, had: int) -> bool:
    return (response.headers.get("Content-Range") or "").startswith(f"bytes {had}-")


def _refuse_page(response: HTTPResponse) -> None:
    content = name_content(next(_chunks(response), b""))
    if content:
        raise _Failed(f"the server sent {content}")


def _store(response: HTTPResponse, file: IO[bytes], bar: Progress, room: int) -> None:
    try:
        for chunk in _chunks(response):
            room -= len(chunk)
            if room < 0:
                file.truncate(0)  # nothing of it can be trusted, so nothing is continued
                raise _Failed("the server sent more bytes than the file has")
            file.write(chunk)
            bar.advance(-(-len(chunk) // 1024))
    finally:
        file.flush()
        os.fsync(file.fileno())


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """Yield what the network gives; its errors must not be taken for the disk's."""
    since, received = time.monotonic(), 0
    try:
        # read1 returns what has arrived; read would wait for a whole chunk
        while chunk := response.read1(CHUNK_BYTES):
            yield chunk
            received += len(chunk)
            if (now := time.monotonic()) - since > PATIENCE_SECONDS:
                if received < PATIENCE_BYTES:
                    raise _Failed(f"only {received:,} bytes came in {now - since:.0f} s")
                since, received = now, 0
    except (OSError, HTTPException) as error:
        raise _Failed(_reason(error)) from error


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:.0f} s"
    return str(cause) or type(cause).__name__


def _is_whole(target: Path, source: Source) -> bool:
    return target.is_file() and not _mismatch(target, source)


def _mismatch(path: Path, source: Source) -> str:
    """Say how a file differs from its source, or "" when it does not."""
    if not path.is_file():
        return "is missing"
    kind, _, expected = source.checksum.partition(":")
    with path.open("rb") as file:
        content = name_content(file.read(512))
        file.seek(0)
        right_size = source.size in (None, _size(path))
        if right_size and _digest(file, kind) == expected.lower():
            return ""
    if content.startswith(("an HTML", "an XML", "a git-LFS", "nothing", "empty")):
        return f"is {content}"
    if not right_size:
        return f"has {_size(path):,} bytes, expected {source.size:,}"
    return f"does not have the checksum {source.checksum}"


def _digest(file: IO[bytes], kind: str) -> str:
    # md5 guards against damage only; systems in FIPS mode allow it when told so
    digest = hashlib.new(kind, usedforsecurity=False)
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
