"""What R-CNN and Fast R-CNN share: windows to look at, which of them to learn from, the losses.

Both classify windows of the picture (proposals) into background or one of the classes, and correct
the window's corners by offsets. They differ in what they pool: R-CNN cuts every window out of the
picture, Fast R-CNN cuts it out of one feature map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dltool_detect import boxes as box_ops
from dltool_detect.detections import Detections, nothing

BACKGROUND = 0
FIRST_CLASS = 1
WINDOW_SHARES = (0.22, 0.36, 0.56, 0.85)
WINDOW_RATIOS = (0.5, 1.0, 2.0)
STEPS_A_WINDOW = 3.0
MOST_WINDOWS = 2000
POSITIVE, NEGATIVE = 0.5, 0.4
REGIONS_AN_IMAGE = 64
POSITIVE_SHARE = 0.25
NEGATIVES_A_POSITIVE = 3
NEGATIVES_WITHOUT = 16
NMS_OVERLAP = 0.4


def windows(height: int, width: int) -> Tensor:
    """Return (R, 4) windows that cover a picture: four sizes, three shapes, steps of a third.

    Selective search would give fewer and better ones (`dltool detect proposals`), but needs OpenCV.
    """
    found = []
    side = (height * width) ** 0.5
    for share in WINDOW_SHARES:
        for wide, tall in box_ops.anchor_shapes([share * side], WINDOW_RATIOS):
            wide, tall = min(wide, float(width)), min(tall, float(height))
            found.append(_slid(height, tall, width, wide))
    return box_ops.clip(torch.cat(found), height, width)


def _slid(height: int, tall: float, width: int, wide: float) -> Tensor:
    """Return one window slid over the picture, first and last at the borders."""
    tops = _starts(height - tall, tall / STEPS_A_WINDOW)
    lefts = _starts(width - wide, wide / STEPS_A_WINDOW)
    corner = torch.cartesian_prod(lefts, tops)  # (K, 2) as x, y
    return torch.cat([corner, corner + torch.tensor([wide, tall])], dim=1)


def _starts(room: float, step: float) -> Tensor:
    count = int(max(room, 0.0) / step) + 2 if room > 1e-6 else 1
    return torch.linspace(0.0, max(room, 0.0), count)


def lesson(images: Tensor, boxes: Tensor, labels: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return what a batch teaches: regions of each image, and of all their classes and targets.

    Args:
        images: (B, 3, H, W). boxes: (B, M, 4). labels: (B, M), -1 in rows without an object.
    """
    everywhere = windows(*images.shape[-2:]).to(images.device)
    picked = [
        chosen(everywhere, box[label >= 0], label[label >= 0])
        for box, label in zip(boxes, labels, strict=True)
    ]
    classes = torch.cat([classes for _, classes, _ in picked])
    targets = torch.cat([targets for _, _, targets in picked])
    return [regions for regions, _, _ in picked], classes, targets


def chosen(
    regions: Tensor, objects: Tensor, labels: Tensor, count: int = REGIONS_AN_IMAGE
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose regions of one image to learn from: three of background for each on an object.

    More background would drown the objects, and everything would be called background; an image
    without an object gives 16 regions of it. The objects' own boxes are regions too. A region on an
    object overlaps it by half or more; one of background overlaps none by more than 0.4; those
    between teach nothing. No region is chosen twice.

    Args:
        regions: (R, 4). objects: (M, 4). labels: (M,) 0-based.

    Returns:
        Regions (K, 4), their classes (K,) with 0 for background, and the object boxes (K, 4) that
        they should become; of background regions the rows mean nothing.
    """
    candidates = torch.cat([objects, regions])
    matched = box_ops.assign(
        candidates, objects, high=POSITIVE, low=NEGATIVE, every_object=False
    ).index
    positive = _some(matched >= 0, int(count * POSITIVE_SHARE))
    most = len(positive) * NEGATIVES_A_POSITIVE or NEGATIVES_WITHOUT
    negative = _some(matched == box_ops.NOTHING, min(most, count - len(positive)))
    kept = torch.cat([positive, negative])
    owner = matched[kept]
    is_object = owner >= 0
    classes = torch.full_like(owner, BACKGROUND)
    classes[is_object] = labels[owner[is_object]] + FIRST_CLASS
    targets = candidates[kept].clone()
    targets[is_object] = objects[owner[is_object]]
    return candidates[kept], classes, targets


def _some(mask: Tensor, most: int) -> Tensor:
    """Return at most so many places of the mask, drawn from torch's global stream of the run."""
    places = mask.nonzero()[:, 0]
    order = torch.randperm(len(places)).to(places.device)
    return places[order[:most]]


def losses_of(
    logits: Tensor, offsets: Tensor, regions: Tensor, classes: Tensor, targets: Tensor
) -> dict[str, Tensor]:
    """Return cross entropy over all regions, and smooth L1 of the offsets over those on objects.

    Background has no box to learn. Without any region on an object the box loss is 0, not NaN.

    Args:
        logits: (K, classes + 1), background first. offsets: (K, 4). regions, targets: (K, 4).
        classes: (K,) with 0 for background.
    """
    on_object = classes != BACKGROUND
    wanted = box_ops.encode(targets[on_object], regions[on_object])
    distance = F.smooth_l1_loss(offsets[on_object], wanted, reduction="sum")
    return {
        "class": F.cross_entropy(logits, classes),
        "box": distance / max(len(classes), 1),
    }


def found_on(
    logits: Tensor,
    offsets: Tensor,
    regions: Tensor,
    size: tuple[int, int],
    *,
    min_score: float,
    max_boxes: int,
) -> Detections:
    """Return detections of one image: classes without background, corrected boxes, suppression.

    Args:
        logits: (R, classes + 1). offsets: (R, 4). regions: (R, 4). size: (height, width).
    """
    scores = logits.softmax(-1)[:, FIRST_CLASS:]  # (R, classes): background is no answer
    boxes = box_ops.clip(box_ops.decode(offsets, regions), *size)
    region, label = (scores >= min_score).nonzero(as_tuple=True)
    if len(region) == 0:
        return nothing()
    score = scores[region, label]
    kept = box_ops.nms(boxes[region], score, label, threshold=NMS_OVERLAP)[:max_boxes]
    return Detections(boxes[region][kept], score[kept], label[kept])


def spatial_scale(feature_map: Tensor, image: Tensor) -> float:
    """Return feature size / image size, measured; a constant could disagree with the network.

    Raises:
        ValueError: height and width are not scaled alike, so that no one scale is right.
    """
    tall = feature_map.shape[-2] / image.shape[-2]
    wide = feature_map.shape[-1] / image.shape[-1]
    if abs(tall - wide) > 1e-9:
        raise ValueError(f"the map is scaled by {tall:g} in height and {wide:g} in width")
    return tall
