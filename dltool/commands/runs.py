"""`dltool runs`: what was trained in this folder, without torch and without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import options, runs
from dltool.console import Console, table

app = typer.Typer(
    help="List and show finished and running runs.",
    no_args_is_help=True,
    context_settings=options.HELP,
)


@app.callback()
def root() -> None:
    """Look back at runs."""


@app.command("list")
def list_runs(
    root_folder: Annotated[Path, typer.Option("--root", help="Folder that holds the runs.")] = (
        runs.ROOT
    ),
    topic: Annotated[str | None, typer.Option(help="Only runs of this topic.")] = None,
    json: options.JsonOption = False,
) -> None:
    """List the runs below a folder, oldest first."""
    console = Console("runs list", json=json)
    found = [facts for facts in runs.listed(root_folder) if topic in (None, facts.get("topic"))]
    rows = [
        [
            facts["folder"],
            facts.get("topic", ""),
            state(facts),
            str(facts.get("created", ""))[:19].replace("T", " "),
            summary(facts),
        ]
        for facts in found
    ]
    empty = f"there are no runs in {root_folder}; try dltool cnn train"
    text = table(rows, ["folder", "topic", "status", "created (UTC)", "result"]) if rows else empty
    console.result({"runs": [{**facts, "status": state(facts)} for facts in found]}, text)


@app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or TOPIC/latest.")],
    json: options.JsonOption = False,
) -> None:
    """Show one run: settings with their origins, environment, epochs, result."""
    console = Console("runs show", json=json)
    topic, _, name = run.partition("/")
    folder = runs.locate(name, topic) if name == "latest" else runs.locate(run, "")
    facts = runs.read_json(folder)
    config = runs.read_json(folder, "config.json")
    environment = runs.read_json(folder, "environment.json")
    records = runs.read_records(folder)
    data = {
        "folder": str(folder),
        **facts,
        "status": state({**facts, "folder": str(folder)}),
        "config": config,
        "environment": environment,
        "epochs": records,
    }
    console.result(data, _text(data))


def state(facts: dict[str, Any]) -> str:
    """Return a run's status; one that says running but has no process was killed."""
    from dltool.files import process_lives

    status = str(facts.get("status", "unknown"))
    if status == "running" and not process_lives(int(facts.get("process", 0))):
        return "stopped"
    return status


def summary(facts: dict[str, Any]) -> str:
    """Return the result in a few words."""
    result = facts.get("result") or {}
    scores = [
        f"{key.replace('_', ' ')} {value['value']:.4f}"
        for key, value in result.items()
        if isinstance(value, dict) and isinstance(value.get("value"), float)
    ]
    return ", ".join(scores)


def _text(data: dict[str, Any]) -> str:
    rows = [[key, str(item["value"]), item["origin"]] for key, item in data["config"].items()]
    head = [
        f"{data['folder']}: {data['topic']}, {data['status']}, grade {data['grade']}",
        f"command  {runs.command_line(data['command'])}",
        f"created  {data['created']}",
        f"result   {summary(data) or '-'}",
        "",
        table(rows, ["setting", "value", "origin"]),
    ]
    if data["epochs"]:
        keys = [key for key in data["epochs"][-1] if key not in ("step", "best")]
        cells = [[_cell(record.get(key)) for key in keys] for record in data["epochs"][-20:]]
        head += ["", table(cells, keys)]
    return "\n".join(head)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
