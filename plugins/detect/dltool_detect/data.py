"""Data sets of pictures with boxes, whatever their format, split and ready to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dltool.data import decode
from dltool.device import generator
from dltool.errors import ConfigError, DataError
from dltool_detect import formats
from dltool_detect.formats import POOL, Annotated
from dltool_detect.problems import Problems
from dltool_detect.repair import picture_size, repaired
from dltool_detect.tree import Tree, open_tree

ROLES = ("train", "val", "test")
MADE_UP = "shapes"


class Files(Protocol):
    """Where pictures come from: a `Tree`, or made-up ones."""

    def read(self, name: str) -> bytes:
        """Return a whole file."""
        ...


@dataclass(frozen=True)
class Item:
    """One picture and its boxes.

    Args:
        name: the picture's name in its folder or zip.
        width, height: of the upright picture, in pixels.
        boxes: (N, 4) float32, x1 y1 x2 y2 in pixels of the upright picture.
        labels: (N,) int64, index into the set's classes.
        ignore: (N,) bool, crowd (COCO) or difficult (VOC).
        areas: (N,) float32, of the object where the annotation tells it, else of the box; None
            stands for the boxes' own.
    """

    name: str
    width: int
    height: int
    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    areas: Tensor | None = None


@dataclass(frozen=True)
class DetectionSet:
    """Pictures with boxes of one set of classes; `len` is the number of pictures."""

    classes: tuple[str, ...]
    items: tuple[Item, ...]
    tree: Files | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.items)

    def read(self, index: int) -> Tensor:
        """Return one picture upright, uint8 (3, H, W), RGB.

        Raises:
            DataError: E502, it cannot be read.
        """
        assert self.tree is not None
        return read_picture(self.tree.read(self.items[index].name), self.items[index].name)

    def take(self, indices: Sequence[int]) -> DetectionSet:
        """Return the set of these pictures alone."""
        return DetectionSet(self.classes, tuple(self.items[i] for i in indices), self.tree)

    @property
    def num_boxes(self) -> int:
        """The number of boxes that count, without crowds and difficult ones."""
        return sum(int((~item.ignore).sum()) for item in self.items)


@dataclass(frozen=True)
class Splits:
    """The parts of a data set; `test` is None where the data has none."""

    train: DetectionSet
    val: DetectionSet
    test: DetectionSet | None
    problems: Problems


@dataclass(frozen=True)
class Pools:
    """A data set as its files divide it: by train, val and test, or undivided as all."""

    pools: dict[str, DetectionSet]
    problems: Problems
    format: str
    classes: tuple[str, ...]

    def together(self) -> DetectionSet:
        """Return every picture as one set."""
        first = next(iter(self.pools.values()))
        items = [item for pool in self.pools.values() for item in pool.items]
        return DetectionSet(self.classes, tuple(items), first.tree)

    def choose(self, split: str) -> tuple[str, DetectionSet]:
        """Return the split of that name; an undivided data set is the split asked for.

        Raises:
            DataError: E503, the data has other splits only.
        """
        if split == POOL:
            return POOL, self.together()
        if split in self.pools:
            return split, self.pools[split]
        if set(self.pools) == {POOL}:
            return POOL, self.pools[POOL]
        have = ", ".join(self.pools)
        raise DataError(
            "E503", f"the data has no {split} part", expected=have, cure=f"--split {have}, or all"
        )


def read_picture(data: bytes, name: str) -> Tensor:
    """Decode a picture upright as uint8 (3, H, W), RGB.

    Raises:
        DataError: E502, it is no picture, damaged, or too large.
    """
    pixels = decode.decode(data, name, "RGB", None)
    # a copy: the decoder's memory is read-only
    return torch.tensor(pixels).permute(2, 0, 1)


def read(path: str, *, format: str = "auto", classes: Sequence[str] = ()) -> Pools:
    """Read a data set and check every box against its picture.

    Args:
        path: a folder, a zip, a COCO JSON file beside its pictures, a `data.yaml`, or `shapes` for
            made-up pictures.
        format: voc, coco, yolo or auto.
        classes: the classes and their order; by default all that have boxes.

    Raises:
        DataError: E501 the path is missing, E502 it is no data set, E503 nothing is left of it,
            E506 it has none of the classes, E505 the zip is unsafe.
    """
    if path == MADE_UP:
        from dltool_detect import shapes

        return Pools(shapes.sets(), Problems(), MADE_UP, shapes.CLASSES)
    file = Path(path)
    tree, only = _opened(file)
    problems = Problems()
    chosen = format
    if format == "auto":
        chosen = "coco" if only else formats.detect_format(tree)
    found = formats.read(tree, chosen, problems, only=only)
    names = _classes(found.classes, classes, path)
    pools: dict[str, list[Item]] = {}
    for annotated in found.images:
        item = _item(tree, annotated, names, problems)
        if item is not None:
            pools.setdefault(annotated.split, []).append(item)
    if len(pools) > 1 and POOL in pools:
        pools.setdefault("train", []).extend(pools.pop(POOL))
    if not any(len(item.boxes) for items in pools.values() for item in items):
        raise _nothing_left(path, chosen, tree, problems)
    sets = {
        role: DetectionSet(names, tuple(pools[role]), tree)
        for role in (*ROLES, POOL)
        if role in pools
    }
    return Pools(sets, problems, chosen, names)


def _opened(file: Path) -> tuple[Tree, str | None]:
    """Return the files of a data set, and the one COCO file that was named."""
    if file.suffix.lower() in (".yaml", ".yml") and file.is_file():
        return open_tree(file.resolve().parent), None
    if file.suffix.lower() != ".json" or not file.is_file():
        return open_tree(file), None
    tree = open_tree(file.resolve().parent)
    if tree.images:
        return tree, file.name
    # annotations/instances_val.json, with the pictures in a folder beside annotations
    above = file.resolve().parent
    return open_tree(above.parent), f"{above.name}/{file.name}"


def load(
    path: str,
    *,
    format: str = "auto",
    classes: tuple[str, ...] = (),
    val_split: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Read a data set for training: its own splits, or seeded ones.

    Args:
        val_split: share of the training pictures that becomes `val` where the data has none.
        seed: chooses those pictures; the same seed gives the same ones everywhere.

    Raises:
        ConfigError: E202, `val_split` leaves one part empty.
        DataError: see `read`; E503 also where there is nothing to train on.
    """
    if not 0 < val_split < 1:
        raise ConfigError("E202", "--val-split is out of range", received=val_split, expected="0…1")
    pools = read(path, format=format, classes=classes)
    sets = pools.pools
    train = sets.get("train") or sets.get(POOL)
    if train is None:
        raise DataError(
            "E503", f"{path} has no training pictures", received=", ".join(sets), expected="train"
        )
    val = sets.get("val")
    if val is None:
        train, val = _divided(train, val_split, seed)
    return Splits(train, val, sets.get("test"), pools.problems)


def _divided(whole: DetectionSet, share: float, seed: int) -> tuple[DetectionSet, DetectionSet]:
    count = round(len(whole) * share)
    if len(whole) < 2:
        raise DataError("E503", "one picture cannot be divided into training and validation")
    count = min(max(count, 1), len(whole) - 1)
    order = torch.randperm(len(whole), generator=generator(seed, "detect", "split")).tolist()
    return whole.take(sorted(order[count:])), whole.take(sorted(order[:count]))


def _classes(found: Sequence[str], asked: Sequence[str], path: str) -> tuple[str, ...]:
    if not asked:
        return tuple(found)
    if found and not set(asked) & set(found):
        raise DataError(
            "E506",
            f"{path} has none of these classes",
            received=", ".join(list(asked)[:10]),
            expected=f"some of {', '.join(list(found)[:10])}",
        )
    return tuple(dict.fromkeys(asked))


def _item(
    tree: Tree, annotated: Annotated, classes: tuple[str, ...], problems: Problems
) -> Item | None:
    try:
        size = picture_size(tree, annotated.image)
    except DataError as error:
        problems.add("bad-picture", error.message)
        return None
    boxes, labels, ignore, areas = repaired(annotated, size, classes, problems)
    return Item(annotated.image, size[0], size[1], boxes, labels, ignore, areas)


def _nothing_left(path: str, format: str, tree: Tree, problems: Problems) -> DataError:
    told = "; ".join(problems.lines(shown=2))
    return DataError(
        "E503",
        f"{path} has no usable box: {len(tree.images):,} pictures, read as {format}"
        + (f"; {told}" if told else ""),
        expected="pictures with boxes on them",
        cure="mend the annotations, or give their --format",
    )
