"""What a detector finds on one image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """Boxes with scores and labels, best first.

    Attributes:
        boxes: (M, 4) float32, x1 y1 x2 y2 in pixels of the image that was given.
        scores: (M,) float32 in [0, 1].
        labels: (M,) int64, 0-based index into the detector's classes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of boxes."""
        return len(self.boxes)


def nothing() -> Detections:
    """Return detections without a box."""
    return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
