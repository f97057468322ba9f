"""The pictures that a user names: files, folders, patterns, videos and stdin."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dltool.data.images import is_image
from dltool.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
# pictures of ours are not searched for objects again
MARK = ".boxes"
CROPS = ".crops"


@dataclass(frozen=True)
class Source:
    """One picture or video to look at.

    Args:
        name: what the user sees.
        path: the file, or None when `data` came through stdin.
        relative: where its results go below a folder that is given with --out.
    """

    name: str
    path: Path | None
    relative: Path
    data: bytes | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is read frame by frame."""
        return self.path is not None and self.path.suffix.lower() in VIDEO_SUFFIXES

    def read(self) -> bytes:
        """Return the whole file.

        Raises:
            DataError: E501, it cannot be read.
        """
        if self.data is not None or self.path is None:
            return self.data or b""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataError("E501", f"cannot read {self.name}: {error.strerror}") from error


@dataclass(frozen=True)
class Failed:
    """An input that could not be used, and why."""

    name: str
    reason: str

    def text(self) -> str:
        """Return name and reason as a line."""
        return f"{self.name}: {self.reason.removeprefix(self.name).strip()}"


def gather(inputs: Sequence[str]) -> tuple[list[Source], list[Failed]]:
    """Return what the words of a command line mean, in their order, and those that mean nothing.

    Raises:
        DataError: stdin was named and is empty.
    """
    sources: list[Source] = []
    failed: list[Failed] = []
    for text in inputs:
        try:
            found = list(_from_stdin() if text == "-" else _expanded(text))
        except OSError as error:
            found = []
            failed.append(Failed(text, error.strerror or str(error)))
            continue
        sources += found
        if not found:
            failed.append(Failed(text, _why_nothing(text)))
    unique = {source.path or source.name: source for source in reversed(sources)}
    return list(reversed(unique.values())), failed


def _expanded(text: str) -> Iterator[Source]:
    path = Path(text)
    if path.is_dir():
        yield from _in_folder(path)
    elif path.exists():
        yield Source(text, path, Path(path.name))
    elif glob.has_magic(text):
        for name in sorted(glob.glob(text, recursive=True)):
            found = Path(name)
            if found.is_dir():
                yield from _in_folder(found)
            elif _is_wanted(found):
                yield Source(name, found, Path(found.name))


def _in_folder(folder: Path) -> Iterator[Source]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not name.endswith(CROPS)
        )
        for name in sorted(names):
            path = Path(here, name)
            if _is_wanted(path) and not name.startswith("."):
                yield Source(str(path), path, path.relative_to(folder))


def _is_wanted(path: Path) -> bool:
    is_ours = path.stem.endswith(MARK)
    return not is_ours and (is_image(path.name) or path.suffix.lower() in VIDEO_SUFFIXES)


def _why_nothing(text: str) -> str:
    if Path(text).is_dir():
        return "there is no picture in this folder"
    return "no file fits this pattern" if glob.has_magic(text) else "there is no such file"


def _from_stdin() -> Iterator[Source]:
    """Take stdin as one picture, or as a list of paths, one a line."""
    content = sys.stdin.buffer.read()
    if not content:
        raise DataError("E502", "stdin is empty", expected="a picture or a list of paths")
    try:
        lines = [line.strip() for line in content.decode().splitlines() if line.strip()]
    except UnicodeDecodeError:
        lines = []
    if lines and not any("\0" in line for line in lines) and os.path.exists(lines[0]):
        for line in lines:
            # a path that is not there is told when it is read
            yield from list(_expanded(line)) or [Source(line, Path(line), Path(Path(line).name))]
    else:
        yield Source("-", None, Path("stdin.jpg"), content)
