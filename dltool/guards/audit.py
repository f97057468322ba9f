"""Guards on a finished run: G-A01 to G-A03 from what it says of itself, G-M08 from its curve.

Runs without torch: everything is in `run.json`, `data.json` and `metrics.jsonl`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dltool.guards import curves
from dltool.guards.findings import Clean, Finding, NotJudged, Verdict

ERRORS = 3.0
RECOUNTED = 0.01
FEWEST_OF_CLASS = 20


def audit(
    result: Mapping[str, Any], data: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> list[Verdict]:
    """Judge a run by its result, its data's facts and its epochs."""
    scores = {
        name: value
        for name, value in result.items()
        if isinstance(value, Mapping) and {"value", "n", "baseline"} <= value.keys()
    }
    found: list[Verdict] = [_beats_guessing(name, value) for name, value in scores.items()]
    found += [_counted(name, value, data) for name, value in scores.items()]
    found += _confusion(result)
    found += _curve(records)
    if not scores:
        found.append(NotJudged("G-A01", "the result holds no figure with a baseline"))
    return found


def _beats_guessing(name: str, score: Mapping[str, Any]) -> Verdict:
    value, count, base = score["value"], score["n"], score["baseline"]
    if value is None or base is None or not count or not 0 <= base <= 1:
        return NotJudged("G-A01", f"{name} has no baseline that is a share")
    return beats(float(value), float(base), int(count), name)


def beats(value: float, base: float, count: int, name: str) -> Verdict:
    """G-A01: is an accuracy above the baseline by three standard errors?"""
    if base >= 1:
        return NotJudged("G-A01", f"{name}: the baseline is already 1")
    error = math.sqrt(base * (1 - base) / count)
    gain = (value - base) / max(error, 1e-12)
    if gain > ERRORS:
        return Clean("G-A01", gain)
    if value == 1:
        return NotJudged("G-A01", f"{name}: {count} samples are too few to say")
    return Finding(
        "G-A01",
        "fail",
        f"{name} is {value:.4f} on {count:,} samples, guessing gives {base:.4f}: the difference is "
        f"{gain:.1f} standard errors (limit {ERRORS:g})",
        "nothing was learnt that holds for new data: train longer, look at labels and rate",
        measured=gain,
        limit=ERRORS,
        place=name,
    )


def _counted(name: str, score: Mapping[str, Any], data: Mapping[str, Any]) -> Verdict:
    counts = data.get("counts")
    if not isinstance(counts, Mapping) or not name.startswith("test"):
        return NotJudged("G-A02", f"the size of the split behind {name} is not known")
    size, scored = counts.get("test"), score["n"]
    if size == scored:
        return Clean("G-A02", scored)
    return Finding(
        "G-A02",
        "fail",
        f"{name} is of {scored} samples, the test split holds {size}",
        "score every sample once; look for a last batch that is dropped",
        measured=float(scored),
        limit=float(size or 0),
        place=name,
    )


def _confusion(result: Mapping[str, Any]) -> list[Verdict]:
    """G-A02 and G-M06: recompute the accuracy from the counts, and look for classes never hit."""
    matrix = result.get("confusion") or (result.get("test") or {}).get("confusion")
    if not matrix:
        return []
    rows = [[int(cell) for cell in row] for row in matrix]
    total = sum(map(sum, rows))
    right = sum(row[place] for place, row in enumerate(rows))
    never = [
        place for place, row in enumerate(rows) if sum(row) >= FEWEST_OF_CLASS and row[place] == 0
    ]
    found: list[Verdict] = []
    said = result.get("accuracy") or result.get("test_accuracy")
    if isinstance(said, Mapping) and total and abs(right / total - said["value"]) > RECOUNTED:
        found.append(
            Finding(
                "G-A02",
                "fail",
                f"the accuracy says {said['value']:.4f}, its confusion matrix {right / total:.4f}",
                "divide the right answers by all answers, not the batch means by their number",
                measured=said["value"],
                limit=right / total,
            )
        )
    if never:
        found.append(
            Finding(
                "G-A02",
                "warn",
                f"{len(never)} classes of {FEWEST_OF_CLASS} and more samples are never hit "
                f"(class {never[0]})",
                "look at the class shares; weigh rare classes",
                measured=float(len(never)),
                limit=0.0,
                place=f"class {never[0]}",
            )
        )
    return found or [Clean("G-A02", right / max(total, 1))]


def _curve(records: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    train, val = (
        [float(each[name]) for each in records if isinstance(each.get(name), int | float)]
        for name in ("train_loss", "val_loss")
    )
    found = [curves.finite(train), curves.diverged(train)]
    return [each for each in found if not isinstance(each, NotJudged)] + (
        [curves.overfitted(train, val)] if val else []
    )
