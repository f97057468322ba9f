"""Guards before a detector's training: on the boxes, the splits and one batch."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import nn
from torch.optim import Optimizer

from dltool.guards.classifier import untouched
from dltool.guards.findings import Finding
from dltool.guards.labels import check_leak
from dltool_detect.data import DetectionSet, Splits
from dltool_detect.models.build import Detector
from dltool_detect.transforms import Batch

# below this side an object covers less than one place of the finest map (stride 8) and its pixels
SMALLEST_OBJECT = 6.0
SMALL_SHARE = 0.1
# fewer values a channel make the statistics of batch normalisation noise (Wu and He, 2018)
FEWEST_VALUES = 32


def check_data(splits: Splits, side: int) -> list[Finding]:
    """Check classes, objects that vanish at the size of training, and pictures in two splits."""
    found = _classes(splits)
    found += _vanishing(splits.train, side)
    seen = _digests(splits.train)
    for name, part in (("val", splits.val), ("test", splits.test)):
        if part is not None:
            overlap = sum(digest in seen for digest in _digests(part, keep_all=True))
            found += check_leak(overlap, len(part), name)
    return found


def _classes(splits: Splits) -> list[Finding]:
    names = splits.train.classes
    counts = _counts(splits.train)
    missing = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if not missing:
        return []
    return [
        Finding(
            "G-B01",
            "fail" if len(missing) == len(names) else "warn",
            f"no training picture shows {', '.join(missing[:5])} "
            f"({len(missing)} of {len(names)} classes)",
            "add pictures of them, or name the other classes with --classes",
        )
    ]


def _counts(part: DetectionSet) -> list[int]:
    labels = torch.cat([item.labels[~item.ignore] for item in part.items])
    return list(torch.bincount(labels, minlength=len(part.classes)).tolist())


def _vanishing(train: DetectionSet, side: int) -> list[Finding]:
    """Name objects that are too small to be seen once the pictures have their training size."""
    small = total = 0
    for item in train.items:
        scale = item.boxes.new_tensor([side / item.width, side / item.height])
        sides = ((item.boxes[:, 2:] - item.boxes[:, :2]) * scale).prod(1).clamp(min=0).sqrt()
        small += int((sides < SMALLEST_OBJECT).sum())
        total += len(sides)
    share = small / max(total, 1)
    if share <= SMALL_SHARE:
        return []
    return [
        Finding(
            "G-B02",
            "warn",
            f"{small:,} of {total:,} training boxes ({share:.0%}, limit {SMALL_SHARE:.0%}) are "
            f"below {SMALLEST_OBJECT:g} pixels at --image-size {side}",
            f"use --image-size {min(2 * side, 2048)}",
        )
    ]


def _digests(part: DetectionSet, *, keep_all: bool = False) -> list[bytes] | set[bytes]:
    """Return a digest of each picture's file."""
    files = part.tree
    if files is None:
        return []
    found = [hashlib.blake2b(files.read(item.name)).digest() for item in part.items]
    return found if keep_all else set(found)


def check_batch(detector: Detector, optimizer: Optimizer, batch: Batch) -> list[Finding]:
    """Check one batch: loss and gradients finite, every weight reached, boxes inside the pictures.

    Everything that is touched is put back.
    """
    with untouched(detector):
        return [
            *_boxes(batch),
            *_loss(detector, optimizer, batch),
            *_normalisation(detector, batch),
        ]


def _boxes(batch: Batch) -> list[Finding]:
    side = batch.images.shape[-1]
    boxes = batch.boxes[batch.labels >= 0]
    if len(boxes) == 0:
        return [
            Finding(
                "G-B03",
                "warn",
                "the first batch shows no object at all",
                "add pictures with objects, or enlarge --batch-size",
            )
        ]
    relative = float(boxes.max()) <= 1.5
    outside = int(((boxes < -1) | (boxes > side + 1)).any(-1).sum())
    turned = int((boxes[:, 2:] <= boxes[:, :2]).any(-1).sum())
    if not (relative or outside or turned):
        return []
    what = "are shares of the picture, not pixels" if relative else "lie outside or are inside out"
    count = len(boxes) if relative else outside + turned
    return [
        Finding(
            "G-B04",
            "fail",
            f"{count} of {len(boxes)} boxes of the first batch {what}",
            "give x1 y1 x2 y2 in pixels of the picture that is shown",
        )
    ]


def _loss(detector: Detector, optimizer: Optimizer, batch: Batch) -> list[Finding]:
    detector.train()
    optimizer.zero_grad(set_to_none=True)
    parts = detector.losses(*batch)
    values = {name: float(part.detach()) for name, part in parts.items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        return [
            Finding(
                "G-B05",
                "fail",
                f"the {broken[0]} loss of the first batch is {values[broken[0]]}",
                "look for boxes without width or height: dltool detect data PATH",
            )
        ]
    torch.stack(list(parts.values())).sum().backward()
    asleep = [
        name
        for name, parameter in detector.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    if asleep:
        return [
            Finding(
                "G-B06",
                "warn",
                f"{len(asleep)} weights get no gradient from the first batch ({asleep[0]})",
                "a part of the network does not learn: check how it is wired",
            )
        ]
    return []


def _normalisation(detector: Detector, batch: Batch) -> list[Finding]:
    """Count the values behind each channel's statistics in every training batch norm."""
    fewest: list[int] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        if module.training:
            fewest.append(inputs[0].numel() // inputs[0].shape[1])

    hooks = [
        module.register_forward_hook(count)
        for module in detector.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    try:
        with torch.no_grad():
            detector.losses(*batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not fewest or min(fewest) >= FEWEST_VALUES:
        return []
    return [
        Finding(
            "G-B07",
            "warn",
            f"batch normalisation averages {min(fewest)} values a channel (limit {FEWEST_VALUES}): "
            "its statistics are noise",
            f"raise --batch-size above {len(batch.images)}, or --image-size",
        )
    ]
