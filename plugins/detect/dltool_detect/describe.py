"""What a data set holds: counts, sizes, shapes, overlaps, faults, and a page of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from dltool.console import Console, table
from dltool.errors import DataError
from dltool.picture_grid import image_grid
from dltool_detect.data import DetectionSet, Pools, read
from dltool_detect.draw import color, labelled
from dltool_detect.evaluate_pictures import fitted

# COCO's borders: 32² and 96² pixels
SMALL, LARGE = 32**2, 96**2
CROWDED_IOU = 0.5
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def describe_data(
    path: str,
    *,
    format: str,
    classes: Sequence[str],
    page: Path | None,
    count: int,
    console: Console,
) -> None:
    """Print what a data set holds and draw some of its pictures.

    Raises:
        DataError: nothing usable is in it.
    """
    pools = read(path, format=format, classes=classes)
    splits = {name: _counts(part) for name, part in pools.pools.items()}
    whole = pools.together()
    boxes = _boxes(whole)
    twins = _twins(pools)
    result: dict[str, Any] = {
        "data": path,
        "format": pools.format,
        "classes": list(pools.classes),
        "splits": splits,
        "boxes": boxes,
        "in_several_splits": twins,
        "problems": pools.problems.as_dict(),
    }
    if page is not None:
        draw_page(whole, page, count)
        result["page"] = str(page)
    for line in pools.problems.lines():
        console.warn(line)
    if twins:
        shown = ", ".join(" = ".join(names) for names in twins[:3])
        console.warn(f"{len(twins)} pictures are in several splits: {shown}")
    console.result(result, _text(result))


def _counts(part: DetectionSet) -> dict[str, Any]:
    labels = torch.cat([item.labels[~item.ignore] for item in part.items])
    by_class = torch.bincount(labels, minlength=len(part.classes)).tolist()
    return {
        "images": len(part),
        "boxes": part.num_boxes,
        "ignored": sum(int(item.ignore.sum()) for item in part.items),
        "without_boxes": sum(not len(item.boxes) for item in part.items),
        "by_class": dict(zip(part.classes, by_class, strict=True)),
    }


def _boxes(whole: DetectionSet) -> dict[str, Any]:
    """Return the spread of sizes, shapes and overlaps of all boxes."""
    sides = torch.cat([item.boxes[:, 2:] - item.boxes[:, :2] for item in whole.items])  # (N, 2)
    pictures = torch.cat(
        [
            torch.tensor([[item.width, item.height]]).expand(len(item.boxes), 2)
            for item in whole.items
        ]
    )
    areas = sides.prod(1)
    shares = (areas / pictures.prod(1)).sqrt()
    overlaps = torch.cat([_highest_overlap(item.boxes) for item in whole.items])
    each = torch.tensor([len(item.boxes) for item in whole.items], dtype=torch.float32)
    return {
        "width": _spread(sides[:, 0]),
        "height": _spread(sides[:, 1]),
        "side_share_of_picture": _spread(shares),
        "aspect_ratio": _spread(sides[:, 0] / sides[:, 1]),
        "per_picture": _spread(each),
        "small": int((areas < SMALL).sum()),
        "medium": int(((areas >= SMALL) & (areas < LARGE)).sum()),
        "large": int((areas >= LARGE).sum()),
        "overlap_with_another": _spread(overlaps),
        "crowded": int((overlaps >= CROWDED_IOU).sum()),
    }


def _highest_overlap(boxes: Tensor) -> Tensor:
    """Return each box's highest IoU with another box of its picture (N,)."""
    overlaps = box_iou(boxes, boxes).fill_diagonal_(0.0)
    return overlaps.amax(1) if len(boxes) else torch.zeros(0)


def _spread(values: Tensor) -> dict[str, float]:
    found = np.quantile(values.numpy().astype(np.float64), QUANTILES)
    return {
        f"{share:.0%}": round(float(value), 4)
        for share, value in zip(QUANTILES, found, strict=True)
    }


def _twins(pools: Pools) -> list[list[str]]:
    """Return the names of files with the same content in more than one split."""
    if len(pools.pools) < 2:
        return []
    seen: dict[bytes, dict[str, str]] = {}
    for role, part in pools.pools.items():
        for item in part.items:
            if part.tree is not None:
                digest = hashlib.blake2b(part.tree.read(item.name), digest_size=16).digest()
                seen.setdefault(digest, {}).setdefault(role, item.name)
    return [list(names.values()) for names in seen.values() if len(names) > 1]


def draw_page(whole: DetectionSet, path: Path, count: int) -> None:
    """Draw evenly spaced pictures with their boxes; those that cannot be decoded are passed over.

    Raises:
        DataError: E502, none can be decoded.
    """
    some = min(count, len(whole))
    pictures, titles = [], []
    for number in range(some):
        index = number * len(whole) // some
        item = whole.items[index]
        try:
            pixels, scale = fitted(whole.read(index).permute(1, 2, 0).numpy())
        except DataError:
            continue
        labels = item.labels.tolist()
        names = [whole.classes[label] for label in labels]
        inks = [color(label) for label in labels]
        pictures.append(np.asarray(labelled(pixels, (item.boxes * scale).tolist(), names, inks)))
        titles.append(f"{item.name}\n{item.width}×{item.height}, {len(labels)} boxes")
    if not pictures:
        raise DataError("E502", "none of the pictures can be decoded")
    image_grid(pictures, titles, path, columns=min(5, len(pictures)))


def _text(result: dict[str, Any]) -> str:
    splits, boxes = result["splits"], result["boxes"]
    rows = [
        [name, *(splits[role]["by_class"][name] for role in splits)] for name in result["classes"]
    ]
    rows.append(["boxes", *(part["boxes"] for part in splits.values())])
    rows.append(["images", *(part["images"] for part in splits.values())])
    rows.append(["without boxes", *(part["without_boxes"] for part in splits.values())])
    kinds = ("width", "height", "side_share_of_picture", "aspect_ratio", "per_picture")
    spreads = [
        [kind.replace("_", " "), *(f"{value:.4g}" for value in boxes[kind].values())]
        for kind in kinds
    ]
    total = boxes["small"] + boxes["medium"] + boxes["large"]
    lines = [
        table(rows, ["class", *splits]),
        "",
        table(spreads, ["boxes", *boxes["width"]]),
        "",
        f"COCO sizes: {boxes['small']} small, {boxes['medium']} medium, {boxes['large']} large",
        f"overlap: {boxes['crowded']} of {total} boxes reach IoU {CROWDED_IOU} with another",
    ]
    if "page" in result:
        lines.append(f"pictures with boxes: {result['page']}")
    return "\n".join(lines)
