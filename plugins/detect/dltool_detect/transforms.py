"""Augmentation that moves the boxes with the pixels, and the batches made of it.

Every draw comes from a generator of (seed, epoch, place of the sample), so a stopped run goes on
with the very pictures that it would have had. Images have been brought to one size before.

    mosaic  four pictures in one (Bochkovskiy et al., 2020, https://arxiv.org/abs/2004.10934)
    scale   cut out a part and enlarge it, or shrink the picture on a plain ground (SSD, 2016)
    flip    mirror left and right;  vflip  top and bottom;  rotate  by quarter turns
    color  brightness, contrast, saturation and a little hue
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F2

from dltool import device as devices
from dltool_detect import boxes as box_ops
from dltool_detect.resize import resize_image

# an object of which less is left after a cut is no longer shown as one
VISIBLE = 0.35
SMALLEST_SIDE = 2.0
NO_OBJECT = -1
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.3, 0.3, 0.4, 0.03


class Sample(NamedTuple):
    """A picture and its objects.

    Attributes:
        image: (3, S, S) uint8. boxes: (N, 4) float32 in its pixels. labels: (N,) int64.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor


class Batch(NamedTuple):
    """Samples stacked; rows of boxes without an object have label -1.

    Attributes:
        images: (B, 3, S, S) uint8. boxes: (B, M, 4) float32. labels: (B, M) int64.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor


def resized(sample: Sample, side: int) -> Sample:
    """Return the sample stretched to side x side: the one geometry of training and detection."""
    height, width = sample.image.shape[-2:]
    scale = sample.boxes.new_tensor([side / width, side / height] * 2)
    return Sample(resize_image(sample.image, side), sample.boxes * scale, sample.labels)


def flip(sample: Sample) -> Sample:
    """Mirror left and right: x becomes W - x, and the corners change places."""
    width = sample.image.shape[-1]
    x1, y1, x2, y2 = sample.boxes.unbind(-1)
    boxes = torch.stack([width - x2, y1, width - x1, y2], dim=-1)
    return Sample(F2.horizontal_flip(sample.image), boxes, sample.labels)


def transpose(sample: Sample) -> Sample:
    """Exchange x and y, in the picture and in the boxes."""
    return Sample(
        sample.image.transpose(1, 2).contiguous(), sample.boxes[:, [1, 0, 3, 2]], sample.labels
    )


def vflip(sample: Sample) -> Sample:
    """Mirror top and bottom."""
    height = sample.image.shape[-2]
    x1, y1, x2, y2 = sample.boxes.unbind(-1)
    boxes = torch.stack([x1, height - y2, x2, height - y1], dim=-1)
    return Sample(F2.vertical_flip(sample.image), boxes, sample.labels)


def cut(sample: Sample, window: tuple[int, int, int, int], size: tuple[int, int]) -> Sample:
    """Cut a window (top, left, height, width) out and bring it to size (height, width).

    Objects are cut with it; those of which too little is left are dropped.
    """
    top, left, height, width = window
    image: Tensor = F2.resized_crop(
        sample.image, top, left, height, width, list(size), antialias=True
    )
    whole = box_ops.area(sample.boxes)
    moved = sample.boxes - sample.boxes.new_tensor([left, top, left, top])
    moved = box_ops.clip(moved, height, width)
    share = box_ops.area(moved) / whole.clamp(min=1e-9)
    scale = moved.new_tensor([size[1] / width, size[0] / height] * 2)
    return _kept(Sample(image, moved * scale, sample.labels), share >= VISIBLE)


def _kept(sample: Sample, stays: Tensor) -> Sample:
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    stays = stays & (sides >= SMALLEST_SIDE).all(-1)
    return Sample(sample.image, sample.boxes[stays], sample.labels[stays])


def shrink(sample: Sample, window: tuple[int, int, int, int], ground: Tensor) -> Sample:
    """Put the whole picture into a window (top, left, height, width) of a plain ground (3,)."""
    top, left, height, width = window
    side_y, side_x = sample.image.shape[-2:]
    image = ground.to(torch.uint8)[:, None, None].expand(3, side_y, side_x).clone()
    small = F2.resize(sample.image, [height, width], antialias=True)
    image[:, top : top + height, left : left + width] = small
    scale = sample.boxes.new_tensor([width / side_x, height / side_y] * 2)
    boxes = sample.boxes * scale + sample.boxes.new_tensor([left, top, left, top])
    sides = boxes[:, 2:] - boxes[:, :2]
    return _kept(Sample(image, boxes, sample.labels), (sides > 0).all(-1))


def _draw(stream: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=stream))


def scale(sample: Sample, stream: torch.Generator) -> Sample:
    """Enlarge a part of the picture or shrink it, as often; shapes change a little."""
    height, width = sample.image.shape[-2:]
    zoom = math.exp(_draw(stream, math.log(0.4), 0.0))  # share of the side
    stretch = math.exp(_draw(stream, -0.2, 0.2))
    tall, wide = (min(max(zoom * f, 0.2), 1.0) for f in (stretch, 1 / stretch))
    rows, columns = max(int(tall * height), 2), max(int(wide * width), 2)
    top = int(_draw(stream, 0, height - rows + 0.999))
    left = int(_draw(stream, 0, width - columns + 0.999))
    window = (top, left, rows, columns)
    if _draw(stream, 0, 1) < 0.5:
        return cut(sample, window, (height, width))
    ground = torch.randint(0, 256, (3,), generator=stream)
    return shrink(sample, window, ground)


def mosaic(samples: Sequence[Sample], stream: torch.Generator) -> Sample:
    """Put parts of four pictures around a point near the middle."""
    side = samples[0].image.shape[-1]
    x, y = (int(side * _draw(stream, 0.3, 0.7)) for _ in range(2))
    image = torch.empty_like(samples[0].image)
    boxes, labels = [], []
    corners = ((0, 0, y, x), (0, x, y, side - x), (y, 0, side - y, x), (y, x, side - y, side - x))
    for sample, (top, left, height, width) in zip(samples, corners, strict=True):
        share = math.exp(_draw(stream, math.log(0.5), 0.0))
        stretch = math.exp(_draw(stream, -0.2, 0.2))
        rows = min(max(int(share * side * stretch), height // 2), side)
        columns = min(max(int(share * side / stretch), width // 2), side)
        from_top = int(_draw(stream, 0, side - rows + 0.999))
        from_left = int(_draw(stream, 0, side - columns + 0.999))
        part = cut(sample, (from_top, from_left, rows, columns), (height, width))
        image[:, top : top + height, left : left + width] = part.image
        boxes.append(part.boxes + part.boxes.new_tensor([left, top, left, top]))
        labels.append(part.labels)
    return Sample(image, torch.cat(boxes), torch.cat(labels))


def color(image: Tensor, stream: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue: all four are one 3x3 matrix and a shift.

    In YIQ coordinates saturation scales the colour plane and hue turns it.
    """
    gain = 1 + _draw(stream, -BRIGHTNESS, BRIGHTNESS)
    contrast = 1 + _draw(stream, -CONTRAST, CONTRAST)
    saturation = 1 + _draw(stream, -SATURATION, SATURATION)
    angle = 2 * math.pi * _draw(stream, -HUE, HUE)
    cos, sin = saturation * math.cos(angle), saturation * math.sin(angle)
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    matrix = torch.linalg.inv(yiq) @ turn @ yiq * (gain * contrast)
    pixels = image.flatten(1).float()  # (3, H * W)
    shift = (1 - contrast) * gain * pixels.mean()
    changed = torch.addmm(shift.expand(3, 1), matrix, pixels)
    return changed.clamp_(0, 255).to(torch.uint8).view_as(image)


@dataclass(frozen=True)
class Augmented:
    """Training batches of pictures that lie in memory at their training size.

    Args:
        samples: all (3, S, S) of one S.
        batch_size: pictures in a batch.
        seed: the run's seed.
        names: of `AUGMENTATIONS`.
        epochs: length of the training; its last `plain_share` has no mosaics.
        mosaic_share: share of the pictures that are mosaics until then.
        device: where the batches go.
    """

    samples: Sequence[Sample]
    batch_size: int
    seed: int
    names: tuple[str, ...]
    epochs: int
    mosaic_share: float = 0.5
    plain_share: float = 0.15
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        """Return the number of batches in an epoch; a last one that is not full is left out."""
        return max(len(self.samples) // self.batch_size, 1)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        stream = devices.generator(self.seed, epoch, "order")
        order = torch.randperm(len(self.samples), generator=stream).tolist()
        for index in range(start, len(self)):
            first = index * self.batch_size
            places = order[first : first + self.batch_size]
            batch = collate([self.sample(p, epoch, first + k) for k, p in enumerate(places)])
            yield Batch(*(part.to(self.device) for part in batch))

    def sample(self, place: int, epoch: int, position: int) -> Sample:
        """Return one augmented sample; it depends on (seed, epoch, position) and `place` alone."""
        stream = devices.generator(self.seed, epoch, position, "augment")
        late = epoch >= self.epochs * (1 - self.plain_share)
        is_mosaic = "mosaic" in self.names and _draw(stream, 0, 1) < self.mosaic_share
        if is_mosaic and not late:
            others = torch.randint(len(self.samples), (3,), generator=stream).tolist()
            chosen = [self.turned(self.samples[p], stream) for p in (place, *others)]
            sample = mosaic(chosen, stream)
        else:
            sample = self.turned(self.samples[place], stream)
            if "scale" in self.names and _draw(stream, 0, 1) < 0.8:
                sample = scale(sample, stream)
        if "color" in self.names:
            sample = sample._replace(image=color(sample.image, stream))
        return sample

    def turned(self, sample: Sample, stream: torch.Generator) -> Sample:
        """Mirror and turn, as far as the names ask for it."""
        for name, change in (("flip", flip), ("vflip", vflip), ("rotate", transpose)):
            if name in self.names and _draw(stream, 0, 1) < 0.5:
                sample = change(sample)
        return sample


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; the boxes are filled up to the largest number with label -1."""
    most = max(1, *(len(sample.labels) for sample in samples))
    boxes = torch.zeros(len(samples), most, 4)
    labels = torch.full((len(samples), most), NO_OBJECT, dtype=torch.int64)
    for row, sample in enumerate(samples):
        boxes[row, : len(sample.labels)] = sample.boxes
        labels[row, : len(sample.labels)] = sample.labels
    return Batch(torch.stack([sample.image for sample in samples]), boxes, labels)
