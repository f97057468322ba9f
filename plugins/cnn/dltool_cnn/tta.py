"""Test-time augmentation: more than one look at each image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dltool import ranges

TTA = ("none", "flip")


class BothSides(nn.Module):
    """Classify an image and its mirror image and take the mean of the probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return logarithms of the mean probabilities (B, num_classes) for images (B, C, H, W)."""
        seen = torch.stack([self.model(images), self.model(images.flip(3))])
        return seen.log_softmax(2).logsumexp(0) - math.log(2)


def mirrored_too(model: nn.Module, tta: str) -> nn.Module:
    """Return the model with the test-time augmentation of that name around it.

    Raises:
        ConfigError: E206, another name.
    """
    ranges.one_of("--tta", tta, TTA)
    return BothSides(model) if tta == "flip" else model
