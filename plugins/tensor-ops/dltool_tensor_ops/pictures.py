"""The pictures of the demos; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltool.drawing import BLUE, GREEN, GREY, INK, ORANGE, PALE, RED, drawing, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

COLORS = (BLUE, ORANGE, GREEN, RED, GREY, INK)
DPI = 110


@contextmanager
def _panels(path: Path, title: str, width: float, height: float, count: int = 1) -> Iterator[Any]:
    """Give `count` axes side by side, and write the file at the end."""
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        figure.suptitle(title, fontsize=12.5, color=INK)
        yield figure.subplots(1, count, squeeze=False)[0]
        save(figure, path)


def _plain(axes: Axes, x: str, y: str, *, grid: bool = True) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(True, color=PALE, linewidth=0.8)
        axes.set_axisbelow(True)


def _log_labels(axes: Axes) -> None:
    """Label logarithmic axes with plain numbers: mathematical text is off in our pictures."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=7))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def histogram(sample: Tensor, path: Path) -> None:
    """Draw normal numbers as a histogram, beside the density that they come from."""
    import numpy as np

    x = np.linspace(-4, 4, 200)
    with _panels(path, "randn(10000): a histogram, not a line", 6, 3.4) as (axes,):
        axes.hist(sample.numpy(), 50, density=True, color=BLUE, alpha=0.5, label="drawn")
        axes.plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), color=INK, label="density")
        _plain(axes, "value", "density")
        axes.legend(frameon=False)


def descents(paths: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw the weight over the epochs."""
    with _panels(path, "One weight, true value 2", 6.4, 3.6) as (axes,):
        for color, (name, values) in zip(COLORS, paths.items(), strict=False):
            axes.plot(range(1, len(values) + 1), values, color=color, label=name, linewidth=1.4)
        axes.axhline(2, color=GREY, linestyle=":", linewidth=1)
        axes.set_ylim(0.5, 3.5)
        _plain(axes, "epoch", "w")
        axes.legend(frameon=False, fontsize=9, ncols=2)


def step_sizes(steps: Sequence[float], curves: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw the error of a central difference over its step."""
    with _panels(path, "Central difference of exp at 0.7", 6, 3.6) as (axes,):
        for color, (name, errors) in zip(COLORS, curves.items(), strict=False):
            axes.loglog(steps, [max(e, 1e-13) for e in errors], "o-", color=color, label=name)
        axes.invert_xaxis()
        _log_labels(axes)
        _plain(axes, "step, smaller to the right", "error of the slope")
        axes.legend(frameon=False)


def masks(panels: Mapping[str, Tensor], path: Path) -> None:
    """Draw masks as squares: blue may be seen."""
    from matplotlib.colors import ListedColormap

    title = "Masks: blue keys may be seen by the query"
    with _panels(path, title, 3 * len(panels), 3.6, len(panels)) as row:
        for axes, (name, mask) in zip(row, panels.items(), strict=True):
            axes.pcolormesh(
                mask.int().numpy(), cmap=ListedColormap([PALE, BLUE]), vmin=0, vmax=1,
                edgecolors="white", linewidth=2,
            )  # fmt: skip
            axes.set(title=name, aspect="equal")
            axes.invert_yaxis()
            places = range(mask.shape[0])
            axes.set_xticks([p + 0.5 for p in places], [str(p) for p in places])
            axes.set_yticks([p + 0.5 for p in places], [str(p) for p in places])
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_xlabel("key")
        row[0].set_ylabel("query")


def encodings(table: Tensor, path: Path) -> None:
    """Draw a table of positional encodings and four of its columns."""
    with _panels(path, "Sinusoidal positions", 9, 3.6, 2) as (left, right):
        picture = left.imshow(table.T.numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        left.figure.colorbar(picture, ax=left)
        left.set(xlabel="position", ylabel="column", title="the whole table")
        for color, column in zip(COLORS, range(6, 10), strict=False):
            right.plot(table[:, column].numpy(), color=color, label=f"column {column}")
        right.set_title("columns 6 to 9")
        right.set_ylim(-1.6, 1.1)
        _plain(right, "position", "value")
        right.legend(frameon=False, fontsize=9, ncols=2, loc="lower center")


def norm_axes(path: Path) -> None:
    """Draw for each normalisation which cells of (N, C) share one mean."""
    sharing: dict[str, Callable[[int, int], bool]] = {
        "batch": lambda n, c: c == 1,
        "layer": lambda n, c: n == 1,
        "instance": lambda n, c: (n, c) == (1, 1),
        "group": lambda n, c: n == 1 and c < 3,
    }
    title = "Blue cells share one mean and variance (each cell holds H x W numbers)"
    with _panels(path, title, 10, 2.6, len(sharing)) as row:
        for axes, (name, together) in zip(row, sharing.items(), strict=True):
            for n in range(4):
                for c in range(6):
                    color = BLUE if together(n, c) else PALE
                    axes.add_patch(_box(c, n, color))
            axes.set(xlim=(0, 6), ylim=(4, 0), aspect="equal", title=name, xlabel="channel C")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel("sample N")


def _box(x: float, y: float, color: str, width: float = 1.0) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, 1, facecolor=color, edgecolor="white", linewidth=1.5)


def losses(path: Path) -> None:
    """Draw three losses over the error, and their slopes."""
    import numpy as np

    error = np.linspace(-3, 3, 301)
    small = np.abs(error) <= 1
    curves = {
        "L1": (np.abs(error), np.sign(error)),
        "L2 / 2": (error**2 / 2, error),
        "Huber, δ = 1": (
            np.where(small, error**2 / 2, np.abs(error) - 0.5),
            np.clip(error, -1, 1),
        ),
    }
    with _panels(path, "Losses and their slopes", 8.4, 3.4, 2) as (left, right):
        for color, (name, (value, slope)) in zip(COLORS, curves.items(), strict=False):
            left.plot(error, value, color=color, label=name)
            right.plot(error, slope, color=color, label=name)
        _plain(left, "error", "loss")
        _plain(right, "error", "slope")
        left.legend(frameon=False)


def formats(
    bits: Mapping[str, tuple[str, str, str]],
    errors: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: Path,
) -> None:
    """Draw the bits of one number in each format, and the rounding error over the magnitude."""
    with _panels(
        path, "Number formats: 1/3 in bits, and where they round how much", 11, 3.8, 2
    ) as (
        left,
        right,
    ):
        for row, (name, parts) in enumerate(bits.items()):
            _draw_bits(left, row, name, parts)
        left.set(xlim=(-9, 64), ylim=(len(bits), -0.4))
        left.set_axis_off()
        left.set_title("grey sign, orange exponent, blue fraction; filled: 1", fontsize=10.5)
        for color, (name, (x, y)) in zip(COLORS, errors.items(), strict=False):
            right.loglog(x, y, color=color, label=name, linewidth=1.4)
        _log_labels(right)
        _plain(right, "magnitude", "largest relative error")
        right.legend(frameon=False, fontsize=9)


def _draw_bits(axes: Axes, row: int, name: str, parts: tuple[str, str, str]) -> None:
    axes.text(-0.8, row + 0.4, name, ha="right", va="center", fontsize=9.5, color=INK)
    place = 0
    for color, part in zip((GREY, ORANGE, BLUE), parts, strict=True):
        for bit in part:
            axes.add_patch(_bit(place, row, color, filled=bit == "1"))
            place += 1


def _bit(place: int, row: int, color: str, *, filled: bool) -> Any:
    from matplotlib.patches import Rectangle

    face = color if filled else "white"
    return Rectangle((place + 0.1, row), 0.8, 0.75, facecolor=face, edgecolor=color, linewidth=1)


def bars(title: str, values: Mapping[str, float], unit: str, path: Path) -> None:
    """Draw one bar a name."""
    with _panels(path, title, 6.4, 0.9 + 0.42 * len(values)) as (axes,):
        _draw_bars(axes, values, unit)


def costs(title: str, peaks: Mapping[str, float], times: Mapping[str, float], path: Path) -> None:
    """Draw peak memory and time of each way to do one thing."""
    with _panels(path, title, 8.4, 1.2 + 0.5 * len(peaks), 2) as (left, right):
        _draw_bars(left, {name: peak / 2**20 for name, peak in peaks.items()}, "MiB at the peak")
        _draw_bars(right, times, "ms, median")
        right.set_yticks([])


def _draw_bars(axes: Axes, values: Mapping[str, float], unit: str) -> None:
    colors = [COLORS[place % 2] for place in range(len(values))]
    drawn = axes.barh(list(values), list(values.values()), color=colors, height=0.65)
    axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize=9.5)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    _plain(axes, unit, "", grid=False)
    axes.tick_params(axis="y", length=0)
