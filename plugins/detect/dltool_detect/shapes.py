"""Made-up pictures with boxes, drawn from a seed: something to train on without any file."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from PIL import Image, ImageDraw

from dltool.device import generator
from dltool_detect.data import MADE_UP, DetectionSet, Item

CLASSES = ("circle", "square", "triangle")
SIDE = 96
COUNTS = {"train": 96, "val": 32, "test": 32}
MOST_OBJECTS = 3
LARGEST_OVERLAP = 4.0


@dataclass(frozen=True)
class Drawn:
    """Pictures by name, as PNG bytes."""

    pictures: Mapping[str, bytes] = field(repr=False)

    def read(self, name: str) -> bytes:
        """Return one picture as a PNG file."""
        return self.pictures[name]


def sets(seed: int = 0) -> dict[str, DetectionSet]:
    """Return 96 training, 32 validation and 32 test pictures of circles, squares and triangles."""
    pictures: dict[str, bytes] = {}
    return {split: _set(split, count, seed, pictures) for split, count in COUNTS.items()}


def _set(split: str, count: int, seed: int, pictures: dict[str, bytes]) -> DetectionSet:
    """Draw the pictures of one split into `pictures`, which all splits share."""
    items = []
    for index in range(count):
        name = f"{split}/{index:04d}.png"
        item, pictures[name] = _picture(name, generator(seed, MADE_UP, split, index))
        items.append(item)
    return DetectionSet(CLASSES, tuple(items), Drawn(pictures))


def _picture(name: str, stream: torch.Generator) -> tuple[Item, bytes]:
    def number(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=stream))

    ground = tuple(int(number(90, 220)) for _ in range(3))
    image = Image.new("RGB", (SIDE, SIDE), ground)
    pen = ImageDraw.Draw(image)
    boxes: list[tuple[float, float, float, float]] = []
    labels: list[int] = []
    for _ in range(1 + int(number(0, MOST_OBJECTS))):
        side = number(18, 40)
        left, top = number(0, SIDE - side), number(0, SIDE - side)
        box = (left, top, left + side, top + side)
        label = int(number(0, len(CLASSES)))
        if all(_apart(box, other) for other in boxes):
            far = [
                int(value + (110 if value < 128 else -110) + number(-30, 30)) for value in ground
            ]
            _draw(pen, CLASSES[label], box, (far[0], far[1], far[2]))
            boxes.append(box)
            labels.append(label)
    stored = io.BytesIO()
    image.save(stored, "PNG")
    found = torch.tensor(boxes).view(-1, 4)
    ignore = torch.zeros(len(boxes), dtype=torch.bool)
    item = Item(name, SIDE, SIDE, found, torch.tensor(labels, dtype=torch.int64), ignore)
    return item, stored.getvalue()


def _apart(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    tall = min(one[3], other[3]) - max(one[1], other[1])
    return min(wide, tall) < LARGEST_OVERLAP


def _draw(
    pen: ImageDraw.ImageDraw,
    kind: str,
    box: tuple[float, float, float, float],
    ink: tuple[int, int, int],
) -> None:
    left, top, right, bottom = box
    if kind == "circle":
        pen.ellipse(box, fill=ink)
    elif kind == "square":
        pen.rectangle(box, fill=ink)
    else:
        middle = math.floor((left + right) / 2)
        pen.polygon([(left, bottom), (right, bottom), (middle, top)], fill=ink)
