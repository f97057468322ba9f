"""`dltool resume RUN`: go on with a stopped run, whatever topic it is of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dltool import options, runs
from dltool.console import Console
from dltool.errors import CheckpointError

app = typer.Typer(
    help="Go on with a stopped run of any topic.",
    context_settings=options.HELP,
)
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=PASS_ON)
def resume(
    ctx: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder, TOPIC/latest, or latest of all.")
    ],
    json: options.JsonOption = False,
    events: options.EventsOption = False,
) -> None:
    """Repeat the command that made the run with --resume; further options are passed on to it."""
    console = Console("resume", json=json, events=events)
    folder = find(run).resolve()
    facts = runs.read_json(folder)
    if facts.get("status") == "finished" and not ctx.args:
        console.note(f"{folder} is finished already; nothing was trained")
        console.result({"run": str(folder), "status": "finished", "result": facts.get("result")})
        return
    _enter_working_folder(folder, console)
    from dltool import cli

    flags = ["--json"] * json + ["--events"] * events
    command = [
        str(facts.get("topic")),
        runs.verb_of(facts),
        "--resume",
        str(folder),
        *flags,
        *ctx.args,
    ]
    console.note(f"dltool {runs.command_line(command)}")
    raise typer.Exit(cli.run(command))


def find(text: str) -> Path:
    """Return the run folder that is meant: a path, `TOPIC/latest`, or `latest` of all topics.

    Raises:
        CheckpointError: there is none.
    """
    topic, _, name = text.partition("/")
    if name == "latest" and not Path(text, "run.json").exists():
        return runs.locate(name, topic)
    if text != "latest":
        return runs.locate(text, "")
    known = runs.listed(runs.ROOT)
    if not known:
        raise CheckpointError(
            "E501",
            f"there is no run in {runs.ROOT}",
            cure="name a run folder; see dltool runs list",
        )
    return Path(known[-1]["folder"])


def _enter_working_folder(folder: Path, console: Console) -> None:
    """Go to where the run began, so that the relative paths among its settings still hold."""
    began = runs.read_json(folder, "environment.json").get("working_folder", "")
    if began and Path(began).is_dir() and Path(began) != Path.cwd():
        console.note(f"in {began}, where the run began")
        os.chdir(began)
