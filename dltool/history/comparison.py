"""Groups of runs side by side: the numbers that `runs compare` and `runs report` show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dltool.history.groups import Group, difference, spread

MOST_SCORES = 2


def rows(groups: Sequence[Group], name: str, *, high: bool) -> list[dict[str, Any]]:
    """Return one entry a group, the best first, those without the metric last."""
    found = {group.label: spread(group.values(name)) for group in groups}
    known = [each for each in found.values() if each is not None]
    best = (max if high else min)(known, key=lambda each: each.mean, default=None)
    scores = _other_scores(groups, name)
    entries: list[dict[str, Any]] = []
    for group in groups:
        own = found[group.label]
        gap = (
            difference(own, best, max(len(known) - 1, 1))
            if own is not None and best is not None and own is not best
            else None
        )
        entries.append(
            {
                "group": group.label,
                "seeds": group.seeds,
                "runs": [str(each.folder) for each in group.runs],
                "values": group.values(name),
                "mean": own and own.mean,
                "sd": own and own.sd,
                "text": own.text() if own else "-",
                "difference": gap and {"value": gap.value, "low": gap.low, "high": gap.high},
                "scores": {score: _spread(group, score) for score in scores},
            }
        )
    entries.sort(key=lambda row: (row["mean"] is None, (row["mean"] or 0) * (-1 if high else 1)))
    return entries


def _other_scores(groups: Sequence[Group], name: str) -> list[str]:
    """Return the scores with an interval or a sample size that every run has."""
    all_runs = [run for group in groups for run in group.runs]
    shared = [
        score
        for score, value in all_runs[0].scores.items()
        if score != name and (value.low is not None or value.n is not None)
    ]
    return [score for score in shared if all(score in run.scores for run in all_runs)][:MOST_SCORES]


def _spread(group: Group, name: str) -> dict[str, Any] | None:
    own = spread(group.values(name))
    if own is None:
        return None
    return {"mean": own.mean, "sd": own.sd, "n": own.n, "text": own.text()}
