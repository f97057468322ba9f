"""Pictures that a training leaves in its run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dltool.drawing import GREY, INK, drawing, heading, save
from dltool.files import write_bytes_atomic
from dltool_detect import draw
from dltool_detect.transforms import Batch

MOST_SHOWN = 8
COLUMNS = 4
GAP = 6
TILE = 256


def draw_batch(batch: Batch, classes: Sequence[str], path: Path) -> None:
    """Draw the first training pictures with their boxes, as the detector gets to see them."""
    tiles = []
    for image, boxes, labels in zip(*(part[:MOST_SHOWN].cpu() for part in batch), strict=True):
        known = labels >= 0
        names = [classes[label] for label in labels[known].tolist()]
        colors = [draw.color(label) for label in labels[known].tolist()]
        # names must be readable on small pictures too
        zoom = max(1, round(TILE / image.shape[-1]))
        pixels = np.kron(image.permute(1, 2, 0).numpy(), np.ones((zoom, zoom, 1), np.uint8))
        tiles.append(draw.labelled(pixels, (boxes[known] * zoom).tolist(), names, colors))
    write_bytes_atomic(path, draw.encoded(page(tiles, COLUMNS), ".png"))


def page(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    """Return pictures of one size side by side on a white page."""
    columns = min(columns, len(tiles))
    width, height = tiles[0].size
    rows = -(-len(tiles) // columns)
    size = (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP)
    whole = Image.new("RGB", size, (255, 255, 255))
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        whole.paste(tile, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return whole


def draw_ap(
    records: Sequence[Mapping[str, float]], path: Path, title: str, *, best_epoch: int
) -> None:
    """Draw the validation's AP and AP50 over the epochs, with the epoch that was kept."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [record["epoch"] for record in records]
    with drawing():
        figure = Figure(figsize=(5.4, 3.7), dpi=120, layout="constrained")
        axes = figure.subplots()
        axes.set_title(heading(title, 5.4), color=INK, fontsize=12)
        for key, label in (("val_ap50", "AP50"), ("val_ap", "AP")):
            axes.plot(epochs, [record[key] for record in records], label=label, marker=".")
        axes.axvline(best_epoch, color=GREY, linestyle=":", label="kept")
        axes.set_ylim(0, 1)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("validation")
        axes.legend()
        axes.grid(alpha=0.3)
        save(figure, path)
