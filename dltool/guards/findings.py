"""What a guard says, and what is done about it.

    preflight  warn, and stop before the start when something is almost surely a mistake (exit 6)
    full       the same with slow checks
    strict     stop at warnings too
    only       check, tell, and stop; only-full: with slow checks
    off        do not look

A guard that is left out by `--without` still looks; what it finds is kept in the run, with the
reason, and does not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dltool.console import Console
from dltool.errors import CheckFailed, ConfigError, Stopped

FILE = "guards.json"


@dataclass(frozen=True)
class Finding:
    """One mistake that a guard found.

    Attributes:
        code: the guard, such as `G-P06`; `--guards off` silences all.
        severity: `fail` is almost surely a mistake, `warn` deserves a look.
        message: the mistake and the evidence: the measured number and its threshold.
        cure: what to change.
        measured, limit: the number that was measured, and from which on the guard speaks.
        place: the module, parameter, file or samples that it is about.
        also: other guards that found the same mistake by its consequences.
        left_out: why it does not count; empty when it does.
    """

    code: str
    severity: str
    message: str
    cure: str
    measured: float | None = None
    limit: float | None = None
    place: str = ""
    also: tuple[str, ...] = ()
    left_out: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the finding for `--json` and the run folder."""
        numbers = {name: _finite(getattr(self, name)) for name in ("measured", "limit")}
        return {**asdict(self), **numbers}

    def text(self) -> str:
        """Return the finding as a line for people."""
        also = f" (also {', '.join(self.also)})" if self.also else ""
        return f"{self.code}: {self.message}{also}. Cure: {self.cure}"


def _finite(number: float | None) -> float | None:
    """Return a number that JSON has."""
    return number if number is not None and math.isfinite(number) else None


@dataclass(frozen=True)
class Clean:
    """A guard that looked and found nothing; `measured` is what it saw, where that is a number."""

    code: str
    measured: float | None = None


@dataclass(frozen=True)
class NotJudged:
    """A guard that could not say, and why."""

    code: str
    why: str


Verdict = Finding | Clean | NotJudged


def reasons(without: Iterable[str]) -> dict[str, str]:
    """Return the guards that are left out, each with its reason.

    Args:
        without: as given: `G-P09`, or `G-P09: batches are graphs`.

    Raises:
        ConfigError: E206, one is no guard's code.
    """
    found = {}
    for text in without:
        code, _, reason = text.partition(":")
        code = code.strip().upper()
        parts = code.split("-")
        if len(parts) != 2 or parts[0] != "G" or not parts[1].isalnum():
            raise ConfigError(
                "E206",
                "--without names no guard",
                received=text,
                expected="a code such as G-P09, and a reason behind a colon",
                cure="see dltool explain for the codes",
            )
        found[code] = reason.strip() or "no reason given"
    return found


def act(
    findings: Sequence[Finding],
    console: Console,
    *,
    strict: bool = False,
    mode: str = "preflight",
    without: Iterable[str] = (),
) -> list[Finding]:
    """Warn about each finding; stop when one is a failure, or any with `strict`.

    What was found is noted in `console.findings`, from where it gets into the run folder.

    Args:
        mode: as for `--guards`.
        without: as for `--without`.

    Returns:
        The findings that count.

    Raises:
        CheckFailed: exit code 6, naming the first failure.
        Stopped: with `only`, when nothing fails.
    """
    excused = reasons(without)
    kept = [found for found in findings if found.code not in excused]
    console.findings += [_noted(found, excused) for found in findings]
    failures = [found for found in kept if strict or mode == "strict" or found.severity == "fail"]
    for found in kept:
        if found not in failures[:1]:
            console.warn(found.text())
    for found in findings:
        if found.code in excused:
            console.note(f"left out: {found.text()} ({excused[found.code]})")
    if failures:
        first = failures[0]
        raise CheckFailed(
            "E602",
            f"guard {first.code}: {first.message}",
            cure=f"{first.cure}; to train all the same, add --without {first.code} or --guards off",
        )
    if mode.startswith("only"):
        _tell(kept, console)
        raise Stopped("checked")
    return kept


def _noted(found: Finding, excused: Mapping[str, str]) -> dict[str, Any]:
    return {**found.as_dict(), "left_out": excused.get(found.code, "")}


def _tell(findings: Sequence[Finding], console: Console) -> None:
    worst = "warn" if findings else "clean"
    text = f"{len(findings)} warnings, no failure" if findings else "nothing was found"
    listed = [found.as_dict() for found in findings]
    console.result({"worst": worst, "findings": listed}, f"{text}; nothing was trained")
