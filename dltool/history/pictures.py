"""Overlaid curves of several runs as a PNG or SVG file."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dltool.drawing import (
    BLUE,
    DPI,
    GREEN,
    INK,
    ORANGE,
    PALE,
    RED,
    clean,
    drawing,
    heading,
    log_scale,
    shorten,
    whole_ticks,
)
from dltool.errors import ConfigError
from dltool.files import write_bytes_atomic
from dltool.history.groups import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# after Okabe and Ito (2008), the faint yellow left out
COLORS = (BLUE, RED, GREEN, ORANGE, "#CC79A7", "#56B4E9", INK)
Stroke = Literal["-", "--", ":", "-."]
STROKES: tuple[Stroke, ...] = ("-", "--", ":", "-.")
MOST_POINTS = 2000
LOG_FROM = 30.0


def check_name(path: Path) -> None:
    """Raise ConfigError E202 unless the name ends in .png or .svg."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise ConfigError(
            "E202",
            "curves are written as PNG or SVG",
            received=str(path),
            expected="a name in .png or .svg",
        )


def overlay(panels: Mapping[str, Sequence[Band]], path: Path, title: str) -> None:
    """Draw one panel a metric, its curves over one another, with their deviation as a band.

    Args:
        panels: the curves of each metric, the same labels in the same order in each.
        path: file to write, .png or .svg.
        title: heading of the picture.
    """
    from matplotlib.figure import Figure

    check_name(path)
    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    labels = list(dict.fromkeys(each.label for bands in panels.values() for each in bands))
    below = 0.24 * math.ceil(len(labels) / (2 if _is_short(labels) else 1)) + 0.3
    width, height = 5.2 * columns + 0.6, 3.7 * rows + 0.5 + below
    with drawing():
        figure = Figure(figsize=(width, height), dpi=DPI)
        figure.suptitle(heading(title, width), fontsize=12.5, color=INK, y=1 - 0.12 / height)
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, (metric, bands) in zip(grid, panels.items(), strict=False):
            _draw(axes, metric, bands, labels)
        for axes in list(grid)[len(panels) :]:
            axes.remove()
        _legend(figure, labels)
        figure.tight_layout(rect=(0, below / height, 1, 1 - 0.3 / height))
        _save(figure, path)


def _is_short(labels: Sequence[str]) -> bool:
    return max(map(len, labels), default=0) <= 30


def _draw(axes: Axes, metric: str, bands: Sequence[Band], labels: Sequence[str]) -> None:
    for each in bands:
        color, stroke = look(labels.index(each.label))
        kept = thinned(each.mean)
        x, mean, sd = each.x[kept], each.mean[kept], each.sd[kept]
        marker = "o" if len(each.x) == 1 else None
        axes.plot(x, mean, stroke, color=color, linewidth=1.6, marker=marker)
        axes.fill_between(x, mean - sd, mean + sd, color=color, alpha=0.18, linewidth=0)
    axes.set_title(metric.replace("_", " "), fontsize=11, color=INK)
    axes.set_xlabel(bands[0].axis if bands else "")
    whole_ticks(axes)
    axes.grid(True, axis="y", color=PALE, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = extent(bands)
    if metric.endswith("loss") and low > 0 and high / low >= LOG_FROM:
        log_scale(axes)


def extent(bands: Sequence[Band]) -> tuple[float, float]:
    """Return the smallest and the largest mean."""
    ends = [(float(each.mean.min()), float(each.mean.max())) for each in bands]
    return min((low for low, _ in ends), default=0.0), max((high for _, high in ends), default=1.0)


def look(place: int) -> tuple[str, Stroke]:
    """Return colour and stroke of the curve at this place."""
    return COLORS[place % len(COLORS)], STROKES[place // len(COLORS) % len(STROKES)]


def thinned(values: Any, most: int = MOST_POINTS) -> Any:
    """Return the places of at most `most` values that keep every peak: extremes of each stretch."""
    count = len(values)
    if count <= most:
        return np.arange(count)
    size = math.ceil(count / (most // 2))
    rows = np.pad(values, (0, -count % size), mode="edge").reshape(-1, size)
    starts = np.arange(0, count, size)
    places = [starts + rows.argmin(1), starts + rows.argmax(1), [0, count - 1]]
    return np.unique(np.minimum(np.concatenate(places), count - 1))


def _legend(figure: Figure, labels: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for place in range(len(labels)):
        color, stroke = look(place)
        handles.append(Line2D([], [], color=color, linestyle=stroke, linewidth=1.6))
    figure.legend(
        handles,
        [shorten(clean(label), 70) for label in labels],
        loc="lower center",
        ncols=2 if _is_short(labels) and len(labels) > 1 else 1,
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
    )


def _save(figure: Figure, path: Path) -> None:
    import matplotlib

    content = io.BytesIO()
    # no date and no random names: the same runs give the same bytes
    if path.suffix.lower() == ".svg":
        matplotlib.rcParams["svg.hashsalt"] = "dltool"
        figure.savefig(content, format="svg", metadata={"Date": None})
    else:
        figure.savefig(content, format="png", metadata={"Software": None})
    write_bytes_atomic(path, content.getvalue())
