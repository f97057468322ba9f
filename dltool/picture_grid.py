"""Pictures side by side, each with its title, in one PNG file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dltool.drawing import DPI, GREY, INK, RED, array, check_name, clean, drawing, save, shorten
from dltool.errors import ConfigError, DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

Picture = npt.NDArray[np.uint8]

MOST_PICTURES = 100
GRID_WIDTH, GAP, LINE_HEIGHT, FRAME = 1320, 10, 19, 4  # pixels
TEXT_SIZE = 7.5  # points


@dataclass(frozen=True)
class Grid:
    """The layout of a picture grid, in pixels; `lines` is the height of a title in lines."""

    count: int
    columns: int
    tile: int
    lines: int
    note: bool

    @property
    def pitch(self) -> int:
        return self.tile + self.lines * LINE_HEIGHT + 2 * GAP

    @property
    def width(self) -> int:
        return self.columns * (self.tile + GAP) + GAP

    @property
    def height(self) -> int:
        rows = math.ceil(self.count / self.columns)
        return rows * self.pitch + GAP + (LINE_HEIGHT + GAP if self.note else 0)

    def corner(self, index: int) -> tuple[int, int]:
        """Return x and y of the tile's upper left corner, counted from the upper left."""
        row, column = divmod(index, self.columns)
        return GAP + column * (self.tile + GAP), GAP + row * self.pitch


def image_grid(
    images: Tensor | Sequence[npt.NDArray[np.uint8]],
    titles: Sequence[str],
    path: Path,
    *,
    columns: int | None = None,
    wrong: Sequence[bool] | None = None,
    title: str = "",
    description: str = "",
) -> None:
    """Draw pictures side by side, each with its title beneath.

    Args:
        images: uint8 tensor (N, C, H, W), or N arrays (H, W) or (H, W, C) of any sizes; C is 1
            (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA). The first 100 are drawn, with a note.
        titles: N texts; a line break is kept, each part is folded into at most two lines.
        path: file to write.
        columns: pictures a row; by default wider than high.
        wrong: N flags; those pictures get a frame, another text colour and a cross.
        title, description: what the file's text fields say of the whole.

    Raises:
        DataError E502 for pictures of another kind, E503 for none, E506 for other numbers of
        titles or flags; ConfigError E202 for columns < 1.
    """
    check_name(path)
    flags = [False] * len(images) if wrong is None else [bool(flag) for flag in wrong]
    _check_grid(len(images), len(titles), len(flags), columns)
    pictures = [_rgb(picture) for picture in _pictures(images[:MOST_PICTURES])]
    marked = [f"✗ {t}" if bad else t for t, bad in zip(titles, flags, strict=True)]
    count = len(pictures)
    across = min(count, columns or math.ceil(math.sqrt(1.5 * count)))
    tile = min(max(GRID_WIDTH // across, 96), 300)
    with drawing():
        folded = _fold_titles(marked[:count], tile)
        lines = max(text.count("\n") + 1 for text in folded)
        grid = Grid(count, across, tile, lines, note=len(images) > count)
        figure = _grid_figure(grid, pictures, folded, flags)
        if grid.note:
            text = f"the first {count} of {len(images)} pictures"
            figure.text(0.5, GAP / grid.height, text, ha="center", fontsize=TEXT_SIZE, color=GREY)
        save(figure, path, title=title, description=description)


def _check_grid(images: int, titles: int, flags: int, columns: int | None) -> None:
    if images == 0:
        raise DataError("E503", "there is no picture to draw")
    if not images == titles == flags:
        raise DataError(
            "E506",
            "titles do not fit the pictures",
            received=f"{images} pictures, {titles} titles, {flags} flags",
        )
    if columns is not None and columns < 1:
        raise ConfigError("E202", "the number of columns is out of range", received=columns)


def _pictures(images: Any) -> list[npt.NDArray[Any]]:
    if hasattr(images, "detach"):
        return list(np.moveaxis(array(images), 1, -1))
    return [np.asarray(image) for image in images]


def _rgb(image: npt.NDArray[Any]) -> Picture:
    """Return (H, W, 3) on white."""
    picture = image[:, :, None] if image.ndim == 2 else image
    fits = picture.ndim == 3 and picture.shape[2] in (1, 2, 3, 4) and picture.size > 0
    if picture.dtype != np.uint8 or not fits:
        raise DataError(
            "E502",
            "a picture to draw has another type or shape",
            received=f"{image.dtype} {image.shape}",
            expected="uint8 (H, W) or (H, W, 1 to 4)",
        )
    if picture.shape[2] in (2, 4):
        color, alpha = picture[..., :-1].astype(np.float64), picture[..., -1:] / 255.0
        picture = np.rint(color * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


def _fold_titles(titles: Sequence[str], width: int) -> list[str]:
    from matplotlib.backends import backend_agg
    from matplotlib.font_manager import FontProperties

    agg: Any = backend_agg  # its renderer has no types
    renderer = agg.RendererAgg(1, 1, DPI)
    font = FontProperties(size=TEXT_SIZE)

    def fits(text: str) -> bool:
        return bool(renderer.get_text_width_height_descent(text, font, ismath=False)[0] <= width)

    return ["\n".join(_fold(title, fits)) for title in titles]


def _fold(title: str, fits: Callable[[str], bool]) -> list[str]:
    """Fold each line of a title once where it must be, and shorten what is still too wide."""
    lines = []
    for part in title.splitlines()[:3] or [""]:
        words = shorten(clean(part), 120).split()
        first = len(words)
        while first > 1 and not fits(" ".join(words[:first])):
            first -= 1
        lines.append(" ".join(words[:first]))
        if first < len(words):
            lines.append(" ".join(words[first:]))
    return [_shorten_to_fit(line, fits) for line in lines]


def _shorten_to_fit(text: str, fits: Callable[[str], bool]) -> str:
    length = len(text)
    while length > 1 and not fits(shorten(text, length)):
        length -= 1
    return shorten(text, length)


def _grid_figure(
    grid: Grid, pictures: Sequence[Picture], titles: Sequence[str], flags: Sequence[bool]
) -> Figure:
    from matplotlib.figure import Figure

    canvas = np.full((grid.height, grid.width, 3), 255, np.uint8)
    figure = Figure(figsize=(grid.width / DPI, grid.height / DPI), dpi=DPI)
    for index, (picture, title, bad) in enumerate(zip(pictures, titles, flags, strict=False)):
        x, y = grid.corner(index)
        _paste(canvas[y : y + grid.tile, x : x + grid.tile], picture, bad)
        figure.text(
            (x + grid.tile / 2) / grid.width,
            1 - (y + grid.tile + FRAME) / grid.height,
            title,
            ha="center",
            va="top",
            fontsize=TEXT_SIZE,
            linespacing=1.1,
            color=RED if bad else INK,
        )
    figure.figimage(canvas, origin="upper")
    return figure


def _paste(tile: Picture, picture: Picture, bad: bool) -> None:
    """Put a picture at the bottom of its square tile, in the middle, with a frame around it."""
    frame = FRAME if bad else 1
    scaled = _scaled(picture, len(tile) - 2 * FRAME)
    height, width = scaled.shape[:2]
    left, top = (len(tile) - width) // 2, len(tile) - FRAME - height
    color = [int(RED[i : i + 2], 16) for i in (1, 3, 5)] if bad else [200, 200, 200]
    tile[top - frame : top + height + frame, left - frame : left + width + frame] = color
    tile[top : top + height, left : left + width] = scaled


def _scaled(picture: Picture, side: int) -> Picture:
    """Fit a picture into a square: small ones by whole factors, so that their pixels stay sharp."""
    from PIL import Image

    height, width = picture.shape[:2]
    factor = side / max(height, width)
    if factor >= 2:
        return picture.repeat(int(factor), 0).repeat(int(factor), 1)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))
