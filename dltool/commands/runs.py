"""`dltool runs`: look back at what was trained, without torch and without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import options, runs
from dltool.commands import runs_change, runs_compare, runs_outputs
from dltool.commands.runs_options import (
    DataOption,
    GradeOption,
    MaximiseOption,
    MetricOption,
    MinimiseOption,
    RootOption,
    RunArgument,
    SinceOption,
    StateOption,
    TopicOption,
    WhereOption,
    below,
    metric_of,
    warn_of_damage,
)
from dltool.console import Console, table
from dltool.history import choose, folders
from dltool.history.folders import PastRun
from dltool.history.values import short

app = typer.Typer(
    help="Look back at runs: list, compare, draw, report, remove.",
    no_args_is_help=True,
    context_settings=options.HELP,
    epilog="Try: dltool runs list     then: dltool runs compare RUN RUN",
)
app.command()(runs_compare.compare)
app.command()(runs_compare.diff)
app.command()(runs_outputs.plot)
app.command()(runs_outputs.report)
app.command()(runs_outputs.export)
app.command()(runs_change.note)
app.command("rm")(runs_change.remove)

COLUMNS = ("folder", "topic", "data", "status", "created", "result")
ALWAYS = (
    *("format", "id", "dltool", "topic", "verb", "name", "status", "grade", "created", "command"),
    *("process", "finished", "result"),
)
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated facts, metrics or settings [default: " + ",".join(COLUMNS) + "].",
        show_default=False,
    ),
]


@app.callback()
def root() -> None:
    """Look back at runs."""


@app.command("list")
def list_runs(
    root_folder: RootOption = runs.ROOT,
    topic: TopicOption = None,
    data: DataOption = None,
    state: StateOption = None,
    grade: GradeOption = None,
    since: SinceOption = None,
    where: WhereOption = None,
    sort: Annotated[
        str, typer.Option(help="Fact, metric or setting to sort by, smallest first.")
    ] = "created",
    reverse: Annotated[bool, typer.Option("--reverse", help="Largest first.")] = False,
    columns: ColumnsOption = None,
    json: options.JsonOption = False,
) -> None:
    """List the runs below a folder, oldest first."""
    console = Console("runs list", json=json)
    choice = choose.Choice(topic, data, state, grade, since, tuple(where or ()))
    found = choose.ordered(below(root_folder, choice, console), sort, reverse=reverse)
    shown = [name.strip() for name in (columns or ",".join(COLUMNS)).split(",")]
    for name in shown:
        choose.refuse_unknown(name, found)
    rows = [[_cell(name, run) for name in shown] for run in found]
    chosen = any((topic, data, state, grade, since, where))
    empty = (
        f"no run in {root_folder} fits"
        if chosen
        else f"there are no runs in {root_folder}; try dltool cnn train"
    )
    header = [{"created": "created (UTC)"}.get(name, name) for name in shown]
    extra = [name for name in shown if name not in COLUMNS]
    console.result(
        {"runs": [_facts(run, extra) for run in found]}, table(rows, header) if rows else empty
    )


def _cell(name: str, run: PastRun) -> str:
    """Return a value for the table; of paths to data only the files' names."""
    value = run.value(name)
    if name == "data" and "/" in str(value):
        return ",".join(Path(part).name for part in str(value).split(","))
    return short(value)


def _facts(run: PastRun, names: list[str]) -> dict[str, Any]:
    """Return what `run.json` says, and null for what this version or an unfinished run lacks."""
    own = {"folder": str(run.folder), "status": run.state, "data": run.data}
    facts = {**dict.fromkeys(ALWAYS), "command": [], **run.facts, **own}
    note = {"note": run.note} if run.note else {}
    return {**facts, **note, **({"values": {n: run.value(n) for n in names}} if names else {})}


@app.command()
def best(
    metric: MetricOption = None,
    minimise: MinimiseOption = False,
    maximise: MaximiseOption = False,
    root_folder: RootOption = runs.ROOT,
    topic: TopicOption = None,
    data: DataOption = None,
    state: StateOption = None,
    grade: GradeOption = None,
    since: SinceOption = None,
    where: WhereOption = None,
    top: Annotated[int, typer.Option(min=1, help="Runs to show.")] = 5,
    json: options.JsonOption = False,
) -> None:
    """Name the best run by a metric, and those that follow it."""
    console = Console("runs best", json=json)
    choice = choose.Choice(topic, data, state, grade, since, tuple(where or ()))
    found = below(root_folder, choice, console)
    name, high = metric_of(found, metric, minimise=minimise, maximise=maximise)
    ranked = [run for run in found if isinstance(run.value(name), int | float)]
    ranked.sort(key=lambda run: run.value(name), reverse=high)
    _doubt(name, ranked, console)
    rows = [
        [short(run.value(name)), run.folder, run.topic, run.data, run.state, run.value("result")]
        for run in ranked[:top]
    ]
    shown = [{**_facts(run, []), "value": run.value(name)} for run in ranked[:top]]
    console.result(
        {"metric": name, "higher_is_better": high, "best": shown[0], "runs": shown},
        table(rows, [name, "folder", "topic", "data", "status", "result"]),
    )
    console.hint(f"dltool runs show {ranked[0].folder}")


def _doubt(name: str, ranked: list[PastRun], console: Console) -> None:
    """Say what makes this order less than fair."""
    if name.rpartition(".")[2].startswith("test"):
        console.warn(
            f"the best of {len(ranked)} runs by {name} looks better than it is: choose by a "
            "validation metric, then read the test"
        )
    if len({(run.topic, run.data) for run in ranked}) > 1:
        console.warn("these runs are of several topics or data sets: add --topic or --data")


@app.command()
def show(run: RunArgument, json: options.JsonOption = False) -> None:
    """Show one run: settings with their origins, environment, epochs, result."""
    console = Console("runs show", json=json)
    found = folders.find(run)
    warn_of_damage([found], console)
    records = runs.read_records(found.folder)
    data = {
        **_facts(found, []),
        "config": found.config,
        "environment": found.part("environment.json"),
        "epochs": records,
    }
    console.result(data, _text(found, records))


def _text(run: PastRun, records: list[dict[str, Any]]) -> str:
    rows = [
        [name, short(item["value"]), item.get("origin", "-")] for name, item in run.config.items()
    ]
    words = run.facts.get("command") or []
    head = [
        f"{run.folder}: {run.topic}, {run.state}, grade {run.facts.get('grade', 'unknown')}",
        f"command  {runs.command_line(list(map(str, words)))}",
        f"created  {run.created}",
        *([f"note     {run.value('note')}"] if run.note else []),
        *[f"result   {name} {score.text()}" for name, score in run.scores.items()][:12],
        "",
        table(rows, ["setting", "value", "origin"]),
    ]
    if records:
        keys = [key for key in records[-1] if key not in ("step", "best")]
        cells = [[short(record.get(key)) for key in keys] for record in records[-20:]]
        head += ["", table(cells, keys)]
    return "\n".join(head)
