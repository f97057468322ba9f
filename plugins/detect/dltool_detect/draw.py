"""Draw boxes with their names on a picture."""

from __future__ import annotations

import colorsys
import importlib.util
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dltool.drawing import clean, shorten
from dltool_detect.detections import Detections

Pixels = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

# Okabe and Ito (2008): told apart with every common colour-vision deficiency
FIRST_COLORS: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (240, 228, 66),
)
GOLDEN = 0.618033988749895
JPEG_QUALITY = 92
LONGEST_NAME = 40
TRUTH_COLOR: Color = (255, 255, 255)


def color(label: int) -> Color:
    """Return a class's colour; the same class has the same in every picture."""
    if label < len(FIRST_COLORS):
        return FIRST_COLORS[label]
    red, green, blue = colorsys.hsv_to_rgb((label * GOLDEN) % 1, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def boxes_on(pixels: Pixels, found: Detections, classes: Sequence[str]) -> Image.Image:
    """Return the picture with each detection's box, name and score; the surest are on top.

    Args:
        pixels: (H, W, 3) RGB, left as they are.
    """
    names = [
        f"{classes[label]} {score:.2f}"
        for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    ]
    colors = [color(label) for label in found.labels.tolist()]
    return labelled(pixels, found.boxes.tolist(), names, colors)


def labelled(
    pixels: Pixels,
    boxes: Sequence[Sequence[float]],
    names: Sequence[str],
    colors: Sequence[Color],
) -> Image.Image:
    """Return the picture with boxes and their names; the first box is drawn last, on top."""
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    side = max(image.size)
    width = max(2, round(side / 300))
    size = max(11, round(side / 45))
    for box, name, ink in reversed(list(zip(boxes, names, colors, strict=True))):
        corners = _on_picture(box, image.size)
        pen.rectangle(corners, outline=ink, width=width)
        if name:
            _name(pen, corners, shorten(clean(name), LONGEST_NAME), ink, size, image.size)
    return image


def _on_picture(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top = (min(max(0, round(value)), end - 1) for value, end in zip(box, size, strict=False))
    right = min(max(left, round(box[2]) - 1), size[0] - 1)
    bottom = min(max(top, round(box[3]) - 1), size[1] - 1)
    return left, top, right, bottom


def _name(
    pen: Any, corners: Sequence[int], text: str, ink: Color, size: int, bounds: tuple[int, int]
) -> None:
    """Write a name above its box, or inside where there is no room, on a plate of its colour."""
    font = _font(size, text.isascii())
    _, _, text_width, _ = pen.textbbox((0, 0), text, font=font)
    width, height = round(text_width) + 6, size + 4
    left = max(0, min(corners[0], bounds[0] - width))
    top = corners[1] - height if corners[1] >= height else corners[1]
    pen.rectangle((left, top, left + width - 1, top + height - 1), fill=ink)
    # the plate's brightness as the eye weighs it (ITU-R BT.601)
    is_light = 0.299 * ink[0] + 0.587 * ink[1] + 0.114 * ink[2] > 140
    pen.text((left + 3, top + height / 2), text, (0, 0, 0) if is_light else TRUTH_COLOR, font, "lm")


@lru_cache(maxsize=32)
def _font(size: int, is_ascii: bool) -> Any:
    if not is_ascii:
        # Pillow's own font has Latin letters only; matplotlib brings one with far more
        spec = importlib.util.find_spec("matplotlib")
        if spec is not None and spec.origin is not None:
            file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
            if file.exists():
                return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def encoded(image: Image.Image, suffix: str) -> bytes:
    """Return a picture as the bytes of a file with this suffix, .jpg or .png."""
    stream = io.BytesIO()
    if suffix.lower() in (".jpg", ".jpeg"):
        image.save(stream, "JPEG", quality=JPEG_QUALITY)
    else:
        image.save(stream, "PNG", compress_level=3)
    return stream.getvalue()
