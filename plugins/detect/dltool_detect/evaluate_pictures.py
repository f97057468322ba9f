"""The pictures of an evaluation: precision and recall, confusions, and where it fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from dltool import plots
from dltool.drawing import DPI, INK, PALE, drawing, heading, save
from dltool.errors import DataError
from dltool.picture_grid import image_grid
from dltool_detect.ap import Report, shown
from dltool_detect.data import DetectionSet, Item
from dltool_detect.detections import Detections
from dltool_detect.draw import TRUTH_COLOR, Pixels, color, labelled
from dltool_detect.matching import above
from dltool_detect.worst import Mistakes

MOST_CURVES = 12
SIDE = 320


def draw_all(
    folder: Path,
    part: str,
    report: Report,
    matrix: Tensor,
    names: Sequence[str],
    truth: DetectionSet,
    found: Sequence[Detections],
    worst: Sequence[Mistakes],
    min_score: float,
) -> dict[str, str]:
    """Write every picture of an evaluation into a folder; return what is where."""
    curves = folder / f"precision-recall-{part}.png"
    confusions = folder / f"confusion-{part}.png"
    failures = folder / f"worst-{part}.png"
    draw_curves(report, curves, f"Precision and recall at IoU 0.5, {part}")
    title = f"Boxes with a score ≥ {min_score:.2f}, {part}"
    plots.confusion_matrix(matrix, names, confusions, title)
    written = {"precision and recall": str(curves), "confusion matrix": str(confusions)}
    if draw_worst(truth, found, worst, min_score, failures):
        written["worst pictures"] = str(failures)
    return written


def draw_curves(report: Report, path: Path, title: str) -> None:
    """Draw each class's precision over its recall; at most the 12 classes with most boxes."""
    from matplotlib.figure import Figure

    rows = sorted((row for row in report.per_class if row.boxes), key=lambda row: -row.boxes)
    recalls = np.linspace(0, 1, 101)
    with drawing():
        figure = Figure(figsize=(6.4, 4.4), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        for row in sorted(rows[:MOST_CURVES], key=lambda row: row.name):
            ink = tuple(value / 255 for value in color(report.per_class.index(row)))
            text = f"{row.name} {shown(row.ap50)} (n = {row.boxes:,})"
            axes.plot(recalls, row.precision, color=ink, label=text, linewidth=2)
        if len(rows) > 1:
            mean = np.mean([row.precision for row in rows], axis=0)
            axes.plot(recalls, mean, "--", color=INK, label=f"mean {shown(report.ap50)}")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
        axes.grid(color=PALE)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9, loc="lower left", title="AP50", labelcolor=INK)
        figure.suptitle(heading(title, 6.4), fontsize=12.5, color=INK)
        save(figure, path)


def draw_worst(
    truth: DetectionSet,
    found: Sequence[Detections],
    worst: Sequence[Mistakes],
    min_score: float,
    path: Path,
) -> bool:
    """Draw the pictures with most mistakes, true boxes white; tell whether there were any."""
    shown_ones = [row for row in worst if row.count]
    if not shown_ones:
        return False
    pictures, titles = [], []
    for row in shown_ones:
        item = truth.items[row.index]
        try:
            pixels = truth.read(row.index).permute(1, 2, 0).numpy()
        except DataError:
            continue  # told where it was read first
        pictures.append(overlaid(pixels, item, above(found[row.index], min_score), truth.classes))
        titles.append(
            f"{item.name}\nmissed {row.missed}, misnamed {row.misnamed}, made up {row.made_up}"
        )
    image_grid(pictures, titles, path, columns=min(4, len(pictures)))
    return True


def overlaid(pixels: Pixels, item: Item, found: Detections, classes: Sequence[str]) -> Pixels:
    """Return a small picture with the true boxes in white below the detections."""
    small, scale = fitted(pixels)
    names = [
        f"{classes[label]} {score:.2f}"
        for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    ]
    colors = [color(label) for label in found.labels.tolist()]
    boxes = [*(found.boxes * scale).tolist(), *(item.boxes * scale).tolist()]
    count = len(item.boxes)
    drawn = labelled(small, boxes, [*names, *[""] * count], [*colors, *[TRUTH_COLOR] * count])
    return np.asarray(drawn)


def fitted(pixels: Pixels) -> tuple[Pixels, float]:
    """Return a picture of about 320 pixels a side, small ones grown by whole factors; its scale."""
    from PIL import Image

    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    if scale >= 1:
        whole = int(scale)
        return np.ascontiguousarray(pixels.repeat(whole, 0).repeat(whole, 1)), float(whole)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR)), scale
