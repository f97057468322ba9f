"""Pictures of the plane: the decision boundary, the hidden units, and the boundary as it moves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dltool import files
from dltool.drawing import BLUE, DPI, GREY, INK, ORANGE, check_name, drawing, heading, save
from dltool.errors import ConfigError
from dltool_mlp_xor.data import Split
from dltool_mlp_xor.model import Mlp, values_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

GRID = 200
MOST_POINTS = 600
MOST_UNITS, COLUMNS = 16, 8  # of a layer that are drawn; in a row
LEVELS = np.linspace(-1, 1, 11)
FRAME_GRID, FRAME_INCHES, FRAME_DPI, FRAME_MILLISECONDS, FRAME_COLORS = 120, 3.6, 80, 120, 48
LAST_FRAME_MILLISECONDS = 1500


@dataclass(frozen=True)
class Panel:
    """One network with the points it is shown on."""

    title: str
    network: Mlp
    split: Split


@dataclass(frozen=True)
class Window:
    """The part of the plane that is drawn: a grid (G, G) of both coordinates."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]

    @classmethod
    def around(cls, points: Tensor, grid: int = GRID) -> Window:
        """Frame 99 % of the points, with a margin of an eighth."""
        share = points[:100_000].cpu().quantile(torch.tensor([0.005, 0.995]), dim=0)
        low, high = share.numpy()  # (2,) each
        margin = np.maximum((high - low) / 8, 0.1)
        sides = [
            np.linspace(low[i] - margin[i], high[i] + margin[i], grid, dtype=np.float32)
            for i in range(2)
        ]
        return cls(*np.meshgrid(*sides))

    @property
    def points(self) -> Tensor:
        """The grid as points (G * G, 2)."""
        return torch.from_numpy(np.stack([self.x.ravel(), self.y.ravel()], 1))


def boundaries(panels: Sequence[Panel], path: Path, classes: Sequence[str]) -> None:
    """Draw the decision boundary of each network, side by side, with some of its points.

    Raises ConfigError E202 unless the name ends in .png, DltoolError E101 when writing fails.
    """
    from matplotlib.figure import Figure

    check_name(path)
    with drawing():
        width = 4.0 * len(panels) + 0.4
        figure = Figure(figsize=(width, 4.5), dpi=DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(row, panels, strict=True):
            window = Window.around(panel.split.points)
            _draw_plane(axes, window, _signed(panel.network, window))
            _draw_points(axes, panel.split, classes)
            axes.set_title(heading(panel.title, 4.0), fontsize=11, color=INK)
        figure.legend(
            *row[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
        )
        save(figure, path)


def hidden_units(panel: Panel, path: Path) -> None:
    """Draw what each hidden unit gives over the plane, named layer.unit.

    Colours run from the lowest to the highest output of each unit; at most 16 units of a layer.

    Raises ConfigError: E205 for a model without hidden layers, E202 unless the name ends in .png.
    """
    check_name(path)
    if not panel.network.spec.hidden:
        raise ConfigError(
            "E205", "a linear model has no hidden units to draw", cure="train with --hidden 4"
        )
    window = Window.around(panel.split.points, GRID // 2)
    device = panel.network.mean.device
    with torch.no_grad():
        layers = panel.network.hidden_units(window.points.to(device))
    units = [
        (f"{layer}.{unit + 1}", values[:, unit].cpu().numpy().reshape(window.x.shape))
        for layer, values in enumerate(layers, start=1)
        for unit in range(min(values.shape[1], MOST_UNITS))
    ]
    _draw_units(units, path, panel.title)


def _draw_units(units: Sequence[tuple[str, npt.NDArray[Any]]], path: Path, title: str) -> None:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    columns = min(len(units), COLUMNS)
    rows = -(-len(units) // columns)
    width, height = max(1.1 * columns, 3.0), 1.3 * rows + 0.4
    # few colours make a small file, and lines of equal output
    palette = colormaps["viridis"].resampled(12)
    with drawing():
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        figure.suptitle(heading(title, width), fontsize=11, color=INK)
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for place in places[len(units) :]:
            place.set_visible(False)
        for place, (name, picture) in zip(places, units, strict=False):
            place.imshow(picture, origin="lower", cmap=palette, aspect="auto")
            place.set_title(name, fontsize=8, color=INK, pad=2)
            place.set_xticks([])
            place.set_yticks([])
        save(figure, path)


def animate(
    network: Mlp,
    moments: Sequence[tuple[int, dict[str, Tensor]]],
    split: Split,
    classes: Sequence[str],
    path: Path,
) -> None:
    """Write a GIF of the decision boundary, one frame for each moment (epoch, weights).

    Raises ConfigError E202 unless the name ends in .gif, DltoolError E101 when writing fails.
    """
    from PIL import Image

    if path.suffix.lower() != ".gif":
        raise ConfigError("E202", "moving pictures are GIF", received=str(path), expected=".gif")
    window = Window.around(split.points, FRAME_GRID)
    frames = []
    with drawing():
        for epoch, weights in moments:
            network.load_state_dict(weights)
            pixels = _frame(window, _signed(network, window), split, classes, f"epoch {epoch}")
            frames.append(Image.fromarray(pixels).quantize(FRAME_COLORS))
    times = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_FRAME_MILLISECONDS]
    content = io.BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
    files.write_bytes_atomic(path, content.getvalue())


def _frame(
    window: Window,
    values: npt.NDArray[np.float32],
    split: Split,
    classes: Sequence[str],
    title: str,
) -> npt.NDArray[np.uint8]:
    """Return one frame as pixels (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FRAME_INCHES, FRAME_INCHES), dpi=FRAME_DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.88))
    _draw_plane(axes, window, values)
    _draw_points(axes, split, classes, most=200)
    axes.set_title(title, fontsize=10, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(pixels[..., :3])


@torch.no_grad()
def _signed(network: Mlp, window: Window) -> npt.NDArray[np.float32]:
    """Return the network's answer over the window, (G, G) from -1 to 1."""
    output = network(window.points.to(network.mean.device))
    values = values_of(network.spec.loss, output).cpu().numpy()
    answer: npt.NDArray[np.float32] = values.reshape(window.x.shape).clip(-1, 1)
    return answer


def _draw_plane(axes: Axes, window: Window, values: npt.NDArray[np.float32]) -> None:
    axes.contourf(window.x, window.y, values, levels=LEVELS, cmap=_palette())
    if values.min() < 0 < values.max():
        axes.contour(window.x, window.y, values, levels=[0.0], colors=INK, linewidths=1.4)
    axes.set_xlim(window.x.min(), window.x.max())
    axes.set_ylim(window.y.min(), window.y.max())
    axes.tick_params(labelsize=8, colors=GREY)
    axes.spines[:].set_color(GREY)


def _draw_points(axes: Axes, split: Split, classes: Sequence[str], most: int = MOST_POINTS) -> None:
    points, labels = split.points[:most].cpu().numpy(), split.labels[:most].cpu().numpy()
    size = 90 if len(points) <= 8 else 9
    for label, (color, marker) in enumerate(((ORANGE, "o"), (BLUE, "s"))):
        chosen = points[labels == label]
        style: dict[str, Any] = {"c": color, "marker": marker, "s": size, "label": classes[label]}
        axes.scatter(chosen[:, 0], chosen[:, 1], edgecolors="white", linewidths=0.4, **style)


def _palette() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    # the colours of the points, paler: class 0 on the side of -1
    return LinearSegmentedColormap.from_list("classes", ["#F5CE7A", "#FFFFFF", "#86BBDD"])
