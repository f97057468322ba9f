"""Random changes of a whole batch of images at once, on the device where it lies.

Every image has draws of its own from one generator, so a batch depends on that generator's seed
alone. The same ways serve batches from memory and from files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dltool.errors import ConfigError, closest

# name: what it does to each image
WAYS = {
    "flip": "mirrored left and right, one in two",
    "alternating-flip": "mirrored in every other epoch",
    "vflip": "mirrored top and bottom, one in two",
    "crop": "shifted by up to an eighth of each side",
    "rotate": "turned by up to 15 degrees",
    "scale": "magnified by 0.8 to 1.25",
    "color": "brightness, contrast, saturation and hue",
    "cutout": "a square of half the side becomes the mean colour",
    "erase": "a rectangle of noise, one in two",
    "mixup": "overlaid with another, labels too",
    "cutmix": "a rectangle from another, labels too",
}
AUGMENTATIONS = tuple(WAYS)
MIXES = ("mixup", "cutmix")
CROP_FRACTION = 0.125
TURN_DEGREES = 15.0
ZOOM = 1.25
STRENGTH = 0.2
HUE_TURN = 0.05
ERASE_AREA = (0.02, 0.33)
ERASE_ASPECT = 0.3
# the luma and chroma axes of NTSC video: hue is an angle in the last two
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def check_augmentations(names: Sequence[str]) -> None:
    """Refuse unknown names of augmentations.

    Raises:
        ConfigError: E206, with the nearest name.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            near = closest(name, AUGMENTATIONS)
            raise ConfigError(
                "E206",
                f"no augmentation is named {name!r}",
                expected=", ".join(AUGMENTATIONS),
                cure=f"did you mean {near}?" if near else "choose one of these",
            )


def augment(
    images: Tensor,
    names: Sequence[str],
    generator: torch.Generator,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Change every image of a batch at random, by the named ways in the order given.

    "crop" shifts by at least 2 pixels, or 1 where the side is below 16; what moves in repeats the
    edge, as it does for "rotate" and "scale". "erase" is random erasing (Zhong et al., 2017),
    "cutout" is DeVries and Taylor's of the same year. Ways that mix labels are left to `mix`.

    Args:
        images: (B, C, H, W) uint8; not changed.
        names: of `AUGMENTATIONS`.
        generator: draws, on the device of the images.
        mirrored: (B,) which images "alternating-flip" mirrors; without it, it draws as "flip" does.

    Raises:
        ConfigError: E206, a name is not known.
    """
    check_augmentations(names)
    for name in names:
        if name == "alternating-flip" and mirrored is not None:
            images = _where(mirrored, images.flip(3), images)
        elif name not in MIXES:
            images = _CHANGES[name](images, generator)
    return images


def mix(
    images: Tensor,
    labels: Tensor,
    names: Sequence[str],
    num_classes: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with another one, and their labels in the same shares.

    mixup (Zhang et al., 2018): share * a + (1 - share) * b; cutmix (Yun et al., 2019): a rectangle
    of b in a, the share being what is left of a. Both with shares drawn evenly from 0 to 1, as in
    the papers on CIFAR-10. Where both are named, each batch takes one of them.

    Args:
        images: (B, C, H, W) uint8; not changed.
        labels: (B,) integers.
        names: ways; without "mixup" and "cutmix" among them nothing is done.

    Returns:
        Images, of floats after mixup, and targets (B, num_classes) that sum to 1; or what came in.
    """
    chosen = [name for name in names if name in MIXES]
    if not chosen:
        return images, labels
    device = images.device
    place = torch.randint(len(chosen), (), generator=generator, device=device)
    way = chosen[int(place)] if len(chosen) > 1 else chosen[0]  # reading it waits for the device
    partner = torch.randperm(len(images), generator=generator, device=device)
    share = torch.rand(len(images), generator=generator, device=device)
    if way == "mixup":
        weight = share[:, None, None, None]
        images = weight * images.float() + (1 - weight) * images[partner].float()
    else:
        inside = _rectangles(images, (1 - share).sqrt(), (1 - share).sqrt(), generator)
        images = torch.where(inside, images[partner], images)
        share = 1 - inside.float().mean((1, 2, 3))
    sharp = F.one_hot(labels, num_classes).float()
    share = share[:, None]
    return images, share * sharp + (1 - share) * sharp[partner]


def _where(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    return torch.where(chosen.to(images.device)[:, None, None, None], changed, images)


def _half(images: Tensor, stream: torch.Generator) -> Tensor:
    return torch.rand(len(images), generator=stream, device=images.device) < 0.5


def _between(low: float, high: float, images: Tensor, stream: torch.Generator) -> Tensor:
    """Return a draw from [low, high) for each image, (B,)."""
    draws = torch.rand(len(images), generator=stream, device=images.device)
    return low + (high - low) * draws


def _flip(images: Tensor, stream: torch.Generator) -> Tensor:
    return _where(_half(images, stream), images.flip(3), images)


def _vflip(images: Tensor, stream: torch.Generator) -> Tensor:
    return _where(_half(images, stream), images.flip(2), images)


def _crop(images: Tensor, stream: torch.Generator) -> Tensor:
    count, channels, height, width = images.shape
    rows = _shifted(count, height, stream, images.device)  # (B, H)
    columns = _shifted(count, width, stream, images.device)  # (B, W)
    source = rows[:, :, None] * width + columns[:, None, :]  # (B, H, W), places in one plane
    source = source.reshape(count, 1, height * width).expand(count, channels, -1)
    planes = images.reshape(count, channels, height * width)
    return planes.gather(2, source).reshape(images.shape)


def _shifted(count: int, side: int, stream: torch.Generator, device: torch.device) -> Tensor:
    """Return (count, side) source places, each row shifted by its own draw and held inside."""
    most = max(int(side * CROP_FRACTION), 2 if side >= 16 else 1)
    shifts = torch.randint(-most, most + 1, (count, 1), generator=stream, device=device)
    return (torch.arange(side, device=device) + shifts).clamp(0, side - 1)


def _rotate(images: Tensor, stream: torch.Generator) -> Tensor:
    limit = math.radians(TURN_DEGREES)
    angle = _between(-limit, limit, images, stream)
    return turned(images, angle, torch.ones_like(angle))


def _scale(images: Tensor, stream: torch.Generator) -> Tensor:
    factor = _between(-math.log(ZOOM), math.log(ZOOM), images, stream).exp()
    return turned(images, torch.zeros_like(factor), factor)


def turned(images: Tensor, angle: Tensor, factor: Tensor) -> Tensor:
    """Turn each image about its centre and magnify it, bilinearly; outside is the edge repeated.

    Args:
        images: (B, C, H, W).
        angle: (B,) radians, counterclockwise.
        factor: (B,); 2 shows the middle twice as large.
    """
    height, width = images.shape[2:]
    cosine, sine = angle.cos() / factor, angle.sin() / factor
    # where each pixel comes from, in coordinates from -1 to 1 on both axes whatever the sides are
    rows = [
        torch.stack([cosine, -sine * height / width, torch.zeros_like(sine)], 1),
        torch.stack([sine * width / height, cosine, torch.zeros_like(sine)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return _as_before(moved, images)


def _as_before(changed: Tensor, images: Tensor) -> Tensor:
    """Return floats from 0 to 255 in the kind of numbers that `images` has."""
    if images.is_floating_point():
        return changed.to(images.dtype)
    return changed.round().clamp(0, 255).to(images.dtype)


def _color(images: Tensor, stream: torch.Generator) -> Tensor:
    brightness, contrast, saturation = (
        _between(1 - STRENGTH, 1 + STRENGTH, images, stream) for _ in range(3)
    )
    turn = _between(-HUE_TURN, HUE_TURN, images, stream)
    return recolored(images, brightness, contrast, saturation, turn)


def recolored(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, turn: Tensor
) -> Tensor:
    """Change brightness, then contrast about the mean grey, then saturation, then hue.

    Args:
        images: (B, C, H, W), values 0 to 255; grey ones have no saturation and no hue to change.
        brightness, contrast, saturation: (B,) factors; 1 changes nothing.
        turn: (B,) share of the colour circle; brightness stays as it is.
    """
    factor = [each[:, None, None, None] for each in (brightness, contrast, saturation)]
    x = (images.float() * factor[0]).clamp(0, 255)
    middle = _grey(x).mean((1, 2, 3), keepdim=True)
    x = (middle + (x - middle) * factor[1]).clamp(0, 255)
    if x.shape[1] == 3:
        grey = _grey(x)
        x = (grey + (x - grey) * factor[2]).clamp(0, 255)
        to_chroma = torch.tensor(YIQ, device=x.device)
        angle = turn * 2 * math.pi
        zero, one = torch.zeros_like(angle), torch.ones_like(angle)
        around = torch.stack(
            [
                *(one, zero, zero),
                *(zero, angle.cos(), -angle.sin()),
                *(zero, angle.sin(), angle.cos()),
            ],
            1,
        ).reshape(-1, 3, 3)
        change = torch.linalg.inv(to_chroma) @ around @ to_chroma  # (B, 3, 3)
        x = torch.einsum("bij,bjhw->bihw", change, x)
    return _as_before(x, images)


def _grey(images: Tensor) -> Tensor:
    """Return the brightness (B, 1, H, W)."""
    if images.shape[1] != 3:
        return images
    weights = torch.tensor(YIQ[0], device=images.device)
    return torch.einsum("c,bchw->bhw", weights, images)[:, None]


def _cutout(images: Tensor, stream: torch.Generator) -> Tensor:
    half = torch.full((len(images),), 0.5, device=images.device)
    inside = _rectangles(images, half, half, stream)
    mean = images.float().mean((2, 3), keepdim=True)
    return torch.where(inside, _as_before(mean, images), images)


def _erase(images: Tensor, stream: torch.Generator) -> Tensor:
    area = _between(*ERASE_AREA, images, stream)
    low = math.log(ERASE_ASPECT)
    aspect = _between(low, -low, images, stream).exp()
    inside = _rectangles(images, (area * aspect).sqrt(), (area / aspect).sqrt(), stream)
    inside &= _half(images, stream)[:, None, None, None]
    noise = torch.randint(0, 256, images.shape, generator=stream, device=images.device)
    return torch.where(inside, noise.to(images.dtype), images)


def _rectangles(images: Tensor, tall: Tensor, wide: Tensor, stream: torch.Generator) -> Tensor:
    """Return (B, 1, H, W): inside of a rectangle at a random place, cut off at the border.

    Args:
        tall, wide: (B,) shares of height and width.
    """
    height, width = images.shape[2:]
    rows = _inside(height, tall, images, stream)
    columns = _inside(width, wide, images, stream)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _inside(side: int, share: Tensor, images: Tensor, stream: torch.Generator) -> Tensor:
    length = (share * side).round()  # (B,)
    centre = torch.randint(0, side, (len(images),), generator=stream, device=images.device)
    first = (centre - length / 2).ceil()[:, None]
    place = torch.arange(side, device=images.device)
    return (place >= first) & (place < first + length[:, None])


_CHANGES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "flip": _flip,
    "alternating-flip": _flip,
    "vflip": _vflip,
    "crop": _crop,
    "rotate": _rotate,
    "scale": _scale,
    "color": _color,
    "cutout": _cutout,
    "erase": _erase,
}
