"""The one way in which pictures are brought to a detector's size, in training and in use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_image(image: Tensor, side: int) -> Tensor:
    """Return an image (3, H, W) uint8 as (3, side, side): bilinear, with antialiasing.

    The same bytes as torchvision's `v2.functional.resize`, whose import takes longer than all else
    that one picture needs.
    """
    if image.shape[-2:] == (side, side):
        return image
    # on a GPU torch resizes no bytes
    values = image[None] if image.device.type == "cpu" else image[None].float()
    scaled = F.interpolate(values, size=(side, side), mode="bilinear", antialias=True)[0]
    return scaled if scaled.dtype == torch.uint8 else scaled.round().clamp(0, 255).byte()
