"""Pictures of a run, written as PNG without a display.

The same input gives the same bytes: matplotlib's own defaults replace a user's style, and no date
or version is stored. Every writer raises DltoolError E101 when the file cannot be written and
ConfigError E202 when its name does not end in .png.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dltool.drawing import (
    BLUE,
    DPI,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    RED,
    array,
    check_name,
    clean,
    drawing,
    heading,
    log_scale,
    save,
    shorten,
    whole_ticks,
)
from dltool.errors import DataError
from dltool.picture_grid import image_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from dltool.calibration import Bin

__all__ = ["confusion_matrix", "curves", "image_grid", "reliability_diagram"]

CURVES_SHOW = "Each epoch's figures; the dotted line marks the epoch that was kept."
MATRIX_SHOWS = (
    "Rows are true classes, columns answers; numbers count samples, colour is the share of the row."
)
RELIABILITY_SHOWS = (
    "Share of right answers over the stated probability; on the diagonal the probabilities are "
    "honest, below it the model is too sure."
)
LOG_FROM = 30.0  # a loss that spans this factor is drawn on a logarithmic axis
MOST_NUMBERED, MOST_NAMED = 20, 100  # classes with counts in their cells, and with names


@dataclass(frozen=True)
class Line:
    """One curve of a panel, with a gap (NaN) where a record has no finite value."""

    key: str
    label: str
    x: list[float]
    y: list[float]


def curves(
    records: Sequence[Mapping[str, float]],
    path: Path,
    title: str,
    *,
    best_epoch: float | None = None,
) -> None:
    """Draw loss and accuracy over the epochs, with the best epoch marked.

    Args:
        records: one mapping an epoch; keys that end in `loss` and `accuracy` are drawn, each where
            it is present and finite. Without `epoch` the records count from 1.
        path: file to write.
        title: heading of the picture.
        best_epoch: the epoch that was kept; by default the first with the highest `val_accuracy`,
            or else with the lowest `val_loss`.

    Raises:
        DataError E503 when no record holds a loss or an accuracy.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    check_name(path)
    panels = [(kind, lines) for kind in ("loss", "accuracy") if (lines := _lines(records, kind))]
    if not panels:
        raise DataError("E503", "no record holds a loss or an accuracy to draw")
    best = _best_epoch(records) if best_epoch is None else best_epoch
    with drawing():
        width = 4.6 * len(panels)
        figure = Figure(figsize=(width, 3.7), dpi=DPI, layout=ConstrainedLayoutEngine(wspace=0.06))
        figure.suptitle(heading(title, width), fontsize=12.5, color=INK)
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (kind, lines) in zip(row, panels, strict=True):
            _draw_panel(axes, kind, lines, best)
        save(figure, path, title=title, description=CURVES_SHOW)


def _epochs(records: Sequence[Mapping[str, float]]) -> list[float]:
    return [float(record.get("epoch", i)) for i, record in enumerate(records, start=1)]


def _finite(record: Mapping[str, float], key: str) -> float:
    value = record.get(key)
    return float(value) if value is not None and math.isfinite(value) else math.nan


def _lines(records: Sequence[Mapping[str, float]], kind: str) -> list[Line]:
    keys = dict.fromkeys(key for record in records for key in record if key.endswith(kind))
    lines = []
    # the validation curve is drawn over the training curve
    for key in sorted(keys, key=lambda key: not key.startswith("train")):
        values = [_finite(record, key) for record in records]
        if not all(map(math.isnan, values)):
            name = key.removesuffix(kind).strip("_ ").replace("_", " ")
            label = {"": kind, "val": "validation"}.get(name, name)
            lines.append(Line(key, label, _epochs(records), values))
    return lines


def _best_epoch(records: Sequence[Mapping[str, float]]) -> float | None:
    for key, sign in (("val_accuracy", -1), ("val_loss", 1)):
        values = [(sign * _finite(record, key), i) for i, record in enumerate(records)]
        known = [pair for pair in values if not math.isnan(pair[0])]
        if known:
            return _epochs(records)[min(known)[1]]
    return None


def _draw_panel(axes: Axes, kind: str, lines: Sequence[Line], best: float | None) -> None:
    for place, line in enumerate(lines):
        color, dashes = _look(line.key, place)
        marker = "o" if len(line.x) <= 40 else None
        axes.plot(
            line.x, line.y, dashes, color=color, label=line.label, marker=marker, markersize=3.5
        )
    _scale_values(axes, kind, lines)
    _scale_epochs(axes, lines[0].x)
    if best is not None:
        _mark_best(axes, kind, lines, best)
    axes.legend(frameon=False, fontsize=10, loc="best")


def _look(key: str, place: int) -> tuple[str, str]:
    """Give the usual curves the same colour and stroke in every picture."""
    usual = {"train": (RED, "--"), "val": (BLUE, "-"), "test": (GREEN, "-.")}
    others = ((ORANGE, ":"), (INK, "-"), (GREY, "--"), (GREEN, ":"))
    for split, look in usual.items():
        if key in (f"{split}_loss", f"{split}_accuracy"):
            return look
    return others[place % len(others)]


def _scale_values(axes: Axes, kind: str, lines: Sequence[Line]) -> None:
    values = [y for line in lines for y in line.y if not math.isnan(y)]
    axes.set_ylabel(kind)
    axes.grid(True, axis="y", color=PALE, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.ticklabel_format(axis="y", useOffset=False)
    low, high = axes.get_ylim()
    if kind == "accuracy" and min(values) >= 0 and max(values) <= 1:
        axes.set_ylim(max(low, -0.02), min(high, 1 + 0.03 * (high - low)))
    elif min(values) > 0 and max(values) / min(values) >= LOG_FROM:
        log_scale(axes)
        axes.set_ylabel(f"{kind} (log scale)")


def _scale_epochs(axes: Axes, epochs: Sequence[float]) -> None:
    axes.set_xlabel("epoch")
    whole_ticks(axes)
    if len(set(epochs)) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
        axes.set_xticks([epochs[0]])


def _mark_best(axes: Axes, kind: str, lines: Sequence[Line], best: float) -> None:
    axes.axvline(best, color=GREY, linewidth=1, linestyle=":", zorder=0)
    for line in lines:
        if line.key != f"val_{kind}" or best not in line.x:
            continue
        value = line.y[line.x.index(best)]
        if not math.isnan(value):
            axes.plot([best], [value], "o", markersize=10, markerfacecolor="none", color=INK)
            number = f"{value:.4f}" if kind == "accuracy" else f"{value:.4g}"
            text = f"{line.label} {kind} {number} at best epoch {best:g}"
            axes.set_title(text, fontsize=10.5, color=INK)


def confusion_matrix(
    matrix: Tensor | npt.NDArray[np.int64], classes: Sequence[str], path: Path, title: str
) -> None:
    """Draw a confusion matrix: colour is the share of the true class, numbers are counts.

    Args:
        matrix: (C, C) counts, row = true class. A row without a sample stays grey.
        classes: C names; long ones are shortened. Above 20 classes the counts are left out.
        path: file to write.
        title: heading of the picture.

    Raises:
        DataError E506: names and matrix differ in number.
    """
    check_name(path)
    counts = array(matrix)
    size = len(classes)
    if size == 0 or counts.shape != (size, size):
        raise DataError(
            "E506",
            "class names do not fit the confusion matrix",
            received=f"{size} names, matrix {counts.shape}",
        )
    side = min(max(0.46 * size, 2.8), 12.0)
    with drawing():
        figure, axes, bar = _matrix_figure(side)
        axes.set_title(heading(title, side + 1.5), color=INK)
        _draw_shares(figure, axes, bar, counts)
        cell = 72 * side / size
        _label_classes(axes, classes, cell)
        if size <= MOST_NUMBERED:
            _write_counts(axes, counts, cell)
        save(figure, path, cut=True, title=title, description=MATRIX_SHOWS)


def _matrix_figure(side: float) -> tuple[Figure, Axes, Axes]:
    """Return a figure with a square of `side` inches and a colour bar of the same height."""
    from matplotlib.figure import Figure

    width, height = side + 3.0, side + 2.0
    figure = Figure(figsize=(width, height), dpi=DPI)
    axes = figure.add_axes((1.8 / width, 1.2 / height, side / width, side / height))
    left = 1.8 + side + 0.15
    bar = figure.add_axes((left / width, 1.2 / height, 0.2 / width, side / height))
    return figure, axes, bar


def _shares(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    support = counts.sum(1, keepdims=True)
    return np.where(support > 0, counts / np.maximum(support, 1), np.nan)


def _draw_shares(figure: Figure, axes: Axes, place: Axes, counts: npt.NDArray[Any]) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    # the square root lets one wrong answer in a hundred be seen beside the full diagonal
    palette = colormaps["Blues"].with_extremes(bad="#DDDDDD")
    picture = axes.imshow(_shares(counts), cmap=palette, norm=PowerNorm(0.5, 0, 1))
    bar = figure.colorbar(picture, cax=place)
    ticks = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
    bar.set_ticks(ticks, labels=[f"{tick:.0%}" for tick in ticks])
    bar.set_label("share of the true class")
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")


def _label_classes(axes: Axes, classes: Sequence[str], cell: float) -> None:
    """Name rows and columns in letters that fit cells of `cell` points."""
    longest = 18 if len(classes) <= 30 else 13
    size = min(10.0, max(0.72 * cell, 4.5))
    step = math.ceil(len(classes) / MOST_NAMED)
    places = range(0, len(classes), step)
    names = [shorten(clean(classes[place]), longest) for place in places]
    fits = max(map(len, names)) * 0.65 * size <= cell * step
    axes.set_xticks(places, names, fontsize=size, rotation=0 if fits else 90)
    axes.set_yticks(places, names, fontsize=size)
    axes.tick_params(length=0)


def _write_counts(axes: Axes, counts: npt.NDArray[Any], cell: float) -> None:
    shares = _shares(counts)
    texts = {(i, j): f"{counts[i, j]:,}" for i, j in np.argwhere(counts > 0)}
    if _letter_size(texts.values(), cell) < 7:
        texts = {(i, j): _compact(int(counts[i, j])) for i, j in texts}
    size = _letter_size(texts.values(), cell)
    for (row, column), text in texts.items():
        color = "white" if shares[row, column] > 0.3 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)


def _letter_size(texts: Collection[str], cell: float) -> float:
    return min(10.0, 0.86 * cell / (0.64 * max(map(len, texts), default=1)))


def _compact(count: int) -> str:
    for power, letter in ((1_000_000, "M"), (1_000, "k")):
        if count >= 10 * power:
            return f"{count / power:.0f}{letter}"
    return str(count)


def reliability_diagram(bins: Sequence[Bin], path: Path, title: str, *, error: float) -> None:
    """Draw how often a model is right over how sure it is, with the number of samples below.

    Args:
        bins: from `calibration.reliability`.
        path: file to write.
        title: heading of the picture.
        error: the expected calibration error of the bins.
    """
    from matplotlib.figure import Figure

    check_name(path)
    full = [each for each in bins if each.count]
    middles = [(each.low + each.high) / 2 for each in full]
    width = 0.94 / len(bins)
    with drawing():
        figure = Figure(figsize=(5.2, 5.6), dpi=DPI)
        figure.suptitle(heading(title, 5.2), fontsize=12.5, color=INK)
        upper = figure.add_axes((0.15, 0.33, 0.81, 0.55))
        upper.bar(middles, [each.accuracy or 0 for each in full], width, color=BLUE)
        upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
        upper.set_title(f"calibration error {error:.4f} in {len(bins)} bins", fontsize=10.5)
        upper.set(ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.02))
        lower = figure.add_axes((0.15, 0.1, 0.81, 0.16))
        lower.bar(middles, [each.count for each in full], width, color=GREY)
        lower.set(xlabel="probability of the answer", ylabel="samples", xlim=(0, 1))
        for axes in (upper, lower):
            axes.spines[["top", "right"]].set_visible(False)
        _log_counts(lower, max(each.count for each in full))
        save(figure, path, title=title, description=RELIABILITY_SHOWS)


def _log_counts(axes: Axes, most: int) -> None:
    from matplotlib.ticker import NullLocator

    axes.set(yscale="log", ylim=(0.5, 2 * most))  # bins of one sample show too
    powers = [10**power for power in range(0, len(str(most)), 1 if most < 1000 else 2)]
    axes.set_yticks(powers, [f"{power:,}" for power in powers])
    axes.yaxis.set_minor_locator(NullLocator())
