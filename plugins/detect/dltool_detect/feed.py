"""From a data set to training samples, and from a detector to what it finds on a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor

from dltool.console import Console
from dltool.errors import DataError
from dltool_detect import data as data_sets
from dltool_detect.config import TrainConfig
from dltool_detect.data import DetectionSet, Splits
from dltool_detect.detections import Detections
from dltool_detect.models.build import Detector
from dltool_detect.resize import resize_image
from dltool_detect.transforms import Sample

RESIDENT_BYTES = 2 << 30
EVALUATION_BATCH = 16
# below what `evaluate` counts nothing is lost, and the tables stay small
EVALUATION_SCORE = 0.01
SHOWN_PROBLEMS = 3


@dataclass(frozen=True)
class Pictures(Sequence[Sample]):
    """The pictures of a set as training samples, stretched to one square.

    They lie in memory when they fit, else each is read when it is wanted. Crowds and difficult
    boxes are left out.
    """

    content: DetectionSet
    side: int
    kept: tuple[Tensor, ...]

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.content)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        """Return one sample, or several."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        item = self.content.items[index]
        scale = item.boxes.new_tensor([self.side / item.width, self.side / item.height] * 2)
        counted = ~item.ignore
        return Sample(self.image(index), (item.boxes * scale)[counted], item.labels[counted])

    def image(self, index: int) -> Tensor:
        """Return one picture, (3, side, side) uint8."""
        if self.kept:
            return self.kept[index]
        return resize_image(self.content.read(index), self.side)


def load(config: TrainConfig, console: Console) -> Splits:
    """Read the data of a training and tell what was mended or left out.

    Raises:
        DataError: it cannot be used.
    """
    found = data_sets.load(
        config.data,
        format=config.format,
        classes=config.class_names,
        val_split=config.val_split,
        seed=config.seed,
    )
    for line in found.problems.lines(SHOWN_PROBLEMS):
        console.warn(line)
    return found


def pictures(content: DetectionSet, side: int, name: str, console: Console) -> Pictures:
    """Read a split's pictures; those that cannot be decoded are left out and named.

    Raises:
        DataError: E503, no picture with a box is left.
    """
    fits = len(content) * 3 * side * side <= RESIDENT_BYTES
    whole, kept, broken = [], [], []
    with console.progress(len(content), f"reading {name}", "image") as bar:
        for index in range(len(content)):
            try:
                image = content.read(index)
            except DataError as error:
                broken.append(error.message)
            else:
                whole.append(index)
                if fits:
                    kept.append(resize_image(image, side))
            bar.advance()
    for message in broken[:SHOWN_PROBLEMS]:
        console.warn(f"left out of {name}: {message}")
    if len(broken) > SHOWN_PROBLEMS:
        console.warn(f"left out of {name}: {len(broken) - SHOWN_PROBLEMS} more pictures")
    left = content.take(whole) if broken else content
    if left.num_boxes == 0:
        raise DataError(
            "E503",
            f"no picture with a box is left in {name}",
            received=f"{len(content)} pictures, {len(broken)} of them broken",
            cure="see dltool detect data PATH",
        )
    return Pictures(left, side, tuple(kept))


def facts(splits: Splits, side: int) -> dict[str, Any]:
    """Return what a run writes down about its data: classes, counts, and a fingerprint of all."""
    digest = hashlib.sha256(repr((splits.train.classes, side)).encode())
    counts = {}
    for name in ("train", "val", "test"):
        part: DetectionSet | None = getattr(splits, name)
        if part is None:
            continue
        counts[name] = {"images": len(part), "boxes": part.num_boxes}
        for item in part.items:
            digest.update(repr((name, item.name, item.width, item.height)).encode())
            digest.update(item.boxes.numpy().tobytes())
            digest.update(item.labels.numpy().tobytes())
    return {
        "classes": list(splits.train.classes),
        "counts": counts,
        "repairs": splits.problems.counts,
        "fingerprint": digest.hexdigest(),
    }


def found_on(
    detector: Detector, source: Pictures, *, min_score: float = EVALUATION_SCORE
) -> list[Detections]:
    """Return what the detector finds on each picture, boxes in pixels of the picture as it is.

    The pictures have the detector's size already, by the same function that it would use.
    """
    found: list[Detections] = []
    for batch in _chunks(range(len(source)), EVALUATION_BATCH):
        images = [source.image(index) for index in batch]
        for index, each in zip(batch, detector.detect(images, min_score=min_score), strict=True):
            item = source.content.items[index]
            scale = torch.tensor([item.width / source.side, item.height / source.side] * 2)
            found.append(Detections(each.boxes * scale, each.scores, each.labels))
    return found


def _chunks(places: range, size: int) -> Iterator[range]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def usual_boxes(train: DetectionSet, asked: DetectionSet) -> list[Detections]:
    """Return the baseline that sees nothing: the middle box of each class, on every picture.

    A class's middle box is the median of its boxes relative to their pictures; its score is the
    class's share of the boxes.
    """
    shares = [
        item.boxes / torch.tensor([item.width, item.height, item.width, item.height])
        for item in train.items
    ]
    boxes, labels = torch.cat(shares), torch.cat([item.labels for item in train.items])
    used = [label for label in range(len(train.classes)) if bool((labels == label).any())]
    middle = torch.stack([boxes[labels == label].median(0).values for label in used])
    scores = torch.stack([(labels == label).float().mean() for label in used])
    order = scores.argsort(descending=True)
    names = torch.tensor(used)[order]
    return [
        Detections(
            middle[order] * torch.tensor([item.width, item.height, item.width, item.height]),
            scores[order],
            names,
        )
        for item in asked.items
    ]
