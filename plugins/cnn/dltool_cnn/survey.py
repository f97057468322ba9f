"""Look at every image of a data set once: size, kind, damage, and what it is a copy of."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dltool.console import Console
from dltool.data import images as image_files
from dltool.data import named
from dltool.data.decode import ImageItem, ItemReader, decode, quiet
from dltool.errors import DataError, closest

WORKERS = 2
CHUNK = 256
MOST_LISTED = 200


@dataclass(frozen=True)
class Seen:
    """One image that can be read.

    `name` is its path, or split and number in a named set; `digest` depends on every pixel, on
    size and mode, and on nothing else.
    """

    split: str
    name: str
    label: int
    size: tuple[int, int]
    mode: str
    digest: bytes


@dataclass
class Survey:
    """What a data set holds; `source` is where it lies."""

    classes: tuple[str, ...]
    source: str
    seen: list[Seen] = field(default_factory=list)
    broken: list[dict[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def splits(self) -> dict[str, list[Seen]]:
        """The images by split, train first."""
        order = {"train": 0, "all": 0, "val": 1, "test": 2}
        found: dict[str, list[Seen]] = {}
        for each in self.seen:
            found.setdefault(each.split, []).append(each)
        return dict(sorted(found.items(), key=lambda pair: order[pair[0]]))


def look(data: str, data_root: Path | None, console: Console) -> Survey:
    """Read a named set, a folder or a zip whole.

    Raises:
        DataError: it is not there, holds no images, or none that can be read.
    """
    if data in named.NAMED:
        return _named(data, data_root, console)
    path = Path(data)
    if not path.exists():
        near = closest(data, named.NAMED)
        raise DataError(
            "E501",
            f"there is no data set and no path {data!r}",
            expected=f"one of {', '.join(named.NAMED)}, an image folder or a zip",
            cure=f"did you mean {near}?" if near else "see dltool data list",
        )
    tree = image_files.scan(path, allow_one_class=True)
    survey = Survey(tree.classes, str(path), ignored=tree.ignored)
    pairs = [(split, item) for split, items in tree.splits.items() for item in items]
    with quiet(), console.progress(len(pairs), "reading images", "img") as bar:
        for split, item, found in _looked(pairs):
            bar.advance()
            if isinstance(found, Seen):
                survey.seen.append(found)
            else:
                reason = found.message.removeprefix(f"{item.name} ")
                survey.broken.append({"split": split, "file": item.name, "reason": reason})
    if not survey.seen:
        first = survey.broken[0]
        raise DataError(
            "E502",
            f"none of the {len(pairs):,} images can be read; the first: {first['file']} "
            f"{first['reason']}",
        )
    return survey


def _looked(
    pairs: Sequence[tuple[str, ImageItem]],
) -> Iterator[tuple[str, ImageItem, Seen | DataError]]:
    """Decode at full size in threads, in order; each holds one image at a time."""
    reader = ItemReader()

    def read(pair: tuple[str, ImageItem]) -> Seen | DataError:
        split, item = pair
        try:
            pixels = decode(reader.read(item), item.name, None, None)
        except DataError as error:
            return error
        return _seen(split, item.name, item.label, pixels)

    with ThreadPoolExecutor(WORKERS, "decode") as pool:
        for start in range(0, len(pairs), CHUNK):
            some = pairs[start : start + CHUNK]
            for (split, item), found in zip(some, pool.map(read, some), strict=True):
                yield split, item, found


def _named(data: str, data_root: Path | None, console: Console) -> Survey:
    loaded = named.load_named(data, data_root, console)
    survey = Survey(tuple(loaded.classes), loaded.where)
    parts: dict[str, tuple[Tensor | None, Tensor | None]]
    parts = {"train": (loaded.train_images, loaded.train_labels)}
    parts["test"] = (loaded.test_images, loaded.test_labels)
    if loaded.test_images is None:
        parts = {"all": parts["train"]}
    for split, (images, labels) in parts.items():
        assert images is not None
        assert labels is not None
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()  # (N, H, W, C)
        for number, (each, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            survey.seen.append(_seen(split, f"{split}[{number}]", label, each))
    return survey


def _seen(split: str, name: str, label: int, pixels: npt.NDArray[np.uint8]) -> Seen:
    height, width, channels = pixels.shape
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    mode = "L" if channels == 1 else "RGB"
    return Seen(split, name, label, (height, width), mode, digest.digest())


def counts(survey: Survey) -> dict[str, Any]:
    """Return images, classes and balance of every split."""
    found = {}
    for split, seen in survey.splits.items():
        by_label = Counter(each.label for each in seen)
        by_class = {name: by_label.get(label, 0) for label, name in enumerate(survey.classes)}
        largest, smallest = max(by_class.values()), min(by_class.values())
        found[split] = {
            "images": len(seen),
            "broken": sum(row["split"] == split for row in survey.broken),
            "by_class": by_class,
            "majority_share": largest / len(seen),
            "imbalance": largest / smallest if smallest else None,
        }
    return found


def sizes(survey: Survey) -> dict[str, Any]:
    """Return how often each size and mode occurs, and the extremes of height and width."""
    shapes = Counter((*each.size, each.mode) for each in survey.seen)
    heights, widths = zip(*(each.size for each in survey.seen), strict=True)
    return {
        "different": len(shapes),
        "commonest": [
            {"height": height, "width": width, "mode": mode, "images": number}
            for (height, width, mode), number in shapes.most_common(10)
        ],
        "height": [min(heights), max(heights)],
        "width": [min(widths), max(widths)],
    }


def copies(survey: Survey) -> dict[str, Any]:
    """Return the images that are the same in every pixel, within and across splits.

    `across` counts for each pair of splits the images of the second that the first holds too;
    `conflicting` the groups whose images carry different classes.
    """
    by_digest: dict[bytes, list[Seen]] = {}
    for each in survey.seen:
        by_digest.setdefault(each.digest, []).append(each)
    groups = [group for group in by_digest.values() if len(group) > 1]
    within: Counter[str] = Counter()
    across: Counter[str] = Counter()
    for group in groups:
        by_split = Counter(each.split for each in group)
        for split, number in by_split.items():
            within[split] += number - 1
        for first, second in combinations((s for s in survey.splits if s in by_split), 2):
            across[f"{first}-{second}"] += by_split[second]
    conflicting = [group for group in groups if len({each.label for each in group}) > 1]
    # what misleads most comes first: another class, then another split
    groups.sort(key=lambda group: (-len({e.label for e in group}), -len({e.split for e in group})))
    return {
        "groups": len(groups),
        "within": {split: within[split] for split in survey.splits},
        "across": {
            f"{first}-{second}": across[f"{first}-{second}"]
            for first, second in combinations(survey.splits, 2)
        },
        "conflicting": len(conflicting),
        "listed": [_group(group, survey.classes) for group in groups[:MOST_LISTED]],
    }


def _group(group: Sequence[Seen], classes: Sequence[str]) -> list[Mapping[str, str]]:
    return [
        {"file": each.name, "split": each.split, "class": classes[each.label]} for each in group
    ]
