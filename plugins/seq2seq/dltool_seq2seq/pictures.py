"""Pictures of attention, masks, positions and kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from dltool.drawing import BLUE, DPI, GREEN, GREY, INK, ORANGE, check_name, clean, drawing, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LABELS, WIDEST = 60, 14.0


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def attention(weights: Tensor, rows: Sequence[str], columns: Sequence[str], path: Path) -> None:
    """Draw weights (layers, T, S): one panel a layer, one colour scale from 0 to 1.

    Args:
        rows, columns: the target's and the source's tokens.
    """
    check_name(path)
    layers = len(weights)
    side = min(0.28 * len(columns) + 1.2, WIDEST)
    with drawing():
        figure = _figure(
            max(3.4, side) * layers + 0.8, max(2.6, min(0.28 * len(rows) + 1.4, WIDEST))
        )
        panels = figure.subplots(1, layers, squeeze=False)[0]
        for number, (axes, part) in enumerate(zip(panels, weights, strict=True), 1):
            image = axes.imshow(part.numpy(), vmin=0, vmax=1, cmap="Blues", aspect="auto")
            _label(axes, rows if number == 1 else [], columns)
            axes.set_title(f"layer {number}" if layers > 1 else "attention", color=INK)
            axes.set_xlabel("source")
        panels[0].set_ylabel("target, as it is written")
        figure.colorbar(image, ax=list(panels), label="weight")
        save(figure, path)


def _label(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    shown = [_visible(token) for token in columns[:MOST_LABELS]]
    axes.set_xticks(range(len(shown)), shown, rotation=90 if max(map(len, shown)) > 2 else 0)
    names = [_visible(token) for token in rows[:MOST_LABELS]]
    axes.set_yticks(range(len(names)), names)


def _visible(token: str) -> str:
    """Return a token that can be seen, spaces and the byte tokens' mark for one too."""
    return clean(token.replace("Ġ", "␣").replace(" ", "␣")) or "?"


def _count(axes: Axes, matrix: Tensor) -> None:
    """Number rows and columns from 1, not all of them where they are many."""
    for size, setter in ((matrix.shape[0], axes.set_yticks), (matrix.shape[1], axes.set_xticks)):
        shown = range(0, size, -(-size // 15))
        setter(list(shown), [str(place + 1) for place in shown])


def _open(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def masks(source: Tensor, causal: Tensor, target: Tensor, path: Path) -> None:
    """Draw the masks of a batch: source (B, S), causal (T, T), target (B, T); True is seen."""
    check_name(path)
    titles = (
        ("source: padding is not seen", "source place", "sentence"),
        ("decoder: only what was written", "key", "query"),
        ("loss: real tokens only", "target place", "sentence"),
    )
    with drawing():
        figure = _figure(10.5, 3.4)
        for axes, mask, (title, x, y) in zip(
            figure.subplots(1, 3), (source, causal, target), titles, strict=True
        ):
            axes.imshow(mask.numpy(), vmin=0, vmax=1.4, cmap="Blues", aspect="auto")
            axes.set_title(title, color=INK, fontsize=10)
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            _count(axes, mask)
        save(figure, path)


def heat(weights: Tensor, path: Path, title: str, x: str, y: str) -> None:
    """Draw one matrix (rows, columns) as colours."""
    check_name(path)
    with drawing():
        figure = _figure(5.2, 3.8)
        axes = figure.subplots()
        image = axes.imshow(weights.numpy(), cmap="Blues", aspect="auto")
        _count(axes, weights)
        axes.set_title(title, color=INK)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        figure.colorbar(image, ax=axes)
        save(figure, path)


def regression(
    points: tuple[Tensor, Tensor], grid: Tensor, truth: Tensor, fits: dict[str, Tensor], path: Path
) -> None:
    """Draw points, the true curve and the curves of several kernel regressions."""
    check_name(path)
    with drawing():
        figure = _figure(6.2, 4.0)
        axes = figure.subplots()
        _open(axes)
        axes.plot(points[0].numpy(), points[1].numpy(), ".", color=GREY, label="points")
        axes.plot(grid.numpy(), truth.numpy(), "--", color=INK, label="truth")
        for color, (name, values) in zip((BLUE, ORANGE, GREEN), fits.items(), strict=False):
            axes.plot(grid.numpy(), values.numpy(), color=color, label=name)
        axes.set_xlabel("x")
        axes.set_ylabel("y")
        axes.legend(frameon=False)
        save(figure, path)


def lines(table: Tensor, columns: Sequence[int], path: Path, title: str) -> None:
    """Draw chosen columns of positions (places, E) as lines over the places."""
    check_name(path)
    with drawing():
        figure = _figure(6.2, 3.6)
        axes = figure.subplots()
        _open(axes)
        for column in columns:
            axes.plot(table[:, column].numpy(), label=f"column {column}")
        axes.set_title(title, color=INK)
        axes.set_xlabel("place")
        axes.legend(frameon=False, fontsize=8)
        save(figure, path)
