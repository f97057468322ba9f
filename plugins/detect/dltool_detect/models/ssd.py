"""ssd-tiny: a small single-shot detector that learns from scratch on a CPU.

One pass gives, at every place of three feature maps (strides 8, 16 and 32), a score for each class
and the offsets of one square anchor (SSD, Liu et al., 2016, https://arxiv.org/abs/1512.02325). What
makes it learn from a few hundred pictures came later:

- a feature pyramid: coarse maps tell fine ones what they see (Lin et al., 2017);
- anchors answer for objects by ATSS, whose threshold adapts to the object (Zhang et al., 2020,
  https://arxiv.org/abs/1912.02424);
- the class score learns to be the overlap of its box, by quality focal loss, and there is no
  background class: background is where all scores are low (Li et al., 2020,
  https://arxiv.org/abs/2006.04388);
- boxes learn by generalised IoU (Rezatofighi et al., 2019).
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from dltool_detect import boxes as box_ops
from dltool_detect.detections import Detections

WIDTHS = (16, 32, 64, 128, 160)
PYRAMID = 64
ANCHOR_STRIDES = 4.0
CANDIDATES = 9
BEFORE_NMS = 400
PRIOR = 0.01
BOX_WEIGHT = 2.0


def conv(fan_in: int, fan_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(fan_in, fan_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(fan_out),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside an identity: relu(F(x) + x) (He et al., 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)  # begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) of the same shape."""
        return F.relu(x + self.norm(self.second(self.first(x))))


class TinyBackbone(nn.Module):
    """A small residual network; gives the maps of strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d, e = WIDTHS
        self.stem = nn.Sequential(conv(3, a, stride=2), conv(a, b, stride=2), Residual(b))
        self.stage8 = nn.Sequential(conv(b, c, stride=2), Residual(c), Residual(c))
        self.stage16 = nn.Sequential(conv(c, d, stride=2), Residual(d), Residual(d))
        self.stage32 = nn.Sequential(conv(d, e, stride=2), Residual(e))
        self.widths = [c, d, e]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return maps (B, 64, H/8, W/8), (B, 128, H/16, W/16) and (B, 160, H/32, W/32)."""
        fine = self.stage8(self.stem(x))
        middle = self.stage16(fine)
        return [fine, middle, self.stage32(middle)]


class Head(nn.Module):
    """Scores and offsets at every place of one map."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        score_tower, score = conv(PYRAMID, PYRAMID), nn.Conv2d(PYRAMID, num_classes, 1)
        offset_tower, offset = conv(PYRAMID, PYRAMID), nn.Conv2d(PYRAMID, 4, 1)
        nn.init.normal_(score.weight, std=0.01)
        # at first every score is 0.01: thousands of background places would drown the rest
        nn.init.constant_(_bias(score), -math.log((1 - PRIOR) / PRIOR))
        nn.init.normal_(offset.weight, std=0.01)
        nn.init.zeros_(_bias(offset))
        self.scores = nn.Sequential(score_tower, score)
        self.offsets = nn.Sequential(offset_tower, offset)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, H * W, classes) and offsets (B, H * W, 4)."""
        scores, offsets = self.scores(x), self.offsets(x)
        return scores.flatten(2).transpose(1, 2), offsets.flatten(2).transpose(1, 2)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


class SSDTiny(nn.Module):
    """The network of `ssd-tiny`.

    Args:
        num_classes: classes without a background class.
        backbone: gives maps from fine to coarse; its `widths` are their channels.
    """

    def __init__(self, num_classes: int, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = TinyBackbone() if backbone is None else backbone
        widths = cast("list[int]", self.backbone.widths)
        self.lateral = nn.ModuleList(nn.Conv2d(width, PYRAMID, 1) for width in widths)
        self.smooth = nn.ModuleList(conv(PYRAMID, PYRAMID) for _ in widths)
        self.heads = nn.ModuleList(Head(num_classes) for _ in widths)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """Return logits (B, A, classes), offsets (B, A, 4) and the size of each map.

        Args:
            images: (B, 3, H, W) float, normalised.
        """
        maps = [lateral(x) for lateral, x in zip(self.lateral, self.backbone(images), strict=True)]
        for level in reversed(range(len(maps) - 1)):
            size = maps[level].shape[-2:]
            maps[level] = maps[level] + F.interpolate(maps[level + 1], size=size, mode="nearest")
        outputs = [
            head(smooth(x)) for head, smooth, x in zip(self.heads, self.smooth, maps, strict=True)
        ]
        logits = torch.cat([scores for scores, _ in outputs], dim=1).float()
        offsets = torch.cat([offset for _, offset in outputs], dim=1).float()
        return logits, offsets, [(x.shape[-2], x.shape[-1]) for x in maps]

    def losses(self, images: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the class loss and the box loss of a batch.

        Args:
            images: (B, 3, H, W) float, normalised.
            boxes: (B, M, 4) in pixels of these images; rows without an object do not matter.
            labels: (B, M) int64, -1 in rows without an object.
        """
        logits, offsets, sizes = self(images)
        levels = level_anchors(sizes, (images.shape[-2], images.shape[-1]), images.device)
        index = atss(levels, boxes, labels >= 0)  # (B, A)
        return losses_of(logits, offsets, torch.cat(levels), boxes, labels, index)

    def detect(self, images: Tensor, *, min_score: float, max_boxes: int) -> list[Detections]:
        """Return what is on images (B, 3, H, W), boxes in pixels of these images."""
        logits, offsets, sizes = self(images)
        height, width = images.shape[-2:]
        anchors = torch.cat(level_anchors(sizes, (height, width), images.device))
        boxes = box_ops.clip(box_ops.decode(offsets, anchors), height, width)
        return [
            select(box, score, min_score=min_score, max_boxes=max_boxes)
            for box, score in zip(boxes, logits.sigmoid(), strict=True)
        ]


def select(
    boxes: Tensor, scores: Tensor, *, min_score: float, max_boxes: int, overlap: float = 0.6
) -> Detections:
    """Return the best detections of one image: threshold, then suppression within each class.

    Args:
        boxes: (A, 4). scores: (A, classes).
    """
    flat = scores.flatten()
    found = (flat >= min_score).nonzero()[:, 0]
    best = flat[found].topk(min(BEFORE_NMS, len(found))).indices
    found = found[best]
    place, label = found // scores.shape[1], found % scores.shape[1]
    kept = box_ops.nms(boxes[place], flat[found], label, threshold=overlap)[:max_boxes]
    return Detections(boxes[place][kept], flat[found][kept], label[kept])


def level_anchors(
    sizes: list[tuple[int, int]], image: tuple[int, int], device: torch.device
) -> list[Tensor]:
    """Return one square anchor a place for each map, of side 4 strides."""
    levels = []
    for rows, columns in sizes:
        stride = math.sqrt((image[0] / rows) * (image[1] / columns))
        shape = [(ANCHOR_STRIDES * stride, ANCHOR_STRIDES * stride)]
        levels.append(box_ops.anchors(rows, columns, image, shape).to(device))
    return levels


@torch.no_grad()
def atss(levels: list[Tensor], boxes: Tensor, is_object: Tensor) -> Tensor:
    """Say which object each anchor answers for, by adaptive training sample selection.

    For each object the 9 anchors of each map whose centres are nearest are candidates; those whose
    overlap reaches mean + deviation of the candidates' overlaps, and whose centre lies inside the
    object, answer for it. The best candidate of an object always does, and an anchor that several
    objects claim goes to the one that it overlaps most.

    Args:
        levels: anchors (A_l, 4) of each map. boxes: (B, M, 4). is_object: (B, M) bool.

    Returns:
        (B, A) int64, a row of `boxes`, or -1 for background.
    """
    anchors = torch.cat(levels)
    batch, most = is_object.shape
    if most == 0:
        return torch.full((batch, len(anchors)), -1, dtype=torch.int64, device=anchors.device)
    overlaps = box_ops.iou(boxes.reshape(-1, 4), anchors).view(batch, most, -1)  # (B, M, A)
    overlaps = overlaps.nan_to_num(0.0)
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2  # (A, 2)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2  # (B, M, 2)
    distance = torch.cdist(centre.reshape(-1, 2), middle).view(batch, most, -1)
    picks, start = [], 0
    for level in levels:
        part = distance[..., start : start + len(level)]
        count = min(CANDIDATES, len(level))
        picks.append(part.topk(count, largest=False).indices + start)
        start += len(level)
    candidates = torch.cat(picks, dim=-1)  # (B, M, K)
    values = overlaps.gather(-1, candidates)
    limit = values.mean(-1, keepdim=True) + values.std(-1, keepdim=True)
    place = middle[candidates]  # (B, M, K, 2)
    inside = ((place > boxes[..., None, :2]) & (place < boxes[..., None, 2:])).all(-1)
    best = values == values.amax(-1, keepdim=True)
    positive = (((values >= limit) & inside) | best) & is_object[..., None]
    claims = torch.full_like(overlaps, -1.0)
    claims.scatter_(-1, candidates, torch.where(positive, values, -1.0))
    claim, owner = claims.max(dim=1)  # (B, A)
    return torch.where(claim >= 0, owner, -1)


def losses_of(
    logits: Tensor, offsets: Tensor, anchors: Tensor, boxes: Tensor, labels: Tensor, index: Tensor
) -> dict[str, Tensor]:
    """Return quality focal loss over all places and generalised IoU over those with an object.

        QFL = -|y - s|^2 ((1 - y) log(1 - s) + y log s),  s = sigmoid(logit), y = IoU or 0

    Args:
        logits: (B, A, classes). offsets: (B, A, 4). anchors: (A, 4).
        boxes: (B, M, 4). labels: (B, M). index: (B, A) of `atss`.
    """
    image, place = (index >= 0).nonzero(as_tuple=True)  # (P,), (P,)
    owner = index[image, place]
    target = boxes[image, owner]
    found = box_ops.decode(offsets[image, place], anchors[place])
    quality = box_ops.paired_iou(found.detach(), target)
    wanted = torch.zeros_like(logits)
    wanted[image, place, labels[image, owner]] = quality
    count = max(len(owner), 1)
    weight = (wanted - logits.sigmoid()).square()
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    box_loss = generalized_box_iou_loss(found, target, reduction="none")
    share = quality.clamp(min=0.1)
    return {
        "class": (weight * entropy).sum() / count,
        "box": BOX_WEIGHT * (box_loss * share).sum() / share.sum().clamp(min=1.0),
    }
