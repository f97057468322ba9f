"""The part of a one-stage detector that a graph can hold: a picture in, every box and score out.

What comes after it, cutting at a score and suppressing overlaps, has as many results as there are
objects; a fixed graph has not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.ops import batched_nms, clip_boxes_to_image

from dltool.errors import ConfigError
from dltool_detect import boxes as box_ops
from dltool_detect.detections import Detections
from dltool_detect.models.build import Detector
from dltool_detect.models.square import Square
from dltool_detect.models.ssd import SSDTiny, level_anchors
from dltool_detect.models.zoo import BACKGROUND_FIRST, Zoo, classes_of

OWN_OVERLAP = 0.6
# the graph of two stages cuts at this score itself
WHOLE_SCORE = 0.01


class Dense(nn.Module):
    """One uint8 image (1, 3, H, W) in; boxes (A, 4) in its pixels and scores (A, C) out."""

    overlap = OWN_OVERLAP


class DenseOwn(Dense):
    """`ssd-tiny`; the image must have the detector's own size already."""

    def __init__(self, square: Square) -> None:
        super().__init__()
        self.square = square

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes and scores of an image (1, 3, S, S)."""
        size = (int(images.shape[-2]), int(images.shape[-1]))
        logits, offsets, maps = self.square.network(self.square.prepared(images))
        anchors = torch.cat(level_anchors(maps, size, images.device))
        return box_ops.clip(box_ops.decode(offsets[0], anchors), *size), logits[0].sigmoid()


class DenseZoo(Dense):
    """SSD, RetinaNet and FCOS of torchvision; resizing is in the graph."""

    def __init__(self, model: Any, places: Sequence[int]) -> None:
        super().__init__()
        self.model, self.places = model, list(places)
        self.overlap = float(model.nms_thresh)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes and scores of an image (1, 3, H, W)."""
        model: Any = self.model
        size = (int(images.shape[-2]), int(images.shape[-1]))
        prepared: ImageList = model.transform([images[0] / 255])[0]
        features = list(model.backbone(prepared.tensors).values())
        heads = model.head(features)
        anchors = model.anchor_generator(prepared, features)[0]
        boxes, scores = _decoded(model, heads, anchors)
        inner = prepared.image_sizes[0]
        boxes = clip_boxes_to_image(boxes, inner)
        scale = boxes.new_tensor([size[1] / inner[1], size[0] / inner[0]] * 2)
        return boxes * scale, scores[:, self.places]


def _decoded(model: Any, heads: Any, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Return boxes (A, 4) in the resized image and the scores of torchvision's class numbers."""
    logits, offsets = heads["cls_logits"][0], heads["bbox_regression"][0]
    if isinstance(model, FCOS):
        centred = heads["bbox_ctrness"][0].sigmoid()
        return model.box_coder.decode(offsets, anchors), (logits.sigmoid() * centred).sqrt()
    boxes = model.box_coder.decode_single(offsets, anchors)
    return boxes, logits.softmax(-1) if isinstance(model, SSD) else logits.sigmoid()


class Whole(nn.Module):
    """A two-stage detector of torchvision with everything that belongs to it."""

    def __init__(self, zoo: Zoo) -> None:
        super().__init__()
        self.model = zoo.model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (M, 4), scores (M,) and torchvision's class numbers (M,)."""
        heads: Any = self.model.roi_heads
        heads.score_thresh = WHOLE_SCORE
        found = cast(Callable[..., Any], self.model)([images[0] / 255])[0]
        return found["boxes"], found["scores"], found["labels"]


def dense_part(detector: Detector) -> Dense | Whole:
    """Return the part of a detector that can be exported.

    Raises:
        ConfigError: E205, this kind of detector has none.
    """
    core = detector.core
    if isinstance(core, Square) and isinstance(core.network, SSDTiny):
        return DenseOwn(core)
    if isinstance(core, Zoo):
        if isinstance(core.model, SSD | RetinaNet | FCOS):
            return DenseZoo(core.model, places_of(detector))
        return Whole(core)
    raise ConfigError(
        "E205",
        f"{detector.name} is a model to learn from and has no export",
        expected="ssd-tiny or a detector of torchvision",
    )


def places_of(detector: Detector) -> list[int]:
    """Return torchvision's class number of each class of a detector of torchvision."""
    names, numbers = classes_of(detector.name)
    if detector.classes == names:
        return list(numbers)
    return list(range(BACKGROUND_FIRST, len(detector.classes) + BACKGROUND_FIRST))


def finished(
    boxes: Tensor, scores: Tensor, *, overlap: float, min_score: float, max_boxes: int
) -> Detections:
    """Return what is left of every box and score: cut, suppress within each class, take the best.

    Args:
        boxes: (A, 4). scores: (A, C).
    """
    place, label = (scores >= min_score).nonzero(as_tuple=True)
    values = scores[place, label]
    best = values.argsort(descending=True)[:10_000]
    place, label, values = place[best], label[best], values[best]
    kept = batched_nms(boxes[place], values, label, overlap)[:max_boxes]
    return Detections(boxes[place][kept], values[kept], label[kept])
