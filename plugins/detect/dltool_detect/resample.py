"""What COCO's evaluation leaves open: how sure AP50 is, and at which score to cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dltool.device import generator

Array = npt.NDArray[np.float64]

RESAMPLES = 500


@dataclass(frozen=True)
class ClassTable:
    """A class's detections in the order of their scores, at IoU 0.5; D of them on I pictures.

    Args:
        image: (D,) place of the picture. is_hit: (D,) whether a box was found. score: (D,).
        boxes: (I,) true boxes of each picture.
    """

    image: npt.NDArray[np.int64]
    is_hit: npt.NDArray[np.bool_]
    score: Array
    boxes: npt.NDArray[np.int64]

    def ap50(self, drawn: npt.NDArray[np.int64]) -> float | None:
        """Return AP at IoU 0.5 when picture i counts drawn[i] times."""
        total = int((self.boxes * drawn).sum())
        if not total:
            return None
        times = drawn[self.image]
        hits, all_found = np.cumsum(times * self.is_hit), np.cumsum(times)
        precision = hits / np.maximum(all_found, 1)
        # the best precision at this recall or a higher one
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        places = np.searchsorted(hits / total, np.linspace(0, 1, 101), side="left")
        return float(envelope[places].mean())


def class_tables(evaluated: Any) -> list[ClassTable]:
    """Return the table of each class that has a box."""
    parameters = evaluated.params
    count, sizes = len(parameters.imgIds), len(parameters.areaRng)
    tables = [
        _class_table(evaluated.evalImgs[k * sizes * count : k * sizes * count + count])
        for k in range(len(parameters.catIds))
    ]
    return [table for table in tables if table.boxes.sum()]


def _class_table(images: Sequence[Any]) -> ClassTable:
    scores, image, hits = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    boxes = np.zeros(len(images), np.int64)
    for index, one in enumerate(images):
        if one is None:
            continue
        boxes[index] = int((np.asarray(one["gtIgnore"]) == 0).sum())
        counts = ~np.asarray(one["dtIgnore"][0], bool)
        scores.append(np.asarray(one["dtScores"], np.float64)[counts])
        hits.append(np.asarray(one["dtMatches"][0])[counts] > 0)
        image.append(np.full(int(counts.sum()), index))
    every = np.concatenate(scores)
    order = np.argsort(-every, kind="mergesort")
    return ClassTable(
        np.concatenate(image)[order], np.concatenate(hits)[order], every[order], boxes
    )


def bootstrap(
    tables: Sequence[ClassTable], images: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 2.5 and 97.5 % points of AP50 over pictures drawn with replacement.

    Efron, Annals of Statistics 7 (1979) 1-26. None when no class has a box.
    """
    stream = generator(seed, "detect", "bootstrap")
    values = []
    for _ in range(resamples):
        drawn = torch.randint(images, (images,), generator=stream).bincount(minlength=images)
        known = [value for table in tables if (value := table.ap50(drawn.numpy())) is not None]
        if known:
            values.append(sum(known) / len(known))
    if not values:
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def best_cut(tables: Sequence[ClassTable]) -> tuple[float | None, float | None]:
    """Return the score whose cut gives the highest F1 = 2 hits / (detections + boxes), and F1."""
    boxes = sum(int(table.boxes.sum()) for table in tables)
    scores = np.concatenate([np.zeros(0), *(table.score for table in tables)])
    if not boxes or not len(scores):
        return None, None
    hits = np.concatenate([table.is_hit for table in tables])
    order = np.argsort(-scores, kind="mergesort")
    scores, right = scores[order], np.cumsum(hits[order])
    f1 = 2 * right / (np.arange(1, len(scores) + 1) + boxes)
    # detections of one score come together or not at all
    f1[:-1][scores[1:] == scores[:-1]] = -1.0
    best = int(f1.argmax())
    return float(scores[best]), float(f1[best])
