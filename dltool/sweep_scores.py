"""What the runs of a sweep are worth: one figure a run, mean and deviation over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dltool import runs
from dltool.errors import ConfigError

LOWER = ("loss", "error", "perplexity", "mse", "rmse", "mae", "objective")
# what every line of metrics.jsonl has, and what measures no quality
PLAIN = frozenset({"epoch", "step", "train_loss", "lr", "seconds", "best", "skipped", "pass"})


@dataclass(frozen=True)
class Metric:
    """The figure that a sweep compares, and whether more of it is better."""

    name: str
    higher: bool

    @classmethod
    def read(cls, text: str) -> Metric:
        """Read `val_accuracy`, or `name:min` and `name:max`.

        Raises:
            ConfigError: E202, something else stands behind the colon.
        """
        name, _, direction = text.partition(":")
        if direction not in ("", "min", "max") or not name:
            raise ConfigError(
                "E202", "--metric is not understood", received=text, expected="NAME:min"
            )
        if direction:
            return cls(name, direction == "max")
        return cls(name, not name.lower().endswith(LOWER))

    @property
    def is_of_test(self) -> bool:
        """Whether choosing by it uses the test data."""
        return not self.name.startswith(("val_", "train_", "objective_"))


def find(folder: Path) -> Metric | None:
    """Return the figure to compare runs like this finished one by.

    One of validation data, by which it chose its best epoch; else one with an interval; else what
    it logged.
    """
    records = runs.read_records(folder)
    result = figures(folder)
    last = records[-1] if records else {}
    logged = [name for name, value in last.items() if _number(value) is not None]
    candidates = [name for name in (*result, *logged) if name.startswith("val_")]
    candidates += [name for name, entry in result.items() if entry.keys() >= {"low", "high"}]
    candidates += [name for name in logged if name not in PLAIN]
    candidates += [name for name, entry in result.items() if "value" in entry]
    return Metric.read(candidates[0]) if candidates else None


def figures(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the numbers of a run's result by name, `measured.rmse` where they stand deeper.

    Each has its `number`, and one with an interval `value`, `low` and `high` too.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, entry in (runs.read_json(folder).get("result") or {}).items():
        inner = {name: entry}
        if isinstance(entry, dict) and "value" not in entry:
            inner = {f"{name}.{key}": value for key, value in entry.items()}
        for key, value in inner.items():
            number = _number(value)
            if number is not None:
                found[key] = {**(value if isinstance(value, dict) else {}), "number": number}
    return found


def score(folder: Path, metric: Metric) -> float | None:
    """Return a run's figure: of its result, or of its best epoch; None when it has none."""
    entry = figures(folder).get(metric.name)
    if entry is not None:
        return float(entry["number"])
    logged = [_number(record.get(metric.name)) for record in runs.read_records(folder)]
    numbers = [each for each in logged if each is not None]
    if not numbers:
        return None
    return max(numbers) if metric.higher else min(numbers)


def _number(value: object) -> float | None:
    """Return the number of a result's entry, which may come with its interval."""
    if isinstance(value, Mapping):
        value = value.get("value")
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
    """One combination of settings: the figures of its runs."""

    settings: tuple[tuple[str, str], ...]
    values: tuple[float, ...]
    failed: int
    seconds: float

    @property
    def mean(self) -> float | None:
        """Mean over the seeds that ended well."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Sample deviation over seeds; None below two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return {
            "set": dict(self.settings),
            "runs": len(self.values),
            "failed": self.failed,
            "mean": self.mean,
            "sd": self.deviation,
            "values": list(self.values),
            "seconds": round(self.seconds, 3),
        }


def ranked(rows: Sequence[Row], metric: Metric) -> list[Row]:
    """Return the rows, the best mean first, those without a figure last."""
    sign = -1.0 if metric.higher else 1.0
    return sorted(rows, key=lambda row: math.inf if row.mean is None else sign * row.mean)


def doubt(rows: Sequence[Row]) -> str:
    """Say when the best cannot be told from the second by so few seeds; else an empty text."""
    if len(rows) < 2 or rows[0].mean is None or rows[1].mean is None:
        return ""
    first, second = rows[0], rows[1]
    if first.deviation is None or second.deviation is None:
        return "one run each: --seeds 3 would tell how much of the difference is chance"
    error = math.hypot(
        first.deviation / math.sqrt(len(first.values)),
        second.deviation / math.sqrt(len(second.values)),
    )
    if abs(rows[0].mean - rows[1].mean) >= 2 * error:
        return ""
    return "the first two differ by less than two standard errors: more seeds would tell"
