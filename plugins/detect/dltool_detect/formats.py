"""What the annotation formats have in common, and which one a data set is written in.

Boxes are (x1, y1, x2, y2) with x2 and y2 on the far edge of the last pixel, so that a picture of
width W spans 0 to W. The numbers of a Pascal VOC file are taken as they stand (LabelImg writes
edges), and so voc → coco → yolo → voc gives the same numbers again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dltool.data.images import SPLITS
from dltool.errors import ConfigError, DataError
from dltool_detect.problems import Problems
from dltool_detect.tree import Tree, folder, stem

FORMATS = ("voc", "coco", "yolo")
POOL = "all"

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Box:
    """One box as an annotation gives it.

    Args:
        corners: x1, y1, x2, y2 in pixels, or in shares of the sides (see `Annotated`).
        ignore: a crowd (COCO) or difficult (VOC): no training target, no penalty when found.
        area: pixels of the object where the file tells it (COCO: of the mask).
    """

    corners: Corners
    label: str
    ignore: bool = False
    area: float | None = None


@dataclass(frozen=True)
class Annotated:
    """One picture with its boxes, before anything is checked.

    Args:
        image: the picture's name in the tree.
        split: train, val, test, or all where nothing tells.
        size: (width, height) as the annotation says, or None.
        source: the annotation's name, for reports.
        is_relative: corners are shares of the sides.
    """

    image: str
    split: str
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None
    source: str
    is_relative: bool = False


@dataclass(frozen=True)
class Read:
    """What a reader found: pictures, and the classes in the format's own order."""

    images: list[Annotated]
    classes: tuple[str, ...]


def split_of(name: str) -> str:
    """Tell from the folders of a name to which split it belongs: train, val, test or all."""
    for part in reversed(folder(name).lower().split("/")):
        role = SPLITS.get(re.sub(r"\d{4}$", "", part))
        if role:
            return role
    return POOL


def split_of_stem(name: str) -> str:
    """Tell from a file's own name, as instances_val2017.json, or else from its folders."""
    for word in re.split(r"[^a-z]+", stem(name).lower()):
        if word in SPLITS:
            return SPLITS[word]
    return split_of(name)


def find_image(tree: Tree, name: str, places: Sequence[str]) -> str | None:
    """Return the picture that an annotation means: in one of `places`, or the only one of its stem.

    Args:
        name: the picture's file name, with or without its suffix and folders.
        places: folders to look in, the most likely first.
    """
    candidates = tree.images_by_stem.get(stem(name), [])
    for place in places:
        here = [image for image in candidates if folder(image) == place]
        exact = [image for image in here if image.endswith("/" + name) or image == name]
        if here:
            return (exact or here)[0]
    return candidates[0] if len(candidates) == 1 else None


def detect_format(tree: Tree) -> str:
    """Tell a data set's format from its files.

    Raises:
        DataError: E503, there are no annotations of any known kind.
    """
    if any(stem(name) in tree.images_by_stem for name in tree.ending(".xml")):
        return "voc"
    if any(b'"annotations"' in tree.read(name) for name in tree.ending(".json")):
        return "coco"
    if any(stem(name) in tree.images_by_stem for name in tree.ending(".txt")):
        return "yolo"
    if tree.ending(".xml"):
        return "voc"
    raise DataError(
        "E503",
        f"{tree.path} holds no annotations of boxes",
        expected=f"{len(tree.images):,} pictures with VOC .xml, COCO .json or YOLO .txt files",
        cure="name the folder above pictures and annotations, or give --format",
    )


def read(tree: Tree, format: str, problems: Problems, *, only: str | None = None) -> Read:
    """Read the annotations of a data set.

    Args:
        format: voc, coco, yolo, or auto.
        only: the one COCO file to read; by default every one.

    Raises:
        ConfigError: E206, the format is not known.
        DataError: E503, there is nothing that this format could be.
    """
    chosen = detect_format(tree) if format == "auto" else format
    if chosen == "voc":
        from dltool_detect import voc

        return voc.read(tree, problems)
    if chosen == "coco":
        from dltool_detect import coco

        return coco.read(tree, problems, only=only)
    if chosen == "yolo":
        from dltool_detect import yolo

        return yolo.read(tree, problems)
    raise ConfigError(
        "E206", f"--format {format!r} is not known", expected=f"auto, {', '.join(FORMATS)}"
    )


def parse_json(data: bytes, name: str) -> Any:
    """Parse JSON that a stranger wrote.

    Raises:
        DataError: E502, it is none.
    """
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError("E502", f"{name} is not JSON: {reason}") from error
