"""Which detection belongs to which box, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from dltool_detect.data import DetectionSet
from dltool_detect.detections import Detections


def pair(truth: Tensor, found: Detections, iou: float) -> tuple[list[int], list[int]]:
    """Match boxes of one picture whatever their class, the surest detection first.

    Args:
        truth: (N, 4) boxes.

    Returns:
        The detection that each true box got, and the true box that each detection got; -1: none.
    """
    mine, theirs = [-1] * len(truth), [-1] * len(found)
    if not len(truth) or not len(found):
        return mine, theirs
    overlaps = box_iou(found.boxes.float(), truth.float())  # (M, N)
    for index in found.scores.argsort(descending=True, stable=True).tolist():
        row = overlaps[index].clone()
        row[[taken >= 0 for taken in mine]] = -1.0
        best = int(row.argmax())
        if float(row[best]) >= iou:
            mine[best], theirs[index] = index, best
    return mine, theirs


def confusion(
    truth: DetectionSet, found: Sequence[Detections], *, min_score: float, iou: float = 0.5
) -> Tensor:
    """Return the confusion matrix (C + 1, C + 1), rows true, the last row and column background.

    Boxes are paired by place alone, so that a right box with a wrong name shows as such. A true box
    nobody found is in the last column, a detection of nothing in the last row.
    """
    count = len(truth.classes)
    matrix = torch.zeros(count + 1, count + 1, dtype=torch.int64)
    for item, detections in zip(truth.items, found, strict=True):
        kept = above(detections, min_score)
        mine, theirs = pair(item.boxes, kept, iou)
        for label, ignore, match in zip(
            item.labels.tolist(), item.ignore.tolist(), mine, strict=True
        ):
            if not ignore:
                matrix[label, int(kept.labels[match]) if match >= 0 else count] += 1
        for label, match in zip(kept.labels.tolist(), theirs, strict=True):
            if match < 0:
                matrix[count, label] += 1
    return matrix


def above(found: Detections, min_score: float) -> Detections:
    """Return the detections whose score is at least `min_score`."""
    kept = found.scores >= min_score
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])
