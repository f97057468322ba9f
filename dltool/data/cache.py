"""What lies in the cache of data sets: how large it is, whether it is whole, what can go."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.metadata
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dltool import files
from dltool.data import hashes, named
from dltool.data.download import cache_folder
from dltool.errors import ConfigError, closest

State = Literal["whole", "damaged", "absent", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """What a look at the bytes of a data set gave.

    Attributes:
        state: `whole` and `damaged` come from checksums; `unknown`: no checksum is known for the
            form in which the files lie there.
        problems: a line for each file that is not as it should be.
    """

    name: str
    state: State
    path: Path | None
    files: int
    problems: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict for JSON."""
        return {
            "name": self.name,
            "state": self.state,
            "path": str(self.path) if self.path else None,
            "files": self.files,
            "problems": list(self.problems),
        }


@dataclass(frozen=True)
class Entry:
    """One thing in the cache that can be removed: a data set's folder, or a leftover in one."""

    name: str
    path: Path
    bytes: int
    what: str

    def as_dict(self) -> dict[str, Any]:
        """Return the entry for JSON."""
        return {"name": self.name, "path": str(self.path), "bytes": self.bytes, "what": self.what}


def root() -> Path:
    """Return the folder that holds the cache; it need not exist."""
    return cache_folder("any").parent


def size_text(count: int) -> str:
    """Return a number of bytes for people."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.2f} GB"


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    return path.stat().st_size if path.is_file() else files.folder_bytes(path)


# ---- is it whole? ---------------------------------------------------------------------------


def verify(name: str, data_root: Path | None = None) -> Verdict:
    """Compare the files of a named data set with the checksums that are known of them.

    Raises:
        ConfigError: E206, no data set has this name.
    """
    place = named.where(name, data_root)
    if name == "digits":
        return _verify_installed(name, place)
    if place is None:
        here = [found for found in _downloaded(name) if data_root is None]
        lost = tuple(f"{cache_folder(name) / file} is missing" for file in _missing(name, here))
        return Verdict(name, "damaged" if here else "absent", None, len(here), lost)
    receipt = _receipt(name) if data_root is None else None
    if receipt is not None:
        problems = hashes.problems(cache_folder(name), receipt)
        return _judged(name, place, len(receipt), problems)
    sources = named.NAMED[name].files
    packed = {file: place / file for file in sources if (place / file).is_file()}
    other = [
        file
        for file, path in packed.items()
        if f"sha256:{files.sha256(path)}" != sources[file].checksum
    ]
    problems = [
        f"{packed[file]} {files.describe_damage(packed[file], sources[file].size)}"
        for file in other
        # elsewhere the same content may be packed in another way; gzip knows whether it is whole
        if data_root is None or not _is_whole_gzip(packed[file])
    ]
    if problems or (len(packed) == len(sources) and not other):
        return _judged(name, place, len(packed), problems)
    return Verdict(name, "unknown", place, len(packed))


def _judged(name: str, place: Path, count: int, problems: list[str]) -> Verdict:
    return Verdict(name, "damaged" if problems else "whole", place, count, tuple(problems))


def _downloaded(name: str) -> list[str]:
    folder = cache_folder(name)
    return [file for file in named.NAMED[name].files if (folder / file).is_file()]


def _missing(name: str, here: list[str]) -> list[str]:
    return [file for file in named.NAMED[name].files if file not in here] if here else []


def _is_whole_gzip(path: Path) -> bool:
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return True


def _receipt(name: str) -> dict[str, dict[str, Any]] | None:
    """Return what was written down when the set came; None where nothing was."""
    try:
        found = json.loads(files.read_limited(cache_folder(name) / named.RECEIPT, 1 << 20))
        whole = all(type(each["bytes"]) is int and each["sha256"] for each in found.values())
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return None
    return found if whole and found else None


def _verify_installed(name: str, place: Path | None) -> Verdict:
    """Compare the digits with the hashes that the installer of scikit-learn wrote down."""
    if place is None:
        return Verdict(name, "absent", None, 0)
    for file in importlib.metadata.files("scikit-learn") or []:
        if file.name == "digits.csv.gz" and file.hash is not None:
            path = place / file.name
            if not path.is_file():
                return _judged(name, place, 1, [f"{path} is missing"])
            digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
            is_same = base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value
            problems = [] if is_same else [f"{path} {files.describe_damage(path, file.size)}"]
            return _judged(name, place, 1, problems)
    return Verdict(name, "unknown", place, 0)


# ---- what can go? ---------------------------------------------------------------------------


def entries() -> list[Entry]:
    """Return every folder of the cache: named data sets, and what topics keep to be quicker."""
    if not root().is_dir():
        return []
    found = []
    for path in sorted(root().iterdir()):
        if path.is_dir() and not path.is_symlink():
            known = named.NAMED.get(path.name)
            what = known.summary if known else "made by dltool; it is made again when needed"
            found.append(Entry(path.name, path, size_of(path), what))
    return found


def leftovers() -> list[Entry]:
    """Return what broken downloads and killed processes left in the cache; nothing in use."""
    return list(_leftovers()) if root().is_dir() else []


def _leftovers() -> Iterator[Entry]:
    for path in sorted(root().rglob("*")):
        name = path.relative_to(root()).parts[0]
        if path.suffix == ".part" and not _is_locked(path.with_suffix("")):
            yield Entry(name, path, size_of(path), "a download that broke off")
        elif path.name.startswith(".") and files.TEMPORARY in path.name and not _is_owned(path):
            yield Entry(name, path, size_of(path), "half-written by a process that is gone")
        elif path.name == named.CIFAR_ARCHIVE and named.where("cifar10") is not None:
            yield Entry(name, path, size_of(path), "an archive that is unpacked")


def _is_locked(target: Path) -> bool:
    """Tell whether a process is downloading a file just now."""
    from filelock import FileLock, Timeout

    lock = target.with_name(target.name + ".lock")
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _is_owned(path: Path) -> bool:
    process = path.name.rpartition(files.TEMPORARY)[2].partition("-")[0]
    return not process.isdigit() or files.process_lives(int(process))


def chosen(names: list[str]) -> list[Entry]:
    """Return the cache's folders of these names.

    Raises:
        ConfigError: E206, the cache holds nothing of a name.
    """
    found = {entry.name: entry for entry in entries()}
    for name in names:
        if name not in found:
            near = closest(name, found)
            raise ConfigError(
                "E206",
                f"the cache holds nothing named {name!r}",
                expected=", ".join(found) or "nothing: it is empty",
                cure=f"did you mean {near}?" if near else "dltool data list",
            )
    return [found[name] for name in dict.fromkeys(names)]
