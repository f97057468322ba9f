"""The mistakes on each picture: what was missed, made up, or misnamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dltool_detect.data import DetectionSet
from dltool_detect.detections import Detections
from dltool_detect.matching import above, pair


@dataclass(frozen=True)
class Mistakes:
    """One picture's mistakes at one score; boxes are paired by place.

    Args:
        index: the picture's place in its set.
        right: boxes found with the right name. misnamed: found with another. missed: not found.
        made_up: detections of nothing.
    """

    index: int
    name: str
    boxes: int
    right: int
    misnamed: int
    missed: int
    made_up: int

    @property
    def count(self) -> int:
        """All mistakes together."""
        return self.misnamed + self.missed + self.made_up

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        names = ("boxes", "right", "misnamed", "missed", "made_up")
        return {"file": self.name, **{name: getattr(self, name) for name in names}}

    def text(self) -> str:
        """Return the counts as a line."""
        return (
            f"{self.name}: {self.right} of {self.boxes} right, {self.missed} missed, "
            f"{self.misnamed} misnamed, {self.made_up} made up"
        )


def mistakes(
    truth: DetectionSet, found: Sequence[Detections], *, min_score: float, iou: float
) -> list[Mistakes]:
    """Return every picture's mistakes, the most first; crowds and difficult boxes do not count."""
    rows = []
    for index, (item, detections) in enumerate(zip(truth.items, found, strict=True)):
        kept = above(detections, min_score)
        mine, theirs = pair(item.boxes, kept, iou)
        pairs = [
            (label, match)
            for label, match, ignore in zip(
                item.labels.tolist(), mine, item.ignore.tolist(), strict=True
            )
            if not ignore
        ]
        found_ones = [(label, int(kept.labels[match])) for label, match in pairs if match >= 0]
        right = sum(label == other for label, other in found_ones)
        rows.append(
            Mistakes(
                index,
                item.name,
                boxes=len(pairs),
                right=right,
                misnamed=len(found_ones) - right,
                missed=len(pairs) - len(found_ones),
                made_up=sum(match < 0 for match in theirs),
            )
        )
    return sorted(rows, key=lambda row: (-row.count, row.name))
