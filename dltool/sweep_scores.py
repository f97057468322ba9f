"""What the runs of a sweep are worth: one figure a run, mean and deviation over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dltool import runs
from dltool.history import folders, groups, values
from dltool.history.groups import Group
from dltool.sweeps import Settings

# what every line of metrics.jsonl has, and what measures no quality
PLAIN = frozenset({"epoch", "step", "train_loss", "lr", "seconds", "best", "skipped", "pass"})


@dataclass(frozen=True)
class Metric:
    """The figure that a sweep compares, and whether more of it is better."""

    name: str
    higher: bool

    @property
    def is_of_test(self) -> bool:
        """Whether choosing by it uses the test data."""
        return not self.name.startswith(("val_", "train_", "objective"))


def find(folder: Path) -> Metric | None:
    """Return the figure to compare runs like this finished one by.

    One of validation data, by which it chose its best epoch; else one with an interval; else what
    it logged.
    """
    run = folders.at(folder)
    default = values.default_metric(run.names())
    candidates = [default] if default else []
    candidates += [name for name, measured in run.scores.items() if measured.low is not None]
    candidates += [name for name in run.record if name not in PLAIN]
    for name in candidates:
        higher = values.higher_is_better(name)
        if higher is not None:
            return Metric(name, higher)
    return None


def score(folder: Path, metric: Metric) -> float | None:
    """Return a run's figure: of its result, or of its best epoch; None when it has none."""
    value = folders.at(folder).value(metric.name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def seconds(folder: Path) -> float:
    """Return how long a finished run took, from its first moment to its last."""
    facts = runs.read_json(folder)
    try:
        began, ended = (datetime.fromisoformat(facts[key]) for key in ("created", "finished"))
    except (KeyError, TypeError, ValueError):
        return 0.0
    return (ended - began).total_seconds()


@dataclass(frozen=True)
class Row:
    """One combination of settings: the runs that ended well, and their figures."""

    settings: Settings
    folders: tuple[Path, ...]
    values: tuple[float, ...]
    failed: int
    seconds: float

    @property
    def mean(self) -> float | None:
        """Mean over the seeds that ended well."""
        found = groups.spread(self.values)
        return None if found is None else found.mean

    @property
    def deviation(self) -> float | None:
        """Sample deviation over seeds; None below two."""
        found = groups.spread(self.values)
        return None if found is None else found.sd

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return {
            "set": dict(self.settings),
            "runs": [str(folder) for folder in self.folders],
            "failed": self.failed,
            "mean": self.mean,
            "sd": self.deviation,
            "values": list(self.values),
            "seconds": round(self.seconds, 3),
        }


def row(settings: Settings, good: Sequence[Path], failed: int, metric: Metric | None) -> Row:
    """Return the row of one combination from the folders of its finished runs."""
    found = [score(folder, metric) for folder in good] if metric is not None else []
    figures = tuple(value for value in found if value is not None)
    return Row(settings, tuple(good), figures, failed, sum(map(seconds, good)))


def ranked(rows: Sequence[Row], metric: Metric | None) -> list[Row]:
    """Return the rows, the best mean first, those without a figure last."""
    sign = -1.0 if metric is not None and metric.higher else 1.0
    return sorted(rows, key=lambda each: math.inf if each.mean is None else sign * each.mean)


def verdict(rows: Sequence[Row], metric: Metric) -> str:
    """Say which settings are better, and whether the seeds are enough to say so."""
    known = [
        Group(
            " ".join(f"{name} {value}" for name, value in each.settings) or "the training",
            tuple(folders.at(folder) for folder in each.folders),
        )
        for each in rows
        if each.values
    ]
    return groups.verdict(known, metric.name, high=metric.higher)
