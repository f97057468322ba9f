"""The picture of a comparison: validation and test accuracy of each row, every seed a point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dltool.drawing import BLUE, DPI, GREEN, INK, PALE, drawing, heading, save, shorten

if TYPE_CHECKING:
    from dltool_cnn.compare import Row

SHOWS = "Accuracy of every run, with mean and deviation over the seeds; the best row is above."
LOOKS = (
    ("val_accuracy", "validation (chooses)", BLUE, -0.13),
    ("test_accuracy", "test", GREEN, 0.13),
)


def draw_comparison(labels: Sequence[str], rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw the rows from above in their order."""
    from matplotlib.figure import Figure

    height = 1.6 + 0.5 * len(rows)
    with drawing():
        figure = Figure(figsize=(7.4, height), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        for name, label, color, shift in LOOKS:
            for place, row in enumerate(rows):
                values = row.values[name]
                if not values:
                    continue
                axes.plot(values, [place + shift] * len(values), ".", color=color, alpha=0.5)
                axes.errorbar(
                    row.mean(name),
                    place + shift,
                    xerr=row.deviation(name),
                    fmt="o",
                    markersize=5,
                    capsize=3,
                    color=color,
                    label=label if place == 0 else None,
                )
        axes.set_yticks(range(len(rows)), [shorten(label, 34) for label in labels])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("accuracy")
        axes.grid(axis="x", color=PALE)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
        figure.suptitle(heading(title, 7.4), fontsize=12.5, color=INK)
        save(figure, path, title=title, description=SHOWS)
