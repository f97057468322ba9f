"""The files of a data set, in a folder or a zip: their names, and how to read them."""

from __future__ import annotations

import os
import posixpath
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dltool.data.archives import DAMAGE, member_parts, safe_members
from dltool.data.decode import ImageItem, ItemReader
from dltool.data.images import is_image
from dltool.errors import DataError

# XML and JSON are read whole; no annotation file that people work with is larger
MAX_TEXT_BYTES = 1 << 30
HEAD_BYTES, TAIL_BYTES = 1 << 17, 64


@dataclass(frozen=True)
class Tree:
    """The visible files below a folder or inside a zip.

    Args:
        path: the folder or the zip.
        places: each name, with forward slashes, and the zip's own name for it (None in a folder).
    """

    path: Path
    places: Mapping[str, str | None]
    reader: ItemReader = field(default_factory=ItemReader, compare=False, repr=False)

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The names that are read as pictures, sorted."""
        return tuple(name for name in self.places if is_image(name))

    @cached_property
    def images_by_stem(self) -> dict[str, list[str]]:
        """The pictures by file name without folder and suffix."""
        found: dict[str, list[str]] = {}
        for name in self.images:
            found.setdefault(stem(name), []).append(name)
        return found

    def ending(self, *suffixes: str) -> list[str]:
        """Return the names with one of these suffixes, in lower case with the dot."""
        return [name for name in self.places if name.lower().endswith(suffixes)]

    def read(self, name: str) -> bytes:
        """Return a whole file.

        Raises:
            DataError: E502, it cannot be read.
        """
        return self.reader.read(self._item(name))

    def text(self, name: str) -> str:
        """Return a text file in UTF-8, without a byte-order mark; old Windows letters survive.

        Raises:
            DataError: E502, it cannot be read.
        """
        data = self.read(name)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return data.decode("latin-1")

    def ends(self, name: str) -> tuple[bytes, bytes]:
        """Return the beginning of a file, enough for an image's header, and its last bytes.

        Raises:
            DataError: E502, it cannot be read.
        """
        if self.places[name] is not None:
            data = self.read(name)
            return data, data[-TAIL_BYTES:]
        try:
            with (self.path / name).open("rb") as file:
                head = file.read(HEAD_BYTES)
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
                return head, file.read()
        except OSError as error:
            message = f"{name} cannot be read: {error.strerror}"
            raise DataError("E502", message, cure="replace or remove the file") from error

    def _item(self, name: str) -> ImageItem:
        member = self.places[name]
        return ImageItem(name, 0, self.path / name if member is None else self.path, member)


def stem(name: str) -> str:
    """Return a file's name without folder and suffix."""
    return posixpath.splitext(posixpath.basename(name))[0]


def folder(name: str) -> str:
    """Return the folder part of a name; empty at the top."""
    return posixpath.dirname(name)


def joined(*parts: str) -> str:
    """Join and tidy the parts of a name; `..` goes up, never above the top."""
    path = posixpath.normpath(posixpath.join("/", *(part.replace("\\", "/") for part in parts)))
    return path.lstrip("/")


def open_tree(path: Path) -> Tree:
    """List the files of a folder or a zip; hidden ones are left out.

    Raises:
        DataError: E501 the path is missing, E502 it is neither folder nor zip, E505 the zip is
            unsafe.
    """
    try:
        if path.is_dir():
            return Tree(path, dict.fromkeys(sorted(_walk(path, "", frozenset()))))
        if not path.exists():
            raise DataError("E501", f"there is no {path}", cure="check the path given with --data")
        if not zipfile.is_zipfile(path):
            raise DataError(
                "E502",
                f"{path} is neither a folder nor a zip",
                expected="pictures with Pascal VOC, COCO or YOLO annotations",
            )
        with zipfile.ZipFile(path) as archive:
            members = [info for info in safe_members(archive) if not info.is_dir()]
    except OSError as error:
        raise DataError("E501", f"{path} cannot be read: {error.strerror}") from error
    except DAMAGE as error:
        raise DataError("E502", f"{path} is a damaged zip: {error}", cure="get it again") from error
    named = {_printable("/".join(member_parts(info.filename))): info.filename for info in members}
    visible = {name: member for name, member in named.items() if not _is_hidden(name)}
    return Tree(path, dict(sorted(visible.items())))


def _walk(root: Path, above: str, real_above: frozenset[str]) -> Iterator[str]:
    here = root / above
    real = os.path.realpath(here)
    if real in real_above:
        return  # a link that leads back up
    with os.scandir(here) as found:
        for child in found:
            name = f"{above}/{child.name}" if above else child.name
            if _is_hidden(child.name):
                continue
            if child.is_dir():
                yield from _walk(root, name, real_above | {real})
            else:
                yield name


def _printable(name: str) -> str:
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return unicodedata.normalize("NFC", text)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
