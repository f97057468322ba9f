"""Fast R-CNN: one feature map for all windows of a picture (Girshick, 2015).

https://arxiv.org/abs/1504.08083. A window is scaled down to the map and pooled to 5x5 there. The
scale is measured from the map and the picture: the classical mistake is a constant 1/16 beside a
network of stride 32, which pools from the wrong place and never learns. Pooling is RoIAlign, which
does not round (He et al., 2017).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from dltool_detect.detections import Detections
from dltool_detect.models import regions as region_ops
from dltool_detect.models.ssd import Residual, conv

POOLED = 5
HIDDEN = 128


class MapNetwork(nn.Module):
    """A small residual network for whole pictures; its map has stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(3, 16, stride=2),
            conv(16, 32, stride=2),
            Residual(32),
            conv(32, 64, stride=2),
            Residual(64),
            Residual(64),
        )
        self.widths = [64]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return one map (B, 64, H/8, W/8)."""
        return [self.layers(x)]


class FastRCNN(nn.Module):
    """The network of `fast-rcnn`.

    Args:
        num_classes: classes without background.
        backbone: gives maps from fine to coarse; the second finest, or the only one, is pooled.
    """

    def __init__(self, num_classes: int, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = MapNetwork() if backbone is None else backbone
        widths = cast("list[int]", self.backbone.widths)
        self.level = min(1, len(widths) - 1)
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[self.level] * POOLED * POOLED, HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.3),
        )
        self.scores = nn.Linear(HIDDEN, num_classes + region_ops.FIRST_CLASS)
        self.offsets = nn.Linear(HIDDEN, 4)
        nn.init.normal_(self.offsets.weight, std=0.001)
        nn.init.zeros_(self.offsets.bias)

    def looked_at(self, images: Tensor, windows: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (R, classes + 1) and offsets (R, 4) of all windows, image by image.

        Args:
            images: (B, 3, H, W), normalised. windows: (R_b, 4) of each image, in its pixels.
        """
        features = self.backbone(images)[self.level]  # (B, C, h, w), once for all windows
        scale = region_ops.spatial_scale(features, images)
        pooled = roi_align(
            features.float(), windows, POOLED, spatial_scale=scale, sampling_ratio=2, aligned=True
        )  # (R, C, 5, 5)
        hidden = self.hidden(pooled)
        return self.scores(hidden), self.offsets(hidden)

    def losses(self, images: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return class loss and box loss of chosen windows; see `regions.losses_of`."""
        regions, classes, targets = region_ops.lesson(images, boxes, labels)
        logits, offsets = self.looked_at(images, regions)
        return region_ops.losses_of(
            logits.float(), offsets.float(), torch.cat(regions), classes, targets
        )

    def detect(self, images: Tensor, *, min_score: float, max_boxes: int) -> list[Detections]:
        """Return what is on images (B, 3, H, W), looking at every window of each."""
        size = (images.shape[-2], images.shape[-1])
        windows = region_ops.windows(*size).to(images.device)
        logits, offsets = self.looked_at(images, [windows] * len(images))
        count = len(windows)
        return [
            region_ops.found_on(
                score.float(),
                offset.float(),
                windows,
                size,
                min_score=min_score,
                max_boxes=max_boxes,
            )
            for score, offset in zip(logits.split(count), offsets.split(count), strict=True)
        ]
