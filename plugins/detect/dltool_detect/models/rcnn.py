"""R-CNN: cut every window out of the picture and classify it (Girshick et al., 2014).

https://arxiv.org/abs/1311.2524. The network sees each window at one size; the support vector
machines and the separately trained box regression of the paper are one linear layer each here,
trained together, as Fast R-CNN does.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from dltool_detect.detections import Detections
from dltool_detect.models import regions as region_ops
from dltool_detect.models.ssd import Residual, conv

CUT = 48
AT_ONCE = 512


class WindowNetwork(nn.Module):
    """A small residual network for cut-out windows; its last map has stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(3, 16, stride=2), conv(16, 32, stride=2), Residual(32), conv(32, 96, stride=2)
        )
        self.widths = [96]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return one map (B, 96, H/8, W/8)."""
        return [self.layers(x)]


class RCNN(nn.Module):
    """The network of `rcnn`.

    Args:
        num_classes: classes without background.
        backbone: gives maps; the coarsest is averaged.
    """

    def __init__(self, num_classes: int, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = WindowNetwork() if backbone is None else backbone
        width = cast("list[int]", self.backbone.widths)[-1]
        self.scores = nn.Linear(width, num_classes + region_ops.FIRST_CLASS)
        self.offsets = nn.Linear(width, 4)
        nn.init.normal_(self.offsets.weight, std=0.001)
        nn.init.zeros_(self.offsets.bias)

    def looked_at(self, images: Tensor, windows: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (R, classes + 1) and offsets (R, 4) of all windows, image by image.

        Args:
            images: (B, 3, H, W), normalised. windows: (R_b, 4) of each image, in its pixels.
        """
        # cutting from the picture itself: a pixel of the map is a pixel, so the scale is 1
        cuts = roi_align(images, windows, (CUT, CUT), spatial_scale=1.0, sampling_ratio=1)
        means = self.backbone(cuts)[-1].mean((2, 3))  # (R, C)
        return self.scores(means), self.offsets(means)

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
        found = []
        for image in images:
            parts = [self.looked_at(image[None], [part]) for part in windows.split(AT_ONCE)]
            logits, offsets = (torch.cat(each).float() for each in zip(*parts, strict=True))
            found.append(
                region_ops.found_on(
                    logits, offsets, windows, size, min_score=min_score, max_boxes=max_boxes
                )
            )
        return found
