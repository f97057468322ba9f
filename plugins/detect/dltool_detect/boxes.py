"""The arithmetic of boxes: overlap, offsets, anchors, who answers for which object, suppression.

Boxes are (N, 4) tensors x1 y1 x2 y2 in pixels; x grows to the right, y downwards. Where torchvision
has the operation it is torchvision's: `box_iou`, `generalized_box_iou`, `batched_nms`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import ops

# SSD's variances (Liu et al., 2016): offsets of centres are divided by 0.1, of log sizes by 0.2
VARIANCES = (0.1, 0.1, 0.2, 0.2)
# a box may grow to 62.5 times its anchor: exp() would overflow beyond (torchvision's limit)
LARGEST_LOG = math.log(1000.0 / 16)

NOTHING = -1
IGNORED = -2


def area(boxes: Tensor) -> Tensor:
    """Return (...,) areas of boxes (..., 4); a box turned inside out has area 0."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Return (N, M) intersection over union of boxes (N, 4) and (M, 4)."""
    overlap: Tensor = ops.box_iou(one, other)
    return overlap


def paired_iou(one: Tensor, other: Tensor) -> Tensor:
    """Return (...,) intersection over union of boxes (..., 4) with those at the same place."""
    low = torch.maximum(one[..., :2], other[..., :2])
    high = torch.minimum(one[..., 2:], other[..., 2:])
    shared = area(torch.cat([low, high], dim=-1))
    return shared / (area(one) + area(other) - shared).clamp(min=1e-9)


def to_centres(boxes: Tensor) -> Tensor:
    """Return boxes (..., 4) as centre x, centre y, width, height."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def to_corners(centres: Tensor) -> Tensor:
    """Return (..., 4) centre x, centre y, width, height as x1 y1 x2 y2."""
    middle, half = centres[..., :2], centres[..., 2:] / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return boxes cut off at the borders of an image."""
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def encode(boxes: Tensor, anchors: Tensor, variances: Sequence[float] = VARIANCES) -> Tensor:
    """Return the offsets (..., 4) that lead from anchors to boxes.

    t_x = (x - x_a) / (w_a v_x)     t_w = ln(w / w_a) / v_w      (Ren et al., 2015)
    """
    box, anchor = to_centres(boxes), to_centres(anchors)
    shift = (box[..., :2] - anchor[..., :2]) / anchor[..., 2:]
    growth = (box[..., 2:] / anchor[..., 2:]).log()
    return torch.cat([shift, growth], dim=-1) / box.new_tensor(variances)


def decode(offsets: Tensor, anchors: Tensor, variances: Sequence[float] = VARIANCES) -> Tensor:
    """Return the boxes (..., 4) that offsets make of anchors: the inverse of `encode`."""
    anchor = to_centres(anchors)
    scaled = offsets * offsets.new_tensor(variances)
    middle = anchor[..., :2] + scaled[..., :2] * anchor[..., 2:]
    sides = anchor[..., 2:] * scaled[..., 2:].clamp(max=LARGEST_LOG).exp()
    return to_corners(torch.cat([middle, sides], dim=-1))


def anchor_shapes(sizes: Sequence[float], ratios: Sequence[float]) -> list[tuple[float, float]]:
    """Return the (width, height) of the anchors at one place: n + m - 1 of n sizes and m ratios.

    The first ratio goes with every size, the other ratios with the first size only (SSD's way: all
    n x m would be many and alike). A ratio is width / height at the area of a square.
    """
    pairs = [(size, ratios[0]) for size in sizes] + [(sizes[0], ratio) for ratio in ratios[1:]]
    return [(size * math.sqrt(ratio), size / math.sqrt(ratio)) for size, ratio in pairs]


def anchors(
    rows: int, columns: int, image: tuple[int, int], shapes: Sequence[tuple[float, float]]
) -> Tensor:
    """Return the anchors of one feature map, (rows * columns * len(shapes), 4), in pixels.

    Row by row, and at one place in the order of the shapes. The spatial scale is image size /
    feature size, taken from both, so that no constant can disagree with the network.

    Args:
        image: (height, width) of the image that gave the feature map.
        shapes: (width, height) in pixels, from `anchor_shapes`.
    """
    height, width = image
    y = (torch.arange(rows) + 0.5) * (height / rows)
    x = (torch.arange(columns) + 0.5) * (width / columns)
    middle = torch.cartesian_prod(y, x).flip(1)  # (rows * columns, 2) as x, y
    sides = torch.tensor(list(shapes))  # (A, 2)
    count = len(sides)
    places = middle[:, None].expand(-1, count, 2)
    centres = torch.cat([places, sides.expand(len(middle), count, 2)], dim=-1)
    return to_corners(centres.reshape(-1, 4))


@dataclass(frozen=True)
class Assignment:
    """Which object each of N anchors answers for.

    Attributes:
        index: (N,) int64, a row of the objects; -1 background, -2 neither.
        overlap: (N,) intersection over union with that object, or with the nearest one.
    """

    index: Tensor
    overlap: Tensor


def assign(
    boxes: Tensor,
    objects: Tensor,
    *,
    high: float = 0.5,
    low: float = 0.5,
    every_object: bool = True,
) -> Assignment:
    """Say which object (M, 4) each box (N, 4) answers for.

    A box takes the object that it overlaps most if that is `high` or more, is background below
    `low`, and does not count between. With `every_object` the best box of each object is given to
    it in any case (SSD), so that no object is lost.
    """
    if len(objects) == 0:
        index = torch.full((len(boxes),), NOTHING, dtype=torch.int64, device=boxes.device)
        return Assignment(index, boxes.new_zeros(len(boxes)))
    overlaps = iou(boxes, objects)  # (N, M)
    overlap, index = overlaps.max(dim=1)
    index = torch.where(overlap >= high, index, IGNORED)
    index = torch.where(overlap < low, NOTHING, index)
    if every_object:
        index, overlap = _with_best(index, overlap, overlaps)
    return Assignment(index, overlap)


def _with_best(index: Tensor, overlap: Tensor, overlaps: Tensor) -> tuple[Tensor, Tensor]:
    """Give each object its best box that no better matched object has taken already."""
    index, overlap, left = index.clone(), overlap.clone(), overlaps.clone()
    columns = left.shape[1]
    for _ in range(min(left.shape)):
        # integer division: a float would lose the row above 2^24
        place = int(left.argmax())
        row, column = place // columns, place % columns
        if left[row, column] <= 0:
            break
        index[row], overlap[row] = column, overlaps[row, column]
        left[row, :], left[:, column] = -1, -1
    return index, overlap


def nms(
    boxes: Tensor, scores: Tensor, labels: Tensor | None = None, *, threshold: float = 0.5
) -> Tensor:
    """Return the places of the boxes that survive non-maximum suppression, best first.

    Of boxes that overlap more than `threshold` only the one with the best score stays.

    Args:
        boxes: (N, 4). scores: (N,).
        labels: (N,); boxes of different labels never suppress each other. None: all are one class.
    """
    if labels is None:
        labels = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    kept: Tensor = ops.batched_nms(boxes, scores, labels, threshold)
    return kept


def suppressors(
    boxes: Tensor, scores: Tensor, labels: Tensor | None = None, *, threshold: float = 0.5
) -> list[int]:
    """Return for each box the place of the box that suppressed it, or its own place if it stays.

    The plain loop of the algorithm (scores in falling order), for pictures and for tests.
    """
    order = sorted(range(len(boxes)), key=lambda place: -float(scores[place]))
    overlaps = iou(boxes, boxes)
    kept: list[int] = []
    owner = [0] * len(boxes)
    for place in order:
        over = [
            other
            for other in kept
            if float(overlaps[place, other]) > threshold
            and (labels is None or int(labels[place]) == int(labels[other]))
        ]
        owner[place] = over[0] if over else place
        if not over:
            kept.append(place)
    return owner
