"""Hold annotations against their pictures: mend what can be mended, leave the rest out."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from dltool.data import decode
from dltool.errors import DataError
from dltool_detect.formats import Annotated, Box
from dltool_detect.problems import Problems
from dltool_detect.tree import Tree

Array = npt.NDArray[np.float64]

JPEG_END, PNG_END = b"\xff\xd9", b"IEND"
# a box may stand over the edge by rounding; what is more is told
OVERHANG_PIXELS = 1.0
SAME_SHAPE = 0.01

# (x1, y1, x2, y2) of the stored picture (W, H) to those of the upright one, by EXIF orientation
TURNS: Mapping[int, Callable[[Array, int, int], list[Array]]] = {
    5: lambda b, w, h: [b[:, 1], b[:, 0], b[:, 3], b[:, 2]],
    6: lambda b, w, h: [h - b[:, 3], b[:, 0], h - b[:, 1], b[:, 2]],
    7: lambda b, w, h: [h - b[:, 3], w - b[:, 2], h - b[:, 1], w - b[:, 0]],
    8: lambda b, w, h: [b[:, 1], w - b[:, 2], b[:, 3], w - b[:, 0]],
}


def picture_size(tree: Tree, name: str) -> tuple[int, int, int]:
    """Return width and height of a picture once upright, and its EXIF orientation (1: as stored).

    Only the header is read, and the end mark; a picture without one is decoded to be sure.

    Raises:
        DataError: E502, it cannot be read.
    """
    head, tail = tree.ends(name)
    try:
        (height, width), _ = decode.header(head, name)
    except DataError:
        head = tree.read(name)  # a format that keeps its header at the end, or a long profile
        (height, width), _ = decode.header(head, name)
    whole = JPEG_END if head.startswith(b"\xff\xd8") else PNG_END
    if head.startswith((b"\xff\xd8", b"\x89PNG")) and whole not in tail:
        decode.decode(tree.read(name), name, "RGB", None)
    return width, height, _orientation(head)


def _orientation(head: bytes) -> int:
    with decode.quiet(), Image.open(io.BytesIO(head), formats=decode.FORMATS) as image:
        if image.format == "TIFF":
            return 1
        try:
            return int(image.getexif().get(decode.ORIENTATION_TAG, 1))
        except Exception:  # damaged EXIF data does not make a picture unreadable
            return 1


def repaired(
    item: Annotated,
    size: tuple[int, int, int],
    classes: Sequence[str],
    problems: Problems,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return boxes (N, 4) in pixels of the upright picture, labels, ignore and areas (N,).

    Args:
        size: width, height and orientation from `picture_size`.
        classes: the names that labels are indices into; other boxes are left out.
    """
    known = [box for box in item.boxes if box.label in classes]
    for box in item.boxes:
        if box.label not in classes:
            problems.add("unknown-class", f"{item.source}: {box.label}")
    corners = np.array([box.corners for box in known], np.float64).reshape(-1, 4)
    placed, stretch = _placed(corners, item, size, problems)
    boxes, kept = _inside(placed, size, item.source, problems)
    return _tensors(boxes, [known[index] for index in kept], classes, stretch)


def _placed(
    corners: Array, item: Annotated, size: tuple[int, int, int], problems: Problems
) -> tuple[Array, float]:
    """Bring corners into pixels of the upright picture; return how much areas grew with it."""
    width, height, orientation = size
    swapped = (corners[:, 2] < corners[:, 0]) | (corners[:, 3] < corners[:, 1])
    for _ in range(int(swapped.sum())):
        problems.add("swapped", item.source)
    corners = np.concatenate(
        [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1
    )
    if item.is_relative:
        return corners * [width, height, width, height], 1.0
    if item.size is None:
        problems.add("no-size", item.source)
        return corners, 1.0
    if item.size == (width, height):
        return corners, 1.0
    if item.size == (height, width) and orientation in TURNS:
        problems.add("turned", item.source)
        return np.stack(TURNS[orientation](corners, *item.size), 1), 1.0
    return _resized(corners, item, (width, height), problems)


def _resized(
    corners: Array, item: Annotated, size: tuple[int, int], problems: Problems
) -> tuple[Array, float]:
    """Scale boxes that only fit the size the annotation tells, when that has the same shape."""
    assert item.size is not None
    scale = np.array(size) / item.size
    told = f"{item.source}: {item.size[0]}×{item.size[1]}, is {size[0]}×{size[1]}"
    beyond = (corners[:, 2:] > np.array(size) + OVERHANG_PIXELS).any()
    fits = (corners[:, 2:] <= np.array(item.size) + OVERHANG_PIXELS).all()
    if beyond and fits and abs(scale[0] / scale[1] - 1) <= SAME_SHAPE:
        problems.add("scaled", told)
        return corners * np.tile(scale, 2), float(scale.prod())
    problems.add("wrong-size", told)
    return corners, 1.0


def _inside(
    corners: Array, size: tuple[int, int, int], source: str, problems: Problems
) -> tuple[Array, list[int]]:
    """Cut boxes at the picture's edges; return those that are left and their positions."""
    edges = np.array([size[0], size[1], size[0], size[1]], np.float64)
    cut = np.clip(corners, 0, edges)
    kept = []
    for index, (before, after) in enumerate(zip(corners, cut, strict=True)):
        told = f"{source}: {', '.join(f'{value:g}' for value in before)}"
        if before[2] <= before[0] or before[3] <= before[1]:
            problems.add("degenerate", told)
        elif after[2] <= after[0] or after[3] <= after[1]:
            problems.add("outside", told)
        else:
            kept.append(index)
            if np.abs(before - after).max() > OVERHANG_PIXELS:
                problems.add("clipped", told)
    return cut[kept], kept


def _tensors(
    corners: Array, boxes: Sequence[Box], classes: Sequence[str], stretch: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sides = corners[:, 2:] - corners[:, :2]
    areas = [
        side.prod() if box.area is None else box.area * stretch
        for box, side in zip(boxes, sides, strict=True)
    ]
    return (
        torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        torch.tensor([classes.index(box.label) for box in boxes], dtype=torch.int64),
        torch.tensor([box.ignore for box in boxes], dtype=torch.bool),
        torch.tensor(areas, dtype=torch.float32),
    )
