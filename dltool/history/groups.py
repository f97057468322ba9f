"""Runs that differ only by their seed belong together: mean, deviation, curves, and a verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dltool.history.folders import PastRun
from dltool.history.values import short
from dltool.resuming import FREE

if TYPE_CHECKING:
    from dltool.history.log import Column

# settings that make no other experiment: repetitions, and where it runs
NOT_TOLD = FREE | {"seed", "device", "threads"}
MOST_IN_LABEL = 3
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Group:
    """Runs of one topic and equal settings, one for each seed.

    Attributes:
        label: what tells it from the other groups.
        runs: the newest run of each seed, by seed.
        left_out: older runs of a seed that is there already.
    """

    label: str
    runs: tuple[PastRun, ...]
    left_out: tuple[PastRun, ...] = ()

    @property
    def seeds(self) -> list[Any]:
        """The seeds of the runs."""
        return [run.settings.get("seed") for run in self.runs]

    def values(self, name: str) -> list[float]:
        """Return the metric of each run that has it."""
        found = [run.value(name) for run in self.runs]
        return [float(value) for value in found if isinstance(value, int | float)]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over `n` seeds; `sd` is None with fewer than two."""

    mean: float
    sd: float | None
    n: int

    def text(self) -> str:
        """Return mean ± deviation and the number of seeds."""
        spread = "" if self.sd is None else f" ± {short(self.sd)}"
        return f"{short(self.mean)}{spread} ({self.n} seed{'s' * (self.n != 1)})"


def spread(values: Sequence[float]) -> Spread | None:
    """Return mean and deviation of values, None without any."""
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), sd, len(values))


def grouped(runs: Iterable[PastRun]) -> list[Group]:
    """Put runs together that differ only by their seed, in the order of their first run."""
    members: dict[tuple[Any, ...], list[PastRun]] = {}
    for run in runs:
        settings = sorted((k, repr(v)) for k, v in run.settings.items() if k not in NOT_TOLD)
        # a run without settings is like no other
        key = (run.topic, *settings) if settings else (run.topic, str(run.folder))
        members.setdefault(key, []).append(run)
    labels = _labels([each[0] for each in members.values()])
    return [_one_a_seed(label, each) for label, each in zip(labels, members.values(), strict=True)]


def _one_a_seed(label: str, runs: Sequence[PastRun]) -> Group:
    newest: dict[Any, PastRun] = {}
    for run in sorted(runs, key=lambda run: run.created):
        newest[run.settings.get("seed")] = run
    kept = sorted(newest.values(), key=lambda run: _order(run.settings.get("seed")))
    return Group(label, tuple(kept), tuple(run for run in runs if run not in kept))


def _order(seed: Any) -> tuple[bool, float]:
    is_number = isinstance(seed, int | float)
    return (not is_number, float(seed) if is_number else 0.0)


def _labels(firsts: Sequence[PastRun]) -> list[str]:
    """Name groups by topic and the settings that tell them apart, chosen ones before derived."""
    names = dict.fromkeys(name for run in firsts for name in run.settings)
    differing = [
        name
        for name in names
        if name not in NOT_TOLD and len({repr(run.settings.get(name)) for run in firsts}) > 1
    ]
    by_hand = [name for name in differing if any(_is_by_hand(run, name) for run in firsts)]
    for shown in (by_hand[:MOST_IN_LABEL], differing[:MOST_IN_LABEL]):
        labels = [_label(run, shown) for run in firsts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{run.topic} {run.folder.name}" for run in firsts]


def _is_by_hand(run: PastRun, name: str) -> bool:
    origin = run.config.get(name, {}).get("origin", "default")
    return origin not in ("default", "recipe")


def _label(run: PastRun, names: Sequence[str]) -> str:
    parts = [f"{name}={short(run.settings[name])}" for name in names if name in run.settings]
    return " ".join([run.topic, *parts])


@dataclass(frozen=True)
class Band:
    """A group's curve: mean and deviation over its runs where each x was reached.

    Attributes:
        x, mean: same length.
        sd: NaN where fewer than two runs are.
        axis: what x counts.
    """

    label: str
    x: Column
    mean: Column
    sd: Column
    axis: str


def band(label: str, curves: Sequence[tuple[Column, Column, str]]) -> Band | None:
    """Return mean and deviation over several runs' curves; None when there is no point.

    Runs that were logged at other places are read off between their neighbouring points.
    """
    import numpy as np

    curves = [each for each in curves if len(each[0])]
    if not curves:
        return None
    first = curves[0][0]
    if all(len(x) == len(first) and (x == first).all() for x, _, _ in curves[1:]):
        x, rows = first, np.stack([y for _, y, _ in curves])
    else:
        x = np.unique(np.concatenate([x for x, _, _ in curves]))
        rows = np.stack([np.interp(x, a, b, left=np.nan, right=np.nan) for a, b, _ in curves])
    known = np.isfinite(rows)
    count = known.sum(0)
    mean = np.where(known, rows, 0).sum(0) / count
    squares = np.where(known, (rows - mean) ** 2, 0).sum(0)
    sd = np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)
    return Band(label, x, mean, sd, curves[0][2])


@dataclass(frozen=True)
class Difference:
    """How far one group's mean is from another's, with an interval for it; None: not known."""

    value: float
    low: float | None
    high: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def difference(one: Spread, other: Spread, comparisons: int = 1) -> Difference:
    """Return `one` minus `other` with Welch's interval (Welch, 1947) over seeds.

    Args:
        comparisons: how many are made at once: the interval is widened so that all of them hold
            together with 95 % (Bonferroni).
    """
    value = one.mean - other.mean
    if one.sd is None or other.sd is None:
        return Difference(value, None, None)
    parts = [each.sd**2 / each.n for each in (one, other) if each.sd is not None]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Difference(value, value, value)
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    freedom = sum(parts) ** 2 / sum(
        part**2 / (each.n - 1) for part, each in zip(parts, (one, other), strict=True)
    )
    reach = float(stdtrit(freedom, 1 - (1 - CONFIDENCE) / comparisons / 2)) * error
    return Difference(value, value - reach, value + reach)


def verdict(groups: Sequence[Group], name: str, *, high: bool) -> str:
    """Say which group is better by a metric, and whether the seeds are enough to say so."""
    known = [(spread(group.values(name)), group) for group in groups]
    found = [(each, group) for each, group in known if each is not None]
    if len(found) < 2:
        return ""
    found.sort(key=lambda pair: -pair[0].mean if high else pair[0].mean)
    (best, winner), (second, runner_up) = found[0], found[1]
    gap = difference(best, second, len(found) - 1)
    numbers = f"{name} {best.text()} against {second.text()} of {runner_up.label}"
    if gap.value == 0:
        return f"{winner.label} and {runner_up.label} are level: {name} {best.text()}"
    if gap.low is None or gap.high is None:
        return (
            f"{winner.label} leads, {numbers}; one seed says little: train others, with --seed 1 "
            "and --seed 2"
        )
    interval = f"difference {short(gap.value)}, 95 % interval {short(gap.low)} to {short(gap.high)}"
    if gap.is_clear:
        return f"{winner.label} is better: {numbers}; {interval}"
    return f"not told apart: {winner.label} leads, {numbers}; {interval} holds 0; try more seeds"


def doubts(groups: Sequence[Group]) -> list[str]:
    """Say what makes a comparison of these runs unfair."""
    runs = [run for group in groups for run in group.runs]
    found = []
    if len({run.topic for run in runs}) > 1:
        found.append("the runs are of several topics")
    if len(sets := {run.data for run in runs}) > 1:
        found.append(f"the runs learnt from different data: {', '.join(sorted(sets))}")
    elif _fingerprints_differ(runs):
        found.append("the data changed between the runs: their fingerprints differ at one seed")
    unfinished = [run.folder.name for run in runs if run.state != "finished"]
    if unfinished:
        found.append(f"not finished: {', '.join(unfinished[:5])}")
    if again := [run.folder.name for group in groups for run in group.left_out]:
        found.append(f"left out, as a newer run has the same settings and seed: {', '.join(again)}")
    return found


def _fingerprints_differ(runs: Sequence[PastRun]) -> bool:
    """Tell whether equal seeds saw other data; generated data may depend on the seed."""
    seen: dict[Any, str] = {}
    for run in runs:
        mark = run.part("data.json").get("fingerprint")
        if mark and seen.setdefault(run.settings.get("seed"), str(mark)) != str(mark):
            return True
    return False
