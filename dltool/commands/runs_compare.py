"""`dltool runs compare` and `diff`: which runs are better, and what was different."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import environment, options, runs
from dltool.commands.runs_options import (
    MaximiseOption,
    MetricOption,
    MinimiseOption,
    RunArgument,
    RunsArgument,
    metric_of,
    named,
    warn_of_damage,
)
from dltool.console import Console, table
from dltool.history import comparison, folders, nested
from dltool.history.folders import PastRun
from dltool.history.groups import Group, doubts, grouped, verdict
from dltool.history.values import short

PICTURE = runs.ROOT / "compare.png"


def compare(
    run: RunsArgument,
    metric: MetricOption = None,
    minimise: MinimiseOption = False,
    maximise: MaximiseOption = False,
    out: Annotated[
        Path, typer.Option(help="Picture of the curves to write, .png or .svg.")
    ] = PICTURE,
    json: options.JsonOption = False,
) -> None:
    """Compare runs: mean and deviation over seeds, a verdict, one picture of all curves.

    Runs that differ only by their seed are one row and one curve. The verdict says whether the
    seeds are enough to tell the two best apart (Welch's interval, 95 %).
    """
    console = Console("runs compare", json=json)
    found = named(run, console)
    name, high = metric_of(found, metric, minimise=minimise, maximise=maximise)
    groups = grouped(found)
    for doubt in doubts(groups):
        console.warn(doubt)
    rows = comparison.rows(groups, name, high=high)
    words = verdict(groups, name, high=high)
    picture = _draw(groups, name, out)
    result = {
        "metric": name,
        "higher_is_better": high,
        "groups": rows,
        "verdict": words,
        "picture": None if picture is None else str(picture),
    }
    console.result(result, _text(rows, name, words))
    if picture is None:
        console.note("no metric was logged in these runs: there are no curves to draw")
    else:
        console.note(f"curves {picture}")
    console.hint(f"dltool runs report {runs.command_line(run)} --out report.html")


def _text(rows: Sequence[dict[str, Any]], name: str, words: str) -> str:
    scores = list(rows[0]["scores"])
    cells = [
        [
            row["group"],
            row["text"],
            _gap(row["difference"]),
            *((row["scores"][score] or {"text": "-"})["text"] for score in scores),
        ]
        for row in rows
    ]
    header = ["runs", f"{name}, mean ± sd", "behind the best", *scores]
    return table(cells, header) + (f"\n\n{words}" if words else "")


def _gap(gap: dict[str, Any] | None) -> str:
    if gap is None:
        return ""
    ends = "" if gap["low"] is None else f" [{short(gap['low'])}, {short(gap['high'])}]"
    return short(gap["value"]) + ends


def _draw(groups: Sequence[Group], name: str, out: Path) -> Path | None:
    """Draw the metric over the epochs; return nothing where nothing was logged."""
    from dltool.history import curves, pictures

    pictures.check_name(out)
    shown = curves.to_compare(groups, name)
    panels = {} if shown is None else curves.of_groups(groups, [shown])
    if not panels:
        return None
    repeated = any(len(group.runs) > 1 for group in groups)
    title = "mean ± standard deviation over seeds" if repeated else "one run each"
    pictures.overlay(panels, out, title)
    return out


def diff(a: RunArgument, b: RunArgument, json: options.JsonOption = False) -> None:
    """Show what differs between two runs: settings and their origins, environment, data, result."""
    console = Console("runs diff", json=json)
    left, right = folders.find(a), folders.find(b)
    warn_of_damage([left, right], console)
    found = {
        "a": str(left.folder),
        "b": str(right.folder),
        "settings": _setting_differences(left, right),
        "environment": environment.differences(
            left.part("environment.json"), right.part("environment.json")
        ),
        "data": nested.diff_values(left.part("data.json"), right.part("data.json")),
        "result": [
            {"name": name, "a": one and one.value, "b": other and other.value}
            for name in dict.fromkeys([*left.scores, *right.scores])
            if (one := left.scores.get(name)) != (other := right.scores.get(name))
        ],
    }
    console.result(found, _difference_text(found))


def _setting_differences(left: PastRun, right: PastRun) -> list[dict[str, Any]]:
    found = []
    for name in dict.fromkeys([*left.config, *right.config]):
        one, other = left.config.get(name, {}), right.config.get(name, {})
        if one.get("value") != other.get("value") or bool(one) != bool(other):
            found.append(
                {
                    "setting": name,
                    "a": one.get("value"),
                    "a_origin": one.get("origin"),
                    "b": other.get("value"),
                    "b_origin": other.get("origin"),
                }
            )
    return found


def _difference_text(found: dict[str, Any]) -> str:
    parts = [f"A  {found['a']}\nB  {found['b']}"]
    keys = {
        "settings": ("setting", "a", "a_origin", "b", "b_origin"),
        "environment": ("name", "before", "now"),
        "data": ("value", "a", "b"),
        "result": ("name", "a", "b"),
    }
    titles = {"a": "A", "b": "B", "a_origin": "origin", "b_origin": "origin"}
    titles |= {"before": "A", "now": "B"}
    for part, columns in keys.items():
        rows = [[_brief(item[column]) for column in columns] for item in found[part]]
        header = [part, *(titles[column] for column in columns[1:])]
        parts.append(table(rows, header) if rows else f"{part}: the same")
    return "\n\n".join(parts)


def _brief(value: Any) -> str:
    text = short(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
