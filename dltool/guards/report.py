"""The verdicts of a look at a model, its data or its run: found, clean, or not judged and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dltool.console import table
from dltool.errors import CheckFailed
from dltool.guards.findings import Clean, Finding, NotJudged, Verdict

# A mistake (left) shows in several guards: what it brings about (right) is not told apart.
BRINGS = {
    "G-D01": ("G-D02", "G-P04", "G-P05", "G-P06", "G-P13", "G-P14", "G-P16", "G-P17", "G-P18"),
    "G-P03": ("G-P02", "G-P04", "G-P05", "G-P17"),
    "G-P01": ("G-P02", "G-P04", "G-P05", "G-P16", "G-P17"),
    "G-P04": ("G-P05", "G-P17", "G-P18"),
    "G-P02": ("G-P05", "G-P06", "G-P13", "G-P16", "G-P17"),
    "G-P15": ("G-P06", "G-P13", "G-P16", "G-P17"),
    "G-P07": ("G-P17", "G-P18"),
    "G-P09": ("G-P10", "G-P11", "G-P12", "G-P13", "G-P14"),
    "G-P10": ("G-P12",),
    "G-P08": ("G-P14", "G-P16", "G-P17", "G-P19"),
    "G-D02": ("G-P05", "G-P13", "G-P16", "G-P18"),
    "G-P16": ("G-P05", "G-P06", "G-P13", "G-P17", "G-P18"),
    "G-P06": ("G-P13", "G-P16", "G-P17", "G-P18"),
    "G-P05": ("G-P18",),
    "G-P18": ("G-P17",),
    "G-D07": ("G-M05", "G-A01"),
    "G-D04": ("G-D05", "G-A06"),
    "G-M01": ("G-M05", "G-M08"),
    "G-M02": ("G-M05", "G-M07", "G-M08"),
    "G-M05": ("G-M06", "G-A01"),
    "G-A01": ("G-A02", "G-A04"),
}
ROOTS = tuple(BRINGS)


@dataclass(frozen=True)
class Report:
    """What was found, what is clean and what could not be judged."""

    findings: tuple[Finding, ...] = ()
    clean: tuple[Clean, ...] = ()
    not_judged: tuple[NotJudged, ...] = ()
    switched_off: tuple[Finding, ...] = ()

    @property
    def worst(self) -> str:
        """`fail`, `warn` or `clean`."""
        found = {each.severity for each in self.findings}
        return next((level for level in ("fail", "warn") if level in found), "clean")

    @property
    def codes(self) -> tuple[str, ...]:
        """The guards that found something, the cause before its consequences."""
        return tuple(found.code for found in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {"worst": self.worst, **asdict(self)}

    def text(self) -> str:
        """Return the report for people: findings, then what is clean, then what was not judged."""
        lines = [f"{found.severity.upper():<5}{found.text()}" for found in self.findings]
        lines += [f"off  {found.text()}" for found in self.switched_off]
        if self.clean:
            lines.append(f"clean: {' '.join(each.code for each in self.clean)}")
        if self.not_judged:
            rows = [(each.code, each.why) for each in self.not_judged]
            lines.append(table(rows, ["not judged", "why"]))
        return "\n".join(lines or ["nothing was checked"])

    def raise_for_failure(self, *, strict: bool = False) -> None:
        """Stop a script when a failure was found, or with `strict` anything.

        Raises:
            CheckFailed: naming the first.
        """
        for found in self.findings:
            if strict or found.severity == "fail":
                raise CheckFailed("E602", f"guard {found.code}: {found.message}", cure=found.cure)


def report_of(verdicts: Iterable[Verdict], off: Iterable[str] = ()) -> Report:
    """Gather verdicts, fold those of one cause, and set aside the guards that are switched off."""
    all_of_them, silenced = list(verdicts), set(off)
    found = [each for each in all_of_them if isinstance(each, Finding)]
    judged = {each.code for each in found}
    clean = {each.code: each for each in all_of_them if isinstance(each, Clean)}
    # the first reason counts: what comes after it is the same guard's second look
    left = {each.code: each for each in reversed(all_of_them) if isinstance(each, NotJudged)}
    # a guard that is left out takes along what its mistake brings about
    causes = folded(found)
    return Report(
        tuple(each for each in causes if each.code not in silenced),
        tuple(each for code, each in clean.items() if code not in judged),
        tuple(each for code, each in left.items() if code not in judged | clean.keys()),
        tuple(each for each in causes if each.code in silenced),
    )


def folded(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings with their consequences named beside them, causes first.

    A consequence is only taken in when it is no worse than its cause.
    """
    ranked = sorted(findings, key=_rank)
    kept: list[Finding] = []
    for found in ranked:
        cause = next((each for each in kept if _explains(each, found)), None)
        if cause is None:
            kept.append(found)
            continue
        also = dict.fromkeys((*cause.also, found.code, *found.also))
        kept[kept.index(cause)] = replace(cause, also=tuple(also))
    return kept


def _explains(cause: Finding, found: Finding) -> bool:
    is_worse = found.severity == "fail" and cause.severity != "fail"
    return found.code in BRINGS.get(cause.code, ()) and not is_worse


def _rank(found: Finding) -> tuple[int, int]:
    place = ROOTS.index(found.code) if found.code in ROOTS else len(ROOTS)
    return (found.severity != "fail", place)
