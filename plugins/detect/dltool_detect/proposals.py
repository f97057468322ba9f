"""Selective search: regions that may hold an object, found without learning.

Uijlings et al., 2013. Superpixels are merged, most alike first, and every merger is a region. A
picture gives thousands; R-CNN looked at some 2,000 of each, and most of them are thin, tiny or
nearly the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltool.console import Console, table
from dltool.drawing import check_name
from dltool.errors import MissingExtra
from dltool_detect import boxes as box_ops
from dltool_detect.stage_pictures import Layer, draw_stages
from dltool_detect.teach import Scene, scene

# the search compares all pairs of neighbours; beyond this side it takes minutes
LARGEST_SIDE = 500
MOST_DRAWN = 400
FOUND = 0.5


@dataclass(frozen=True)
class Limits:
    """What makes a region worth looking at.

    Attributes:
        most: regions that are kept. min_share: smallest side as a share of the picture's.
        max_ratio: longest side by shortest. iou: of two that overlap more one is dropped.
    """

    most: int
    min_share: float
    max_ratio: float
    iou: float


def show_proposals(
    image: str,
    objects: Sequence[Sequence[float]],
    *,
    mode: str,
    limits: Limits,
    plot: Path,
    console: Console,
) -> None:
    """Search a picture, thin the regions out, and count what each step leaves.

    Raises:
        MissingExtra: OpenCV with its contributed modules is not installed.
    """
    check_name(plot)
    search = selective_search()
    view = scene(image, objects)
    started = time.perf_counter()
    regions = searched(search, view.pixels, mode)
    seconds = time.perf_counter() - started
    steps = thinned(regions, view.size, limits)
    kept = steps[-1][1]
    rows: list[dict[str, Any]] = [
        {"step": name, "regions": len(boxes), "recall": recall(boxes, view.objects)}
        for name, boxes in steps
    ]
    result = {
        "image": view.name,
        "mode": mode,
        "before": len(regions),
        "after": len(kept),
        "seconds": round(seconds, 3),
        "limits": asdict(limits),
        "steps": rows,
        "proposals": [[round(value, 1) for value in box] for box in kept.tolist()],
        "plot": str(plot),
    }
    _draw(view, regions, kept, plot)
    console.result(result, _text(result))
    console.note(f"picture {plot}")


def selective_search() -> Any:
    """Return OpenCV's selective search.

    Raises:
        MissingExtra: OpenCV is missing, or was built without its contributed modules.
    """
    try:
        from cv2 import ximgproc

        return ximgproc.segmentation.createSelectiveSearchSegmentation()
    except (ImportError, AttributeError) as error:
        raise MissingExtra("cv2.ximgproc", "detect") from error


def searched(search: Any, pixels: Tensor, mode: str) -> Tensor:
    """Return all regions (R, 4) of a picture (3, H, W), in its pixels, in the search's order."""
    height, width = pixels.shape[-2:]
    shrink = min(1.0, LARGEST_SIDE / max(height, width))
    small = pixels
    if shrink < 1:
        from torchvision.transforms.v2 import functional as F2

        size = [max(1, round(height * shrink)), max(1, round(width * shrink))]
        small = F2.resize(pixels, size, antialias=True)
    # OpenCV's order of channels is blue, green, red
    search.setBaseImage(small.flip(0).permute(1, 2, 0).contiguous().numpy())
    if mode == "quality":
        search.switchToSelectiveSearchQuality()
    else:
        search.switchToSelectiveSearchFast()
    found = torch.tensor(search.process(), dtype=torch.float32).view(-1, 4)  # x, y, width, height
    regions = torch.cat([found[:, :2], found[:, :2] + found[:, 2:]], dim=1)
    scale = regions.new_tensor([width / small.shape[-1], height / small.shape[-2]] * 2)
    return regions * scale


def thinned(regions: Tensor, size: tuple[int, int], limits: Limits) -> list[tuple[str, Tensor]]:
    """Return the regions after each step, with the step's name; order is kept."""
    steps = [("found", regions)]
    sides = regions[:, 2:] - regions[:, :2]
    least = regions.new_tensor([size[1], size[0]]) * limits.min_share
    left = regions[(sides >= least).all(1)]
    steps.append((f"sides of {limits.min_share:.0%} or more", left))
    sides = (left[:, 2:] - left[:, :2]).clamp(min=1e-6)
    left = left[sides.amax(1) <= limits.max_ratio * sides.amin(1)]
    steps.append((f"no thinner than 1:{limits.max_ratio:g}", left))
    rank = torch.arange(len(left), 0, -1, dtype=torch.float32)
    left = left[box_ops.nms(left, rank, threshold=limits.iou)]
    steps.append((f"overlapping {limits.iou:g} at most", left))
    steps.append((f"the first {limits.most}", left[: limits.most]))
    return steps


def recall(regions: Tensor, objects: Tensor) -> float | None:
    """Return the share of objects that a region overlaps by half or more; None without objects."""
    if len(objects) == 0:
        return None
    if len(regions) == 0:
        return 0.0
    return float((box_ops.iou(objects, regions).amax(1) >= FOUND).float().mean())


def _draw(view: Scene, regions: Tensor, kept: Tensor, plot: Path) -> None:
    layers = []
    for what, boxes in (("regions found", regions), ("worth looking at", kept)):
        shown = boxes[:MOST_DRAWN]
        colors = list(range(len(shown)))
        layers.append(Layer(f"{len(boxes):,} {what}", shown, colors, view.objects))
    draw_stages(view.pixels, layers, plot)


def _text(result: dict[str, Any]) -> str:
    rows = [
        [row["step"], row["regions"], "–" if row["recall"] is None else f"{row['recall']:.2f}"]
        for row in result["steps"]
    ]
    return (
        f"{result['image']}: {result['before']:,} regions in {result['seconds']:.2f} s, "
        f"{result['after']:,} left\n{table(rows, ['step', 'regions', 'recall at IoU 0.5'])}"
    )
