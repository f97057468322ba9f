"""Pictures of boxes side by side, one for each stage of the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dltool.drawing import INK, drawing, save
from dltool.files import make_folder
from dltool_detect.draw import color

PANEL_INCHES = 4.4
MANY = 60


@dataclass(frozen=True)
class Layer:
    """One panel: boxes over the picture.

    Attributes:
        title: above it. boxes: (N, 4). colors: a number for each box; equal ones look the same.
        objects: (M, 4), drawn in white with a dark line around.
    """

    title: str
    boxes: Tensor
    colors: Sequence[int]
    objects: Tensor | None = None


def draw_stages(pixels: Tensor, layers: Sequence[Layer], path: Path) -> None:
    """Draw the picture (3, H, W) once for each layer, with its boxes, and write a PNG.

    Raises:
        DltoolError: E101, it cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    make_folder(path.parent)
    height, width = pixels.shape[-2:]
    tall = min(max(PANEL_INCHES * height / width, 2.0), 2.5 * PANEL_INCHES)
    with drawing():
        size = (PANEL_INCHES * len(layers) + 0.3, tall + 0.5)
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        for axes, layer in zip(
            figure.subplots(1, len(layers), squeeze=False)[0], layers, strict=True
        ):
            axes.imshow(pixels.permute(1, 2, 0).numpy(), extent=(0, width, height, 0))
            axes.set_title(layer.title, color=INK, fontsize=11)
            axes.set_axis_off()
            thin = 0.6 if len(layer.boxes) > MANY else 1.6
            outlines = [] if layer.objects is None else layer.objects.tolist()
            for box in outlines:
                axes.add_patch(_rectangle(Rectangle, box, "black", 4.0))
                axes.add_patch(_rectangle(Rectangle, box, "white", 2.2))
            for box, number in zip(layer.boxes.tolist(), layer.colors, strict=True):
                ink = tuple(value / 255 for value in color(number))
                axes.add_patch(_rectangle(Rectangle, box, ink, thin))
            axes.set_xlim(0, width)
            axes.set_ylim(height, 0)
        save(figure, path)


def _rectangle(kind: type, box: Sequence[float], ink: object, line: float) -> object:
    corner, sides = (box[0], box[1]), (box[2] - box[0], box[3] - box[1])
    return kind(corner, *sides, fill=False, edgecolor=ink, linewidth=line)
