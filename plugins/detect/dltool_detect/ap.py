"""Average precision as COCO defines it; the numbers are pycocotools' own.

Lin et al., ECCV 2014 (arXiv:1405.0312): precision at 101 recalls, averaged over IoU 0.50 to 0.95
in steps of 0.05 and over classes that have boxes. A crowd or difficult box is no miss when it is
not found and no error when it is.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from dltool.errors import DataError
from dltool_detect.data import DetectionSet
from dltool_detect.detections import Detections
from dltool_detect.resample import best_cut, bootstrap, class_tables

ALL_AREAS, MOST_FOUND = 0, 2  # places in pycocotools' tables: every size, 100 boxes a picture
# above this many pictures times classes a bootstrap takes longer than it tells
RESAMPLE_LIMIT = 20_000


@dataclass(frozen=True)
class ClassReport:
    """One class: None stands for a figure without a box to measure it on.

    Args:
        precision: (101,) at IoU 0.5 and the recalls 0, 0.01, … 1; empty without boxes.
    """

    name: str
    boxes: int
    found: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ar: float | None
    precision: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {
            "class": self.name,
            "boxes": self.boxes,
            "found": self.found,
            "ap": self.ap,
            "ap50": self.ap50,
            "ap75": self.ap75,
            "ar100": self.ar,
        }


@dataclass(frozen=True)
class Report:
    """The twelve figures of COCO, by class too; None where the data leaves one undefined.

    Args:
        images, boxes: the sample; crowds and difficult boxes are not counted.
        best_score: the score to cut at for the highest F1 over all boxes at IoU 0.5, `best_f1`.
        ap50_interval: 95 % of a bootstrap over pictures, or None when it was not asked for.
    """

    images: int
    boxes: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar1: float | None
    ar10: float | None
    ar100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    per_class: tuple[ClassReport, ...]
    best_score: float | None = None
    best_f1: float | None = None
    ap50_interval: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {
            **{name: getattr(self, name) for name in ("images", "boxes", *STATS)},
            "ap50_interval": self.ap50_interval,
            "best_score": self.best_score,
            "best_f1": self.best_f1,
            "per_class": [row.as_dict() for row in self.per_class],
        }

    def text(self) -> str:
        """Return AP50 with its interval and sample size, as a line."""
        low_high = self.ap50_interval
        interval = f" [{low_high[0]:.3f}, {low_high[1]:.3f}]" if low_high else ""
        return (
            f"AP50 {shown(self.ap50)}{interval}, AP {shown(self.ap)} "
            f"(n = {self.images:,} images, {self.boxes:,} boxes)"
        )


# the order of COCOeval.stats
STATS = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)


def shown(value: float | None) -> str:
    """Return a figure with three decimals, or a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def evaluate(truth: DetectionSet, found: Sequence[Detections], *, interval: bool = False) -> Report:
    """Compare detections with the truth, picture by picture.

    Args:
        found: one for each picture of `truth`, in its order; at most 100 boxes each count.
        interval: bootstrap the pictures for a 95 % interval of AP50.

    Raises:
        DataError: E503 there is no picture, E506 there are more or fewer detections than pictures,
            or labels that are no class.
    """
    _check(truth, found)
    evaluated = coco_eval(truth_document(truth), result_rows(found))
    tables = class_tables(evaluated)
    best_score, best_f1 = best_cut(tables)
    is_small = len(truth) * len(truth.classes) <= RESAMPLE_LIMIT
    return replace(
        _report(evaluated, truth, found),
        best_score=best_score,
        best_f1=best_f1,
        ap50_interval=bootstrap(tables, len(truth)) if interval and is_small else None,
    )


def _check(truth: DetectionSet, found: Sequence[Detections]) -> None:
    if not len(truth):
        raise DataError("E503", "there is no picture to evaluate on")
    if len(truth) != len(found):
        raise DataError(
            "E506",
            "detections do not fit the pictures",
            received=f"{len(found)} for {len(truth)} pictures",
        )
    highest = max((int(item.labels.max()) for item in found if len(item)), default=-1)
    if highest >= len(truth.classes):
        raise DataError(
            "E506",
            "a detection has a label that is no class of the data",
            received=highest,
            expected=f"0 to {len(truth.classes) - 1}",
        )


def truth_document(truth: DetectionSet) -> dict[str, Any]:
    """Return the truth as a COCO document; image and category ids count from 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, item in enumerate(truth.items, 1):
        images.append(
            {"id": image_id, "file_name": item.name, "width": item.width, "height": item.height}
        )
        sides = item.boxes[:, 2:] - item.boxes[:, :2]
        areas = sides.prod(1) if item.areas is None else item.areas
        rows = zip(
            torch.cat([item.boxes[:, :2], sides], 1).tolist(),
            item.labels.tolist(),
            item.ignore.tolist(),
            areas.tolist(),
            strict=True,
        )
        for box, label, ignore, area in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(ignore),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(truth.classes, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def result_rows(found: Sequence[Detections]) -> list[dict[str, Any]]:
    """Return detections in COCO's results form; image and category ids count from 1."""
    rows = []
    for image_id, item in enumerate(found, 1):
        boxes = item.boxes.detach().cpu()
        values = zip(
            torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist(),
            item.scores.tolist(),
            item.labels.tolist(),
            strict=True,
        )
        rows += [
            {"image_id": image_id, "category_id": label + 1, "bbox": box, "score": score}
            for box, score, label in values
        ]
    return rows


def coco_eval(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Any:
    """Run pycocotools on a COCO document and rows in COCO's results form; return its COCOeval."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def tabled(annotations: Sequence[Mapping[str, Any]]) -> Any:
        table = COCO()
        table.dataset = {**truth, "annotations": list(annotations)}
        table.createIndex()
        return table

    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        found = [
            {"iscrowd": 0, **row, "id": number, "area": row["bbox"][2] * row["bbox"][3]}
            for number, row in enumerate(results, 1)
        ]
        evaluated = COCOeval(tabled(truth["annotations"]), tabled(found), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return evaluated


def _known(value: float) -> float | None:
    """Turn pycocotools' -1, and a mean of nothing, into None."""
    return float(value) if math.isfinite(value) and value > -1 else None


def _mean(values: Any) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def _report(evaluated: Any, truth: DetectionSet, found: Sequence[Detections]) -> Report:
    precision = evaluated.eval["precision"]  # (10 IoU, 101 recalls, C classes, 4 sizes, 3 most)
    recall = evaluated.eval["recall"]  # (10 IoU, C classes, 4 sizes, 3 most)
    counted = [item.labels[~item.ignore] for item in truth.items]
    boxes = torch.bincount(torch.cat(counted), minlength=len(truth.classes)).tolist()
    labels = [item.labels.cpu() for item in found] or [torch.zeros(0, dtype=torch.int64)]
    many = torch.bincount(torch.cat(labels), minlength=len(truth.classes)).tolist()
    rows = []
    for index, name in enumerate(truth.classes):
        table = precision[:, :, index, ALL_AREAS, MOST_FOUND]
        rows.append(
            ClassReport(
                name,
                boxes[index],
                many[index],
                ap=_mean(table),
                ap50=_mean(table[0]),
                ap75=_mean(table[5]),
                ar=_mean(recall[:, index, ALL_AREAS, MOST_FOUND]),
                precision=tuple(table[0].tolist()) if boxes[index] else (),
            )
        )
    stats: dict[str, Any] = {
        name: _known(value) for name, value in zip(STATS, evaluated.stats, strict=True)
    }
    return Report(images=len(truth), boxes=sum(boxes), per_class=tuple(rows), **stats)
