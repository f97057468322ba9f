"""Draw a burn: rate, temperature and power of every device over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltool.drawing import BLUE, DPI, GREEN, GREY, INK, ORANGE, PALE, RED, drawing, heading, save
from dltool_gpu.bench import shown_rate
from dltool_gpu.burn import Record, Sample

COLORS = (BLUE, ORANGE, GREEN, RED, INK, GREY)


def draw(records: Sequence[Record], path: Path, *, passed: bool) -> None:
    """Write the picture; a quantity that no device tells gets no panel."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    panels: list[tuple[str, Any]] = [("rate", lambda sample: sample.flops)]
    for name, unit in (("temperature", "°C"), ("power", "W")):
        known = [
            getattr(sample.reading, name) is not None
            for record in records
            for sample in record.samples
        ]
        if any(known):
            panels.append((f"{name} ({unit})", _reader(name)))
    with drawing():
        height = 1.2 + 1.9 * len(panels)
        figure = Figure(figsize=(7.2, height), dpi=DPI, layout="constrained")
        row = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (name, value) in zip(row, panels, strict=True):
            for place, record in enumerate(records):
                times = [sample.seconds for sample in record.samples]
                values = [value(sample) for sample in record.samples]
                color = COLORS[place % len(COLORS)]
                axes.plot(times, values, color=color, label=record.device, linewidth=1.2)
            axes.set_ylabel(name)
            axes.grid(True, color=PALE, linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylim(bottom=0)
        row[0].yaxis.set_major_formatter(
            FuncFormatter(lambda rate, _: shown_rate(rate, "FLOP/s") if rate else "0")
        )
        row[0].legend(frameon=False, fontsize=9, loc="lower right")
        row[-1].set_xlabel("seconds")
        names = ", ".join(dict.fromkeys(record.name for record in records))
        end = "passed" if passed else "FAILED"
        title = f"Burn of {names}, {records[0].settings.dtype}: {end}"
        figure.suptitle(heading(title, 7.2), color=INK, fontsize=12)
        save(figure, path)


def _reader(name: str) -> Any:
    def read(sample: Sample) -> float:
        value = getattr(sample.reading, name)
        return float("nan") if value is None else float(value)

    return read
