"""Image folders and zips of them: find the images, look at some, load them as one tensor."""

from __future__ import annotations

import os
import statistics
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dltool.console import Console
from dltool.data.archives import DAMAGE, member_parts, safe_members
from dltool.data.decode import ImageItem, ItemReader, decode, header, is_grey, quiet
from dltool.data.download import name_content
from dltool.errors import DataError

__all__ = [
    "ImageItem",
    "ImageTree",
    "Loaded",
    "Probe",
    "decode",
    "is_image",
    "load",
    "probe",
    "scan",
]

SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in "png jpg jpeg jpe bmp gif webp tif tiff ppm pgm pbm".split()  # noqa: SIM905
)
SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}
LAYOUT = "one subfolder a class with images in it, or train/ and test/ (or val/) of such"
CHUNK_ITEMS = 64


@dataclass(frozen=True)
class ImageTree:
    """The images found by `scan`.

    Args:
        classes: names in sorted order; labels are indices into it.
        splits: images by class and name, under "all", or under "train", "val" and "test".
        ignored: what was left out: other files, hidden ones, class folders without images.
    """

    classes: tuple[str, ...]
    splits: dict[str, list[ImageItem]]
    ignored: list[str]


@dataclass(frozen=True)
class Loaded:
    """Images in memory.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        names: N names, in the order of the images.
        broken: name and reason of every image that could not be read and is left out.
    """

    images: Tensor
    labels: Tensor
    names: list[str]
    broken: list[tuple[str, str]]


@dataclass(frozen=True)
class Probe:
    """What a sample of the images looks like.

    Args:
        size: (height, width), the most frequent or else the median of each.
        same_size: every image of the sample has that size.
        grey: no image of the sample has colour channels.
        modes: how often Pillow's modes occur.
    """

    size: tuple[int, int]
    same_size: bool
    grey: bool
    modes: dict[str, int]


@dataclass(frozen=True)
class _Entry:
    parts: tuple[str, ...]
    name: str
    path: Path
    member: str | None
    is_folder: bool

    @property
    def is_image(self) -> bool:
        return not self.is_folder and is_image(self.parts[-1])


_Classes = dict[str, list[_Entry]]


def is_image(name: str) -> bool:
    """Tell by its suffix whether a file is read as an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def scan(path: Path, *, allow_one_class: bool = False) -> ImageTree:
    """Find the images of a folder, or of a zip of one, and their classes.

    The layout is one subfolder a class, deeper images included, or `train/` with `test/` or `val/`
    (or both) of such subfolders. A lone `train/` is one pool, "all". A zip may wrap everything in
    one more folder. The order is that of the names and does not depend on the file system.

    Raises:
        DataError: E501 the path is missing, E502 it is neither folder nor zip, E503 there are no
            images, no class folders or one class only, E505 the zip is unsafe, E506 `test` or
            `val` has a class that `train` has not.
    """
    entries, ignored = _visible(_entries(path))
    if not any(entry.is_image for entry in entries):
        raise DataError("E503", f"{path} holds no images", expected=LAYOUT)
    entries = _unwrapped(entries, path.is_file())
    roles = _roles(entries)
    groups: dict[str, _Classes] = {role: {} for role in roles.values()} or {"all": {}}
    for entry in entries:
        group = groups.get(roles.get(entry.parts[0], "")) if roles else groups["all"]
        below = entry.parts[1:] if roles else entry.parts
        if entry.is_image and (group is None or len(below) < 2):
            ignored.append(f"{entry.name} (in no class folder)")
        elif group is not None and below and not (entry.is_folder and len(below) > 1):
            group.setdefault(below[0], []).extend([entry] if entry.is_image else [])
    return _tree(path, groups, ignored, allow_one_class)


def load(
    items: Sequence[ImageItem],
    *,
    size: tuple[int, int],
    mode: str,
    workers: int = 1,
    on_broken: Literal["skip", "raise"] = "skip",
    console: Console | None = None,
) -> Loaded:
    """Decode images in threads, in order, into one tensor; broken ones are left out and listed.

    Args:
        items: what to load, from `scan`.
        size: (height, width) of every image.
        mode: "L" or "RGB".
        workers: threads; more than one pays only on a slow disk, as Pillow decodes one at a time.
        on_broken: "raise" stops at the first image in order that cannot be read.
        console: shows the progress.

    Raises:
        DataError: E503 there are no items, E502 none of them can be read.
    """
    if not items:
        raise DataError("E503", "there are no images to load")
    channels = 1 if mode == "L" else 3
    images = torch.empty((len(items), channels, *size), dtype=torch.uint8)
    reasons = _decode_all(items, images, mode, workers, console)
    broken = [
        (items[index].name, error.message.removeprefix(f"{items[index].name} "))
        for index, error in sorted(reasons.items())
    ]
    if reasons and (on_broken == "raise" or len(reasons) == len(items)):
        first = reasons[min(reasons)]
        if on_broken == "raise":
            raise first
        message = f"none of the {len(items):,} images can be read; the first: {first.message}"
        raise DataError("E502", message, cure=first.cure)
    kept = [index for index in range(len(items)) if index not in reasons]
    return Loaded(
        images[kept] if broken else images,
        torch.tensor([items[index].label for index in kept]),
        [items[index].name for index in kept],
        broken,
    )


def probe(items: Sequence[ImageItem], sample: int = 200) -> Probe:
    """Look at the headers of evenly spaced images; broken ones are passed over.

    Raises:
        DataError: E503 there are no items, E502 none of the sample can be read.
    """
    if not items:
        raise DataError("E503", "there are no images to look at")
    count = min(sample, len(items))
    reader = ItemReader()
    found: list[tuple[tuple[int, int], str]] = []
    last = ""
    for index in range(count):
        item = items[index * len(items) // count]
        try:
            found.append(header(reader.read(item), item.name))
        except DataError as error:
            last = error.message
    if not found:
        raise DataError("E502", f"no image of the sample can be read; the last: {last}")
    sizes = Counter(size for size, _ in found)
    modes = Counter(mode for _, mode in found)
    return Probe(_typical(sizes), len(sizes) == 1, all(map(is_grey, modes)), dict(modes))


def _entries(path: Path) -> list[_Entry]:
    try:
        if path.is_dir():
            return list(_walk(path, (), frozenset()))
        if not path.exists():
            raise DataError("E501", f"there is no {path}", cure="check the path given with --data")
        with path.open("rb") as file:
            content = name_content(file.read(512))
        if not zipfile.is_zipfile(path):
            reason = f": it is {content}" if content else ""
            raise DataError(
                "E502", f"{path} is neither a folder nor a zip{reason}", expected=LAYOUT
            )
        return _members(path)
    except OSError as error:
        raise DataError("E501", f"{path} cannot be read: {error.strerror}") from error
    except DAMAGE as error:
        raise DataError("E502", f"{path} is a damaged zip: {error}", cure="get it again") from error


def _walk(folder: Path, above: tuple[str, ...], real_above: frozenset[str]) -> Iterator[_Entry]:
    real = os.path.realpath(folder)
    if real in real_above:
        return  # a link that leads back up
    with os.scandir(folder) as found:
        children = sorted(found, key=lambda child: child.name)
    for child in children:
        parts = (*above, _printable(child.name))
        path, is_folder = Path(child.path), child.is_dir()
        yield _Entry(parts, "/".join(parts), path, None, is_folder)
        if is_folder and not _is_hidden(child.name):
            yield from _walk(path, parts, real_above | {real})


def _members(path: Path) -> list[_Entry]:
    entries = []
    with zipfile.ZipFile(path) as archive:
        for info in safe_members(archive):
            parts = tuple(map(_printable, member_parts(info.filename)))
            if parts:
                name = "/".join(parts)
                entries.append(_Entry(parts, name, path, info.filename, info.is_dir()))
    return entries


def _printable(name: str) -> str:
    """Make one name of what different systems write differently or what no terminal can print."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return unicodedata.normalize("NFC", text)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _visible(entries: list[_Entry]) -> tuple[list[_Entry], list[str]]:
    kept: list[_Entry] = []
    ignored: list[str] = []
    for entry in entries:
        hidden = [index for index, part in enumerate(entry.parts) if _is_hidden(part)]
        if hidden:
            ignored.append("/".join(entry.parts[: hidden[0] + 1]))
        elif entry.is_folder or entry.is_image:
            kept.append(entry)
        else:
            ignored.append(entry.name)
    return kept, list(dict.fromkeys(ignored))


def _unwrapped(entries: list[_Entry], in_zip: bool) -> list[_Entry]:
    """Take off a zip's wrapping folder and a lone `train/`, which splits nothing."""
    images = [entry.parts for entry in entries if entry.is_image]
    top = images[0][0]
    if any(parts[0] != top or len(parts) < 3 for parts in images):
        return entries
    if not in_zip and top.lower() not in SPLITS:
        return entries
    inner = [
        replace(entry, parts=entry.parts[1:])
        for entry in entries
        if entry.parts[0] == top and len(entry.parts) > 1
    ]
    return _unwrapped(inner, in_zip=False)


def _roles(entries: list[_Entry]) -> dict[str, str]:
    """Map top folders to splits, or nothing when the top folders are classes.

    A class may be called "train" too, so only folders of folders count, and one split is none.
    """
    tops = {entry.parts[0] for entry in entries if entry.is_image and len(entry.parts) > 2}
    roles = {top: SPLITS[top.lower()] for top in sorted(tops) if top.lower() in SPLITS}
    return roles if len(set(roles.values())) > 1 else {}


def _tree(
    path: Path, groups: dict[str, _Classes], ignored: list[str], allow_one_class: bool
) -> ImageTree:
    filled: dict[str, _Classes] = {}
    for role, group in groups.items():
        filled[role] = {name: found for name, found in group.items() if found}
        place = "" if role == "all" else f"{role}/"
        ignored += [f"{place}{name}/ (no images)" for name, found in group.items() if not found]
    if not any(filled.values()):
        raise DataError("E503", f"{path} holds images but no class folders", expected=LAYOUT)
    base = filled.get("train") or filled.get("all")
    classes = tuple(sorted(base or set().union(*filled.values())))
    for role, group in filled.items():
        strangers = sorted(set(group) - set(classes))
        if strangers:
            message = f"{path}: {role} has classes that train has not: {', '.join(strangers)}"
            raise DataError("E506", message, cure="use the same class folders in every split")
    if len(classes) == 1 and not allow_one_class:
        raise DataError(
            "E503", f"{path} holds images of one class only: {classes[0]}", expected=LAYOUT
        )
    splits = {role: _items(group, classes) for role, group in filled.items()}
    return ImageTree(classes, splits, sorted(ignored))


def _items(group: _Classes, classes: tuple[str, ...]) -> list[ImageItem]:
    return [
        ImageItem(entry.name, label, entry.path, entry.member)
        for label, name in enumerate(classes)
        for entry in sorted(group.get(name, ()), key=lambda entry: entry.name)
    ]


def _decode_all(
    items: Sequence[ImageItem], images: Tensor, mode: str, workers: int, console: Console | None
) -> dict[int, DataError]:
    """Fill `images` (N, C, H, W) in place; return the errors by index."""
    size = (images.shape[2], images.shape[3])
    target = images.numpy()
    reader = ItemReader()
    reasons: dict[int, DataError] = {}

    def decode_some(start: int) -> int:
        stop = min(start + CHUNK_ITEMS, len(items))
        for index in range(start, stop):
            item = items[index]
            try:
                pixels = decode(reader.read(item), item.name, mode, size)
                target[index] = pixels.transpose(2, 0, 1)
            except DataError as error:
                reasons[index] = error
        return stop - start

    starts = range(0, len(items), CHUNK_ITEMS)
    pool = ThreadPoolExecutor(max(1, workers), "decode")
    progress = console.progress(len(items), "reading images", "img") if console else nullcontext()
    try:
        with quiet(), progress as bar:
            for done in pool.map(decode_some, starts):
                if bar is not None:
                    bar.advance(done)
    finally:
        # after Ctrl-C only the chunks in hand are finished
        pool.shutdown(cancel_futures=True)
    return reasons


def _typical(sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    size, count = sizes.most_common(1)[0]
    if 2 * count >= sizes.total():
        return size
    every = list(sizes.elements())
    return (
        statistics.median_low(height for height, _ in every),
        statistics.median_low(width for _, width in every),
    )
