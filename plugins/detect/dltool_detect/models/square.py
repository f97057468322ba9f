"""Detectors that see every picture stretched to one square, as they did in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from dltool_detect.detections import Detections
from dltool_detect.resize import resize_image

# of ImageNet; that of the data would differ too little to matter (torchvision's constants)
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Network(Protocol):
    """What a detector of ours is made of; images are (B, 3, S, S), normalised."""

    def losses(self, images: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the parts of the loss by name; labels are -1 in rows without an object."""
        ...

    def detect(self, images: Tensor, *, min_score: float, max_boxes: int) -> list[Detections]:
        """Return what is on each image, boxes in its pixels."""
        ...


class Square(nn.Module):
    """Stretch, normalise, detect, and bring the boxes back to the pictures as they were given.

    Args:
        network: a `Network`.
        side: S in pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def prepared(self, images: Tensor) -> Tensor:
        """Return images (B, 3, S, S) uint8 as the network wants them."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return (pixels / 255 - self.mean) / self.std

    def losses(self, images: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the parts of the loss for images (B, 3, S, S) uint8."""
        network = cast(Network, self.network)
        return network.losses(self.prepared(images), boxes, labels)

    def detect(
        self, images: Sequence[Tensor], *, min_score: float, max_boxes: int
    ) -> list[Detections]:
        """Return what is on images (3, H, W) uint8 of any sizes."""
        device = self.mean.device
        small = torch.stack([resize_image(image.to(device), self.side) for image in images])
        network = cast(Network, self.network)
        found = network.detect(self.prepared(small), min_score=min_score, max_boxes=max_boxes)
        return [grown(each, image, self.side) for each, image in zip(found, images, strict=True)]


def grown(found: Detections, image: Tensor, side: int) -> Detections:
    """Bring boxes from a square of `side` back to the image (3, H, W) that was stretched to it."""
    height, width = image.shape[-2:]
    scale = found.boxes.new_tensor([width / side, height / side] * 2)
    return Detections(found.boxes * scale, found.scores, found.labels)
