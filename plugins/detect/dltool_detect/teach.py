"""Anchors and suppression on a picture, with the numbers behind them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltool.console import Console, table
from dltool.device import generator
from dltool.drawing import check_name
from dltool.errors import ConfigError, DataError
from dltool.files import explained, read_limited
from dltool_detect import boxes as box_ops
from dltool_detect import shapes
from dltool_detect.data import read_picture
from dltool_detect.stage_pictures import Layer, draw_stages

MADE_UP = "a made-up picture"
MOST_SHOWN_ROWS = 20
MOST_DETECTIONS = 5000


@dataclass(frozen=True)
class Scene:
    """A picture with objects.

    Attributes:
        pixels: (3, H, W) uint8. objects: (M, 4) in its pixels. name: what the user sees.
    """

    pixels: Tensor
    objects: Tensor
    name: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[-2], self.pixels.shape[-1]


def scene(image: str, objects: Sequence[Sequence[float]]) -> Scene:
    """Read a picture, or make one up with its objects.

    Raises:
        DataError: E501 or E502, it cannot be read.
        ConfigError: E202, an object lies outside.
    """
    found = torch.tensor(objects, dtype=torch.float32).view(-1, 4)
    if image:
        path = Path(image)
        if not path.is_file():
            raise DataError("E501", f"there is no file {image}", cure="check the path")
        with explained(path):
            pixels = read_picture(path.read_bytes(), image)
        view = Scene(pixels, found, image)
    else:
        made = shapes.sets()["train"]
        place = next(k for k, item in enumerate(made.items) if len(item.boxes) == 3)
        own = made.items[place].boxes
        view = Scene(made.read(place), found if objects else own, MADE_UP)
    _refuse_outside(view)
    return view


def _refuse_outside(view: Scene) -> None:
    height, width = view.size
    limit = torch.tensor([width, height]) + 1e-3
    for box in view.objects:
        if bool((box < 0).any() | (box[2:] > limit).any()):
            raise ConfigError(
                "E202",
                "--box lies outside the picture",
                received=",".join(f"{value:g}" for value in box.tolist()),
                expected=f"0,0 to {width},{height}",
                cure="give pixels of the upright picture",
            )


def show_anchors(
    image: str,
    objects: Sequence[Sequence[float]],
    *,
    rows: int,
    columns: int,
    scales: Sequence[float],
    ratios: Sequence[float],
    iou: float,
    plot: Path,
    console: Console,
) -> None:
    """Lay anchors over a picture, assign them to its objects, and show offsets and back."""
    check_name(plot)
    view = scene(image, objects)
    height, width = view.size
    side = (height * width) ** 0.5
    sizes = box_ops.anchor_shapes([scale * side for scale in scales], ratios)
    anchors = box_ops.anchors(rows, columns, view.size, sizes)
    assignment = box_ops.assign(anchors, view.objects, high=iou, low=iou)
    lines = [
        _object_row(number, view.objects[number], anchors, assignment)
        for number in range(len(view.objects))
    ]
    matched = int((assignment.index >= 0).sum())
    result: dict[str, Any] = {
        "image": view.name,
        "height": height,
        "width": width,
        "grid": [rows, columns],
        "pixels_a_place": [height / rows, width / columns],
        "anchors_a_place": len(sizes),
        "anchors": len(anchors),
        "positive": matched,
        "background": len(anchors) - matched,
        "iou": iou,
        "objects": lines,
        "plot": str(plot),
    }
    middle = (rows // 2 * columns + columns // 2) * len(sizes)
    draw_stages(
        view.pixels,
        [
            Layer(
                f"{len(sizes)} anchors at one of {rows}x{columns} places",
                anchors[middle : middle + len(sizes)],
                list(range(len(sizes))),
            ),
            Layer(
                f"{matched} of {len(anchors)} answer for an object",
                anchors[assignment.index >= 0],
                assignment.index[assignment.index >= 0].tolist(),
                view.objects,
            ),
        ],
        plot,
    )
    console.result(result, _anchors_text(result))
    console.note(f"picture {plot}")


def _object_row(
    number: int, box: Tensor, anchors: Tensor, assignment: box_ops.Assignment
) -> dict[str, Any]:
    """Tell of one object its best anchor, the offsets from there, and the way back."""
    overlaps = box_ops.iou(anchors, box[None])[:, 0]
    best = int(overlaps.argmax())
    offsets = box_ops.encode(box, anchors[best])
    back = box_ops.decode(offsets, anchors[best])
    return {
        "object": number,
        "box": _rounded(box, 2),
        "anchors": int((assignment.index == number).sum()),
        "best_anchor": best,
        "best_iou": round(float(overlaps[best]), 4),
        "offsets": _rounded(offsets, 4),
        "decoding_error": float((back - box).abs().max()),
    }


def _rounded(values: Tensor, digits: int) -> list[float]:
    return [round(value, digits) for value in values.tolist()]


def _anchors_text(result: dict[str, Any]) -> str:
    rows, columns = result["grid"]
    tall, wide = result["pixels_a_place"]
    head = (
        f"{result['image']}: {result['height']}x{result['width']} pixels, map {rows}x{columns}, "
        f"a place is {tall:.4g}x{wide:.4g} pixels\n"
        f"{result['anchors_a_place']} anchors a place, {result['anchors']} in all: "
        f"{result['positive']} answer for an object, {result['background']} are background"
    )
    if not result["objects"]:
        return f"{head}\nname objects with --box X1,Y1,X2,Y2 to see which anchors answer for them"
    lines = [
        [
            line["object"],
            line["anchors"],
            f"{line['best_iou']:.3f}",
            " ".join(f"{value:+.3f}" for value in line["offsets"]),
            f"{line['decoding_error']:.1e}",
        ]
        for line in result["objects"]
    ]
    names = ["object", "anchors", "best IoU", "offsets tx ty tw th", "error after decoding"]
    return f"{head}\n{table(lines, names)}"


def show_nms(source: str, *, iou: float, per_class: bool, plot: Path, console: Console) -> None:
    """Suppress boxes one by one, compare with torchvision, and show who suppressed whom."""
    check_name(plot)
    if source:
        boxes, scores, labels = read_results(Path(source))
        pixels = _plain(boxes)
    else:
        pixels, boxes, scores, labels = made_up_detections()
    classes = labels if per_class else None
    owner = box_ops.suppressors(boxes, scores, classes, threshold=iou)
    kept = [place for place in range(len(boxes)) if owner[place] == place]
    kept.sort(key=lambda place: -float(scores[place]))
    theirs = box_ops.nms(boxes, scores, classes, threshold=iou).tolist()
    rows = [
        {
            "box": _rounded(boxes[place], 2),
            "score": round(float(scores[place]), 4),
            "label": int(labels[place]),
            "kept": owner[place] == place,
            "suppressed_by": None if owner[place] == place else owner[place],
            "iou": None
            if owner[place] == place
            else round(float(box_ops.iou(boxes[place][None], boxes[owner[place]][None])), 4),
        }
        for place in range(len(boxes))
    ]
    result: dict[str, Any] = {
        "source": source or MADE_UP,
        "iou": iou,
        "per_class": per_class,
        "before": len(boxes),
        "after": len(kept),
        "kept": kept,
        "same_as_torchvision": sorted(kept) == sorted(theirs),
        "boxes": rows,
        "plot": str(plot),
    }
    draw_stages(
        pixels,
        [
            Layer(f"{len(boxes)} detections", boxes, labels.tolist()),
            Layer(
                f"{len(kept)} after suppression at IoU {iou:g}", boxes[kept], labels[kept].tolist()
            ),
        ],
        plot,
    )
    console.result(result, _nms_text(result))
    console.note(f"picture {plot}")


def _nms_text(result: dict[str, Any]) -> str:
    order = sorted(range(result["before"]), key=lambda place: -result["boxes"][place]["score"])
    lines = []
    for place in order[:MOST_SHOWN_ROWS]:
        row = result["boxes"][place]
        fate = "kept" if row["kept"] else f"by {row['suppressed_by']}, IoU {row['iou']:.3f}"
        lines.append([place, row["label"], f"{row['score']:.3f}", fate])
    more = f"\n… and {len(order) - MOST_SHOWN_ROWS} more" if len(order) > MOST_SHOWN_ROWS else ""
    same = "the same boxes as" if result["same_as_torchvision"] else "OTHER boxes than"
    return (
        f"{result['before']} boxes, {result['after']} after suppression at IoU {result['iou']:g}; "
        f"{same} torchvision.ops keeps\n{table(lines, ['box', 'label', 'score', 'fate'])}{more}"
    )


def made_up_detections() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a picture and detections as a network gives them: several an object, a bit off."""
    view = scene("", [])
    stream = generator(0, "detect", "nms")
    labels = torch.arange(len(view.objects)).repeat_interleave(5)
    sides = (view.objects[:, 2:] - view.objects[:, :2]).repeat(1, 2)
    noise = torch.randn(len(labels), 4, generator=stream) * 0.08
    boxes = view.objects[labels] + noise * sides[labels]
    scores = (0.95 - 2.5 * noise.abs().mean(1)).clamp(0.05, 0.99)
    return view.pixels, box_ops.clip(boxes, *view.size), scores, labels


def read_results(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Read detections in COCO's results form: a list of rows with bbox (x, y, width, height).

    Raises:
        DataError: E501 no such file, E502 it is something else, E503 it is empty or too long.
    """
    if not path.is_file():
        raise DataError("E501", f"there is no file {path}", cure="check the path")
    try:
        rows = json.loads(read_limited(path))
        # what --json of dltool detect printed holds the same rows further inside
        rows = rows["data"]["results"] if isinstance(rows, dict) else rows
        pictures = {row.get("image_id") for row in rows}
        boxes = torch.tensor([[float(v) for v in row["bbox"]] for row in rows]).view(-1, 4)
        scores = torch.tensor([float(row["score"]) for row in rows])
        labels = torch.tensor([int(row.get("category_id", 0)) for row in rows], dtype=torch.int64)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        RuntimeError,
    ) as error:
        raise DataError(
            "E502",
            f"{path} holds no detections: {type(error).__name__} {error}",
            expected='[{"bbox": [x, y, width, height], "score": 0.9, "category_id": 1}, …]',
            cure="write them with dltool detect evaluate, or in COCO's results form",
        ) from error
    if not 0 < len(boxes) <= MOST_DETECTIONS or len(pictures) != 1:
        raise DataError(
            "E503",
            f"{path} holds {len(boxes):,} detections on {len(pictures):,} pictures",
            expected=f"1 to {MOST_DETECTIONS:,}, of one picture",
            cure="give the detections of one picture",
        )
    is_finite = torch.isfinite(boxes).all() & torch.isfinite(scores).all()
    if not bool(is_finite & (boxes[:, 2:] > 0).all()):
        raise DataError(
            "E502",
            f"{path} holds boxes without width or height, or numbers that are not finite",
            cure="give x, y, width, height in pixels",
        )
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1), scores, labels


def _plain(boxes: Tensor) -> Tensor:
    """Return an empty picture that holds the boxes."""
    width, height = (min(max(int(value) + 8, 32), 4096) for value in boxes[:, 2:].amax(0))
    return torch.full((3, height, width), 235, dtype=torch.uint8)
