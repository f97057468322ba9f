"""One page about runs that needs nothing else: no script, no font, no address of elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from dltool import __version__, runs
from dltool.errors import CheckpointError
from dltool.files import write_bytes_atomic
from dltool.history import comparison, curves, gallery, groups, svg, values
from dltool.history.folders import PastRun
from dltool.history.gallery import Picture
from dltool.history.values import short

TEMPLATE = "report.html"
# what a guard's finding says, see `guards.findings`
EVIDENCE = ("code", "severity", "message", "cure", "measured", "limit", "place", "also", "left_out")
MOST_TOGETHER = 24  # curves in one panel that can still be told apart


@dataclass(frozen=True)
class Written:
    """What became of a report: its bytes, its pictures, and what could not be shown."""

    size: int
    pictures: int
    problems: tuple[str, ...]


def write(found: Sequence[PastRun], out: Path) -> Written:
    """Write the report of one or several runs, atomically."""
    from jinja2 import Environment, StrictUndefined

    source = resources.files("dltool.history").joinpath(TEMPLATE).read_text(encoding="utf-8")
    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    engine.filters["short"] = short
    page = engine.from_string(source)
    share = gallery.share_of(sum(len(gallery.files_of(run)) for run in found))
    shown, problems = [], []
    for run in found:
        pictures, left_out = gallery.pictures(gallery.files_of(run), share)
        problems += left_out
        shown.append(_run(run, pictures, left_out))
    text = page.render(
        title=_title(found),
        runs=shown,
        together=_together(found) if len(found) > 1 else None,
        written=runs.now()[:16].replace("T", " "),
        version=__version__,
    )
    content = text.encode()
    write_bytes_atomic(out, content)
    return Written(len(content), sum(len(each["pictures"]) for each in shown), tuple(problems))


def _title(found: Sequence[PastRun]) -> str:
    if len(found) == 1:
        return f"{found[0].topic}: {found[0].folder.name}"
    return f"{len(found)} runs of {', '.join(sorted({run.topic for run in found}))}"


def _together(found: Sequence[PastRun]) -> dict[str, Any] | None:
    """Return the comparison; None where the runs share no validation metric."""
    name = values.default_metric(name for run in found for name in run.names())
    if name is None:
        return None
    high = values.direction(name)
    together = groups.grouped(found)
    shown = curves.to_compare(together, name)
    panels = {} if shown is None else curves.of_groups(together[:MOST_TOGETHER], [shown])
    return {
        "metric": name,
        "rows": comparison.rows(together, name, high=high),
        "verdict": groups.verdict(together, name, high=high),
        "doubts": groups.doubts(together),
        "charts": _charts(panels),
        "repeated": any(len(group.runs) > 1 for group in together),
    }


def _charts(panels: curves.Panels) -> list[dict[str, Any]]:
    return [
        {
            "name": metric.replace("_", " "),
            "svg": svg.chart(metric, bands),
            "legend": svg.legend([each.label for each in bands]),
        }
        for metric, bands in panels.items()
    ]


def _run(run: PastRun, pictures: Sequence[Picture], left_out: Sequence[str]) -> dict[str, Any]:
    """Return what the page shows of one run, as texts and numbers."""
    settings = [
        {"name": name, "value": short(item["value"]), "origin": item.get("origin", "")}
        for name, item in run.config.items()
    ]
    chosen = [item for item in settings if item["origin"] not in ("default", "")]
    scores = [{"name": name, "score": score} for name, score in run.scores.items()]
    measured = [each for each in scores if _is_measured(each["score"])]
    return {
        "name": run.folder.name,
        "facts": {
            name: run.value(name) for name in ("topic", "data", "status", "grade", "created")
        },
        "note": run.note,
        "damage": run.damage,
        "measured": measured or scores[:6],
        "others": [each for each in scores if each not in (measured or scores[:6])],
        "charts": _charts(curves.of_runs([run], [])),
        "pictures": pictures,
        "left_out": left_out,
        "guards": _guards(run),
        "chosen": chosen,
        "defaults": [item for item in settings if item not in chosen],
        "data": _flat(_part(run, "data.json")),
        "environment": _flat(_part(run, "environment.json")),
        "commands": _commands(run),
    }


def _is_measured(score: Any) -> bool:
    return score.low is not None or score.n is not None


def _guards(run: PastRun) -> dict[str, Any]:
    """Return what the guards found, and whether they looked at all."""
    result = run.facts.get("result")
    told = result.get("findings") if isinstance(result, dict) else None
    stored = _listed(run.folder / "guards.json")
    both = [*(stored or []), *(told if isinstance(told, list) else [])]
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for item in both:
        if isinstance(item, dict):
            told_once = tuple(str(item.get(name)) for name in ("code", "message", "place"))
            found.setdefault(told_once, {name: _word(item.get(name)) for name in EVIDENCE})
    unique = list(found.values())
    is_off = run.settings.get("guards") == "off"
    return {"found": unique, "looked": (told is not None or stored is not None) and not is_off}


def _word(value: Any) -> str:
    return "" if value is None else short(value)


def _listed(path: Path) -> list[Any] | None:
    """Return the list that a JSON file holds, alone or as `findings`; None without one."""
    import json

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    value = value.get("findings") if isinstance(value, dict) else value
    return value if isinstance(value, list) else None


def _part(run: PastRun, name: str) -> dict[str, Any]:
    try:
        return run.part(name)
    except CheckpointError as error:
        return {"not readable": error.one_line()}


def _flat(value: dict[str, Any], path: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, item in value.items():
        place = f"{path}{name}"
        rows += _flat(item, f"{place}.") if isinstance(item, dict) else [(place, _brief(item))]
    return rows


def _brief(value: Any) -> str:
    text = short(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _commands(run: PastRun) -> list[str]:
    """Return the commands that repeat the run, from where it began."""
    words = [str(word) for word in run.facts.get("command") or []]
    began = _part(run, "environment.json").get("working_folder")
    first = [f"cd {runs.command_line([str(began)])}"] if began else []
    again = [runs.command_line(words)] if words else []
    return [*first, *again, f"dltool reproduce {runs.command_line([str(run.folder)])}"]
