"""Curves as text, for a terminal on a machine without a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dltool.errors import MissingExtra
from dltool.history.groups import Band
from dltool.history.pictures import thinned

COLORS = ("blue", "red", "green", "yellow", "magenta", "cyan", "white")
HEIGHT = 12
MARGIN = 24  # columns that the scale at the left and the name of x take


def has_dots(encoding: str | None) -> bool:
    """Tell whether a stream of this encoding can show braille dots."""
    try:
        "⣿".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def draw(
    panels: Mapping[str, Sequence[Band]], width: int, *, color: bool, dots: bool = True
) -> str:
    """Return one chart a metric, `width` columns wide at most.

    Args:
        color: colour the curves; without, a letter at its end tells which one it is.
        dots: draw in braille dots; without, in the letters themselves.

    Raises:
        MissingExtra: plotille is not installed.
    """
    try:
        import plotille
    except ImportError as error:
        raise MissingExtra("plotille", "terminal") from error
    drawn = "\n\n".join(
        f"{metric}\n{_chart(plotille.Figure(), bands, width, color=color, dots=dots)}"
        for metric, bands in panels.items()
    )
    return drawn if dots else drawn.replace("\u2800", " ")  # the blank among braille dots


def _chart(figure: Any, bands: Sequence[Band], width: int, *, color: bool, dots: bool) -> str:
    figure.width = max(width - MARGIN, 20)
    figure.height = HEIGHT
    figure.with_colors = color
    figure.color_mode = "names"
    figure.origin = False
    figure.x_label, figure.y_label = bands[0].axis, ""
    marks = []
    for place, each in enumerate(bands):
        kept = thinned(each.mean, 4 * figure.width)
        x, y = each.x[kept].tolist(), each.mean[kept].tolist()
        name = COLORS[place % len(COLORS)]
        letter = chr(ord("a") + place % 26)
        # without dots there is no line between the points either
        how = {} if dots else {"interp": None, "marker": letter}
        figure.plot(x, y, lc=name if color else None, label=each.label, **how)
        if not color and len(bands) > 1:
            figure.text([x[-1]], [y[-1]], [letter])
        marks.append(f"  {letter}  {each.label}")
    _scale(figure, bands)
    if color:
        return str(figure.show(legend=True))
    legend = "\n".join(marks) if len(bands) > 1 else f"  {bands[0].label}"
    return f"{figure.show()}\n\n{legend}"


def _scale(figure: Any, bands: Sequence[Band]) -> None:
    """Let the axes end where the curves end; a single point or a constant gets room around it."""
    low = min(float(each.mean.min()) for each in bands)
    high = max(float(each.mean.max()) for each in bands)
    left = min(float(each.x.min()) for each in bands)
    right = max(float(each.x.max()) for each in bands)
    # half a row above the highest value, which would else fall off the canvas
    room = (high - low) / HEIGHT / 2 or abs(low) / 2 or 0.5
    side = 0.5 * (left == right)
    figure.set_y_limits(min_=low - room * (low == high), max_=high + room)
    figure.set_x_limits(min_=left - side, max_=right + side)
    figure.y_ticks_fkt = lambda value, _: f"{value:10.4g}"
    figure.x_ticks_fkt = lambda value, _: f"{value:<9.4g}"
