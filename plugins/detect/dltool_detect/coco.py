"""COCO: one JSON file for many pictures (Lin et al., ECCV 2014, arXiv:1405.0312)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from dltool.errors import DataError
from dltool_detect.formats import (
    Annotated,
    Box,
    Read,
    find_image,
    parse_json,
    split_of,
    split_of_stem,
)
from dltool_detect.problems import Problems
from dltool_detect.tree import Tree, folder, joined


def read(tree: Tree, problems: Problems, *, only: str | None = None) -> Read:
    """Read every COCO file of the tree, or one; the classes are in the order of their ids.

    Category ids may have gaps; what counts is the name.
    """
    images: list[Annotated] = []
    categories: dict[int, str] = {}
    used: set[str] = set()
    for name in [only] if only else tree.ending(".json"):
        try:
            document = _document(tree.read(name), name)
        except DataError as error:
            problems.add("bad-annotation", error.message)
            continue
        if document is None:
            continue
        own = _categories(document, name, problems)
        categories.update({key: label for key, label in own.items() if key not in categories})
        found = _images(tree, name, document, own, problems)
        images += [item for item in found if item.image not in used]
        used |= {item.image for item in found}
    for image in tree.images:
        if image not in used:
            problems.add("no-annotation", image)
    labels = {box.label for item in images for box in item.boxes}
    ordered = dict.fromkeys(label for _, label in sorted(categories.items()))
    for label in ordered:
        if label not in labels:
            problems.add("unused-class", label)
    # two files may give one id to two classes; none may fall out of the list
    rest = sorted(labels - set(ordered))
    return Read(images, (*(label for label in ordered if label in labels), *rest))


def _document(data: bytes, name: str) -> dict[str, Any] | None:
    """Return a COCO document, or None for JSON of another kind."""
    document = parse_json(data, name)
    if not isinstance(document, dict) or "images" not in document:
        return None
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key, []), list):
            raise DataError("E502", f"{name}: {key!r} is no list")
    return document


def _dicts(document: dict[str, Any], key: str, name: str, problems: Problems) -> Iterable[Any]:
    for index, entry in enumerate(document.get(key, [])):
        if isinstance(entry, dict):
            yield entry
        else:
            problems.add("bad-line", f"{name} {key}[{index}]")


def _categories(document: dict[str, Any], name: str, problems: Problems) -> dict[int, str]:
    found: dict[int, str] = {}
    for entry in _dicts(document, "categories", name, problems):
        key, label = entry.get("id"), entry.get("name")
        if not _is_id(key) or not isinstance(label, str) or not label.strip():
            problems.add("bad-line", f"{name} category {key}")
            continue
        found.setdefault(key, " ".join(label.split()))
    return found


def _images(
    tree: Tree, name: str, document: dict[str, Any], labels: dict[int, str], problems: Problems
) -> list[Annotated]:
    entries: dict[Any, tuple[str, str, tuple[int, int] | None]] = {}
    for entry in _dicts(document, "images", name, problems):
        key, said = entry.get("id"), entry.get("file_name")
        if not isinstance(said, str) or not _is_id(key) or key in entries:
            problems.add("bad-line", f"{name} image {key}")
            continue
        image = _find(tree, name, said)
        if image is None:
            problems.add("no-picture", said)
            continue
        entries[key] = (image, said, _size(entry))
    known = {entry.get("id") for entry in document["images"] if isinstance(entry, dict)}
    boxes: dict[Any, list[Box]] = {key: [] for key in entries}
    for entry in _dicts(document, "annotations", name, problems):
        _take(entry, name, labels, known, boxes, problems)
    role = split_of_stem(name)
    found = []
    for key, (image, said, size) in entries.items():
        if not boxes[key]:
            problems.add("empty", said)
        split = role if role != "all" else split_of(image)
        found.append(Annotated(image, split, tuple(boxes[key]), size, name))
    return found


def _take(
    entry: dict[str, Any],
    name: str,
    labels: dict[int, str],
    known: set[Any],
    boxes: dict[Any, list[Box]],
    problems: Problems,
) -> None:
    """Put one annotation's box to its picture."""
    key, where = entry.get("image_id"), f"{name} annotation {entry.get('id')}"
    if not _is_id(key) or key not in known:
        problems.add("no-picture", where)
        return
    if key not in boxes:
        return  # the picture itself is missing and told already
    label = labels.get(entry["category_id"]) if _is_id(entry.get("category_id")) else None
    if label is None:
        problems.add("unknown-class", f"{where} category {entry.get('category_id')}")
        return
    box = entry.get("bbox")
    if not isinstance(box, list) or not box:
        problems.add("no-box", where)
        return
    if len(box) != 4 or not all(_is_number(value) for value in box):
        problems.add("not-a-number", where)
        return
    x, y, width, height = map(float, box)
    if width <= 0 or height <= 0:
        problems.add("degenerate", where)  # a negative width is no swapped corner
        return
    area: Any = entry.get("area")
    boxes[key].append(
        Box(
            (x, y, x + width, y + height),
            label,
            ignore=bool(entry.get("iscrowd", 0)),
            area=float(area) if _is_number(area) else None,
        )
    )


def _find(tree: Tree, name: str, said: str) -> str | None:
    here = folder(name)
    for place in (joined(here, said), joined(here, "..", said), joined(said)):
        if place in tree.places:
            return place
    role = split_of_stem(name)
    above = folder(here)
    folders = [here, *(joined(base, sub) for base in (here, above) for sub in ("images", "val"))]
    mine = [item for item in tree.images if split_of(item) == role and role != "all"]
    same = [item for item in mine if item.rpartition("/")[2] == said.rpartition("/")[2]]
    return same[0] if len(same) == 1 else find_image(tree, said, folders)


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    width: Any = entry.get("width")
    height: Any = entry.get("height")
    if _is_number(width) and _is_number(height) and width > 0 and height > 0:
        return int(width), int(height)
    return None


def _is_id(value: object) -> bool:
    # some tools write ids as text
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    try:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    except OverflowError:
        return False
