"""What a guard says, and what is done about it."""

from __future__ import annotations

from collections.abc import Sequence
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
    """

    code: str
    severity: str
    message: str
    cure: str

    def as_dict(self) -> dict[str, Any]:
        """Return the finding for `--json` and the run folder."""
        return asdict(self)


def act(findings: Sequence[Finding], console: Console, *, strict: bool = False) -> None:
    """Warn about each finding; stop when one is a failure, or any with `strict`.

    Raises:
        CheckFailed: exit code 6, naming the first failure.
    """
    failures = [found for found in findings if strict or found.severity == "fail"]
    for found in findings:
        if found not in failures[:1]:
            console.warn(f"{found.code}: {found.message}. Cure: {found.cure}")
    if failures:
        first = failures[0]
        raise CheckFailed(
            "E602",
            f"guard {first.code}: {first.message}",
            cure=f"{first.cure}; to train all the same, add --guards off",
        )
