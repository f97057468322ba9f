"""Draw the roofline: rate over operations a byte, under what memory and arithmetic allow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dltool.drawing import BLUE, DPI, GREEN, GREY, INK, ORANGE, PALE, RED, drawing, heading, save
from dltool_gpu.bench import shown_rate

COLORS = {"fp32": BLUE, "tf32": ORANGE, "bf16": GREEN, "fp16": RED, "fp8": INK, "fp64": GREY}
LEFT, RIGHT = 1 / 32, 8192.0


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Write the picture of one measurement; operations without arithmetic are not in it."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    points = [case for case in results["cases"] if case["intensity"]]
    ceiling = results["ceiling"]
    with drawing():
        figure = Figure(figsize=(7.2, 4.6), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        used = {case["dtype"] for case in points}
        for dtype, flops in ceiling["flops"].items():
            if dtype in used:
                _roof(axes, dtype, flops, ceiling["bandwidth"])
        for case in points:
            _point(axes, case)
        axes.set(xscale="log", yscale="log", xlim=(LEFT, RIGHT))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown_rate(value, "FLOP/s")))
        axes.set_xlabel("operations for each byte moved (FLOP/B)")
        axes.set_ylabel("rate")
        axes.grid(True, color=PALE, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        text = f"Roofline of {results['name']}, ceiling {ceiling['source']}"
        axes.set_title(heading(text, 7.2), color=INK)
        save(figure, path)


def _roof(axes: Any, dtype: str, flops: float, bandwidth: float) -> None:
    ridge = flops / bandwidth
    label = f"{dtype}: {shown_rate(flops, 'FLOP/s')}"
    color = COLORS.get(dtype, GREY)
    axes.plot(
        [LEFT, ridge, RIGHT], [LEFT * bandwidth, flops, flops], color=color, label=label, zorder=1
    )


def _point(axes: Any, case: Mapping[str, Any]) -> None:
    place = (case["intensity"], case["rate"])
    axes.plot(*place, "o", color=COLORS.get(case["dtype"], GREY), markersize=6, zorder=3)
    axes.annotate(
        case["name"].removesuffix(case["dtype"]).strip(),
        place,
        textcoords="offset points",
        xytext=(7, -11),
        fontsize=8.5,
        color=INK,
    )
