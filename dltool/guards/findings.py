"""What a guard says, and what is done about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dltool.console import Console
from dltool.errors import CheckFailed


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
    """

    code: str
    severity: str
    message: str
    cure: str
    measured: float | None = None
    limit: float | None = None
    place: str = ""
    also: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the finding for `--json` and the run folder."""
        return asdict(self)

    def text(self) -> str:
        """Return the finding as a line for people."""
        also = f" (also {', '.join(self.also)})" if self.also else ""
        return f"{self.code}: {self.message}{also}. Cure: {self.cure}"


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


def without(
    findings: Sequence[Finding], reasons: Mapping[str, str]
) -> tuple[list[Finding], list[Finding]]:
    """Return the findings that count, and those whose guard was switched off for a reason."""
    kept = [found for found in findings if found.code not in reasons]
    return kept, [found for found in findings if found.code in reasons]


def act(findings: Sequence[Finding], console: Console, *, strict: bool = False) -> None:
    """Warn about each finding; stop when one is a failure, or any with `strict`.

    Raises:
        CheckFailed: exit code 6, naming the first failure.
    """
    failures = [found for found in findings if strict or found.severity == "fail"]
    for found in findings:
        if found not in failures[:1]:
            console.warn(found.text())
    if failures:
        first = failures[0]
        raise CheckFailed(
            "E602",
            f"guard {first.code}: {first.message}",
            cure=f"{first.cure}; to train all the same, add --guards off",
        )
