"""Curves as SVG inside of a page: they take the page's colours and need nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from dltool.history.groups import Band
from dltool.history.pictures import LOG_FROM, extent, thinned

if TYPE_CHECKING:
    from dltool.history.log import Column

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 26, 12, 36
MOST_POINTS = 300
COLORS = 8  # as many as the page's style names
LABEL_LENGTH = 60


@dataclass(frozen=True)
class Scale:
    """One axis: where a value is drawn, from `low` at `start` to `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: Any) -> Any:
        """Return the coordinate of a value or an array."""
        import numpy as np

        low, high = self.low, self.high
        if self.is_log:
            value, low, high = np.log10(value), math.log10(low), math.log10(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, *, whole: bool = False) -> list[float]:
        """Return round values inside of the axis."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        locator = (
            LogLocator(subs=(1, 2, 5), numticks=8)
            if self.is_log
            else MaxNLocator(nbins=5, integer=whole, steps=[1, 2, 2.5, 5, 10])
        )
        found = [float(tick) for tick in locator.tick_values(self.low, self.high)]
        return [tick for tick in found if self.low * (1 - 1e-9) <= tick <= self.high * (1 + 1e-9)]


def chart(metric: str, bands: Sequence[Band]) -> Markup:
    """Return one panel: curves with their deviation, axes, and what a screen reader says."""
    low, high = _padded(*extent(bands))
    is_log = metric.endswith("loss") and extent(bands)[0] > 0 and high / max(low, 1e-30) >= LOG_FROM
    left = min(float(each.x.min()) for each in bands)
    right = max(float(each.x.max()) for each in bands)
    side = 0.5 * (left == right)
    x = Scale(left - side, right + side, LEFT, WIDTH - RIGHT)
    if is_log:
        low, high = extent(bands)
    y = Scale(low, high, HEIGHT - BOTTOM, TOP, is_log)
    parts = [*_grid(x, y, bands[0].axis)]
    for place, each in enumerate(bands):
        parts.append(_curve(place % COLORS, place // COLORS % 3, each, x, y))
    said = f"{metric}: " + "; ".join(
        f"{each.label} from {each.mean[0]:.4g} to {each.mean[-1]:.4g}" for each in bands[:8]
    )
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>{}</svg>'
    ).format(WIDTH, HEIGHT, said, said, Markup("").join(parts))


def _padded(low: float, high: float) -> tuple[float, float]:
    if low == high:
        room = abs(low) / 2 or 0.5
        return low - room, high + room
    room = 0.04 * (high - low)
    return low - (room if low - room >= 0 or low < 0 else low), high + room


def _grid(x: Scale, y: Scale, axis: str) -> list[Markup]:
    parts = []
    for tick in y.ticks():
        place = round(float(y.place(tick)), 1)
        line = Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        parts.append(line.format(LEFT, WIDTH - RIGHT, place, place))
        parts.append(_text(LEFT - 6, place + 4, f"{tick:.4g}", "end"))
    for tick in x.ticks(whole=True):
        place = round(float(x.place(tick)), 1)
        parts.append(_text(place, HEIGHT - BOTTOM + 17, f"{tick:g}", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, axis, "middle"))
    return parts


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(x, y, anchor, words)


def _curve(color: int, stroke: int, each: Band, x: Scale, y: Scale) -> Markup:
    import numpy as np

    kept = thinned(each.mean, MOST_POINTS)
    across, mean, sd = x.place(each.x[kept]), each.mean[kept], each.sd[kept]
    parts = []
    known = np.isfinite(sd) & (sd > 0)
    if known.any():
        floor, ceiling = min(y.low, y.high), max(y.low, y.high)
        upper = y.place(np.clip(mean + np.where(known, sd, 0), floor, ceiling))
        lower = y.place(np.clip(mean - np.where(known, sd, 0), floor, ceiling))
        around = _points(
            np.concatenate([across, across[::-1]]), np.concatenate([upper, lower[::-1]])
        )
        parts.append(Markup('<polygon class="band c{}" points="{}"/>').format(color, around))
    if len(kept) == 1:
        spot = Markup('<circle class="spot c{}" r="4" cx="{}" cy="{}"/>')
        place = round(float(across[0]), 1), round(float(y.place(mean)[0]), 1)
        parts.append(spot.format(color, *place))
    line = Markup('<polyline class="curve c{} s{}" points="{}"/>')
    parts.append(line.format(color, stroke, _points(across, y.place(mean))))
    return Markup("").join(parts)


def _points(x: Column, y: Column) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def legend(labels: Sequence[str]) -> Markup:
    """Return the names of the curves beside their colours."""
    item = '<li><i class="key c{}"></i>{}</li>'
    names = (name if len(name) <= LABEL_LENGTH else f"{name[:LABEL_LENGTH]}…" for name in labels)
    items = (Markup(item).format(i % COLORS, escape(name)) for i, name in enumerate(names))
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))
