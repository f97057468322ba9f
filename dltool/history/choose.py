"""Choose among runs: by topic, data, time, grade, state, and by any value."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dltool.errors import ConfigError, closest
from dltool.history.folders import FACTS, PastRun

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": lambda value, limit: value >= limit,
    "<=": lambda value, limit: value <= limit,
    "!=": lambda value, limit: value != limit,
    ">": lambda value, limit: value > limit,
    "<": lambda value, limit: value < limit,
    "=": lambda value, limit: value == limit,
}
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Condition:
    """One `--where`: a name, a comparison and what to compare with."""

    name: str
    sign: str
    limit: str

    def holds(self, run: PastRun) -> bool:
        """Tell whether a run has the value and it compares so."""
        value = run.value(self.name)
        if value is None:
            return False
        number = _number(self.limit)
        if number is not None and isinstance(value, int | float) and not isinstance(value, bool):
            return COMPARE[self.sign](value, number)
        if isinstance(value, bool):
            value = str(value).lower()
        return COMPARE[self.sign](str(value), self.limit)


def condition(text: str) -> Condition:
    """Read a condition such as `val_accuracy>=0.9` or `model=resnet20`.

    Raises:
        ConfigError: it is none, or sets a text in an order.
    """
    match = re.fullmatch(r"\s*([\w.-]+)\s*(>=|<=|!=|==|=|>|<)\s*(.+?)\s*", text)
    if match is None:
        raise ConfigError(
            "E201",
            "--where is not understood",
            received=text,
            expected="a name, one of >= <= > < = !=, and a value",
            cure="quote it: --where 'val_accuracy>=0.9'",
        )
    sign = "=" if match[2] == "==" else match[2]
    if sign not in ("=", "!=") and _number(match[3]) is None and match[1] != "created":
        raise ConfigError(
            "E202", f"{sign} needs a number in --where", received=text, cure="use = or !="
        )
    return Condition(match[1], sign, match[3])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def since(text: str, now: datetime) -> datetime:
    """Return the time that a user means: `2026-11-21`, `2026-11-21T10:00`, or `12h`, `7d` ago.

    Raises:
        ConfigError: E202, it is written otherwise.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text)
    try:
        if match is not None:
            return now - timedelta(**{UNITS[match[2]]: float(match[1])})
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            "E202",
            "--since is not understood",
            received=text,
            expected="a date such as 2026-11-21, or a time back such as 90m, 12h, 7d or 2w",
            cure="use --since 7d",
        ) from error
    return time if time.tzinfo else time.astimezone()


@dataclass(frozen=True)
class Choice:
    """What a user asks for; an empty text or None asks for nothing."""

    topic: str | None = None
    data: str | None = None
    state: str | None = None
    grade: str | None = None
    since: str | None = None
    where: Sequence[str] = ()

    def of(self, runs: Sequence[PastRun]) -> list[PastRun]:
        """Return the runs that are meant, in their order.

        Raises:
            ConfigError: a condition is not understood, or names what no run has.
        """
        conditions = [condition(text) for text in self.where]
        after = since(self.since, datetime.now(UTC)) if self.since else None
        kept = [run for run in runs if self._fits(run, after)]
        for each in conditions:
            refuse_unknown(each.name, kept)
        return [run for run in kept if all(each.holds(run) for each in conditions)]

    def _fits(self, run: PastRun, after: datetime | None) -> bool:
        return (
            self.topic in (None, run.topic)
            and self.state in (None, run.state)
            and self.grade in (None, run.facts.get("grade"))
            and (self.data is None or is_data(run, self.data))
            and (after is None or _began(run) >= after)
        )


def is_data(run: PastRun, wanted: str) -> bool:
    """Tell whether a run learnt from this data: its name, its file's name, or a pattern."""
    names = {run.data, Path(run.data).name, Path(run.data).stem}
    return any(name and fnmatch.fnmatchcase(name, wanted) for name in names)


def _began(run: PastRun) -> datetime:
    try:
        time = datetime.fromisoformat(run.created)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def refuse_unknown(name: str, runs: Iterable[PastRun]) -> None:
    """Refuse a name that none of the runs has, so that a typo does not read as "none found".

    Raises:
        ConfigError: E206, with the closest name.
    """
    known: set[str] = set(FACTS)
    for run in (runs := list(runs)):
        if run.value(name) is not None:
            return
        known |= run.names()
    if name in known or not runs:
        return
    near = closest(name, sorted(known))
    raise ConfigError(
        "E206",
        f"no run has {name!r}",
        expected=f"{near!r}" if near else "a metric, a setting or a fact of the runs",
        cure="see the names in dltool runs show RUN",
    )


def ordered(runs: Sequence[PastRun], name: str, *, reverse: bool = False) -> list[PastRun]:
    """Return runs by a value, smallest first; those without it come last.

    Raises:
        ConfigError: E206, no run has it.
    """
    refuse_unknown(name, runs)

    def key(run: PastRun) -> tuple[bool, float, str]:
        value = run.value(name)
        is_number = isinstance(value, int | float)
        return (not is_number, float(value) if is_number else 0.0, str(value))

    having = [run for run in runs if run.value(name) is not None]
    missing = [run for run in runs if run.value(name) is None]
    return sorted(having, key=key, reverse=reverse) + missing
