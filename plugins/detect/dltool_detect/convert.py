"""Write a data set in another format: Pascal VOC, COCO or YOLO."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image

from dltool import files
from dltool.console import Console
from dltool.data import decode
from dltool.errors import ConfigError
from dltool_detect.ap import truth_document
from dltool_detect.data import DetectionSet, Item, read
from dltool_detect.draw import encoded
from dltool_detect.formats import FORMATS, POOL
from dltool_detect.problems import Problems
from dltool_detect.repair import picture_size
from dltool_detect.tree import Tree

# enough that a box in a picture of 100,000 pixels comes back to a thousandth of one
YOLO_DIGITS = 10


@dataclass(frozen=True)
class Named:
    """A picture of one split under the name that it gets."""

    item: Item
    role: str
    name: str


def convert_data(
    path: str,
    out: Path,
    *,
    to: str,
    format: str,
    classes: Sequence[str],
    console: Console,
) -> None:
    """Write pictures and boxes of a data set into a new folder.

    Pictures are copied byte by byte, but for those that a viewer turns (EXIF): these are written
    upright, as not every program turns them.

    Raises:
        ConfigError: E204 `out` holds something, E206 the format is not known.
        DataError: nothing usable is in the data.
    """
    if to not in FORMATS:
        raise ConfigError("E206", f"--to {to!r} is not known", expected=", ".join(FORMATS))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("E204", f"{out} exists already", cure="name a new folder with --out")
    pools = read(path, format=format, classes=classes)
    whole = pools.together()
    named = list(_named({role: part.items for role, part in pools.pools.items()}))
    writer = {"voc": _write_voc, "coco": _write_coco, "yolo": _write_yolo}[to]
    turned = 0
    with files.folder_written_atomically(out) as folder:
        with console.progress(len(named), "copying pictures", "img") as bar:
            for entry in named:
                turned += _copy(entry, whole, folder, to)
                bar.advance()
        writer(folder, named, whole.classes, pools.problems)
    for line in pools.problems.lines():
        console.warn(line)
    counts = {role: len(part) for role, part in pools.pools.items()}
    result = {
        "data": path,
        "out": str(out),
        "from": pools.format,
        "to": to,
        "classes": list(whole.classes),
        "images": counts,
        "boxes": sum(len(item.boxes) for item in whole.items),
        "turned_upright": turned,
        "problems": pools.problems.as_dict(),
    }
    parts = ", ".join(f"{count:,} {role}" for role, count in counts.items())
    console.result(result, f"{out}: {parts} pictures with {result['boxes']:,} boxes as {to}")
    console.hint(f"dltool detect data {out}")


def _named(pools: dict[str, tuple[Item, ...]]) -> Iterator[Named]:
    """Give every picture a file name of its own across all splits."""
    taken: set[str] = set()
    for role, items in pools.items():
        for item in items:
            base, suffix = posixpath.splitext(posixpath.basename(item.name))
            stem, number = base, 2
            while stem.lower() in taken:
                stem, number = f"{base}-{number}", number + 1
            taken.add(stem.lower())
            yield Named(item, role, stem + suffix)


def _place(entry: Named, to: str) -> str:
    if to == "voc":
        return f"JPEGImages/{entry.name}"
    if to == "coco":
        return f"{'images' if entry.role == POOL else entry.role}/{entry.name}"
    return f"images/{entry.name}" if entry.role == POOL else f"images/{entry.role}/{entry.name}"


def _copy(entry: Named, whole: DetectionSet, folder: Path, to: str) -> bool:
    """Copy one picture; return whether it had to be turned upright."""
    assert whole.tree is not None
    data = whole.tree.read(entry.item.name)
    # made-up pictures, which come from no tree, are upright
    tree = whole.tree
    is_turned = isinstance(tree, Tree) and picture_size(tree, entry.item.name)[2] != 1
    if is_turned:
        pixels = decode.decode(data, entry.item.name, "RGB", None)
        suffix = Path(entry.name).suffix
        data = encoded(Image.fromarray(np.asarray(pixels)), suffix)
    target = folder / _place(entry, to)
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write_synced(target, data)
    return is_turned


def _write(folder: Path, name: str, data: bytes) -> None:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write_synced(target, data)


def _write_voc(
    folder: Path, named: Sequence[Named], classes: tuple[str, ...], problems: Problems
) -> None:
    """Write Annotations/*.xml, and ImageSets/Main where the data is divided."""
    lists: dict[str, list[str]] = {}
    for entry in named:
        stem = posixpath.splitext(entry.name)[0]
        lists.setdefault(entry.role, []).append(stem)
        _write(folder, f"Annotations/{stem}.xml", voc_xml(entry.item, entry.name, classes))
    for role, stems in lists.items():
        if role != POOL:
            _write(folder, f"ImageSets/Main/{role}.txt", ("\n".join(stems) + "\n").encode())


def voc_xml(item: Item, name: str, classes: Sequence[str]) -> bytes:
    """Return one picture's annotation as Pascal VOC has it."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "folder").text = "JPEGImages"
    ElementTree.SubElement(root, "filename").text = name
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", item.width), ("height", item.height), ("depth", 3)):
        ElementTree.SubElement(size, key).text = str(value)
    for box, label, ignore in zip(
        item.boxes.tolist(), item.labels.tolist(), item.ignore.tolist(), strict=True
    ):
        found = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(found, "name").text = classes[label]
        ElementTree.SubElement(found, "difficult").text = str(int(ignore))
        frame = ElementTree.SubElement(found, "bndbox")
        for key, number in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            ElementTree.SubElement(frame, key).text = f"{number:.9g}"
    ElementTree.indent(root, "\t")
    text: bytes = ElementTree.tostring(root, encoding="utf-8")
    return text + b"\n"


def _write_coco(
    folder: Path, named: Sequence[Named], classes: tuple[str, ...], problems: Problems
) -> None:
    for role in dict.fromkeys(entry.role for entry in named):
        mine = [entry for entry in named if entry.role == role]
        part = DetectionSet(classes, tuple(entry.item for entry in mine))
        document: dict[str, Any] = truth_document(part)
        for row, entry in zip(document["images"], mine, strict=True):
            row["file_name"] = entry.name
        name = "instances.json" if role == POOL else f"instances_{role}.json"
        _write(folder, f"annotations/{name}", files.json_bytes(document))


def _write_yolo(
    folder: Path, named: Sequence[Named], classes: tuple[str, ...], problems: Problems
) -> None:
    """Write labels/*.txt beside images/, and data.yaml; crowds cannot be said and are left out."""
    for entry in named:
        if bool(entry.item.ignore.any()):
            problems.add("crowd-lost", entry.item.name)
        place = _place(entry, "yolo").replace("images/", "labels/", 1)
        target = posixpath.splitext(place)[0] + ".txt"
        _write(folder, target, yolo_lines(entry.item).encode())
    lines = ["path: ."]
    roles = dict.fromkeys(entry.role for entry in named)
    # its readers demand train and val; an undivided set is both
    places = {role: f"images/{role}" for role in roles if role != POOL}
    if not places:
        places = {"train": "images", "val": "images"}
    lines += [f"{role}: {place}" for role, place in places.items()]
    lines += ["names:", *(f"  {label}: {_quoted(name)}" for label, name in enumerate(classes))]
    _write(folder, "data.yaml", ("\n".join(lines) + "\n").encode())


def yolo_lines(item: Item) -> str:
    """Return one picture's boxes as `class x y w h`, in shares of the picture's sides."""
    boxes = item.boxes.double()
    sides = torch.tensor([item.width, item.height], dtype=torch.float64)
    centres, extents = (
        (boxes[:, :2] + boxes[:, 2:]) / 2 / sides,
        (boxes[:, 2:] - boxes[:, :2]) / sides,
    )
    rows = torch.cat([centres, extents], 1).tolist()
    return "".join(
        f"{label} {' '.join(f'{value:.{YOLO_DIGITS}f}' for value in row)}\n"
        for row, label, ignore in zip(rows, item.labels.tolist(), item.ignore.tolist(), strict=True)
        if not ignore
    )


def _quoted(name: str) -> str:
    is_plain = (
        name.replace(" ", "").replace("-", "").replace("_", "").isalnum() and not name[0].isdigit()
    )
    return name if is_plain else "'" + name.replace("'", "''") + "'"
