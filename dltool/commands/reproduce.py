"""`dltool reproduce RUN`: run a run's settings again, here and now, and compare."""

from __future__ import annotations

import json as jsonlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import environment, options, processes, runs
from dltool.commands.resume import find
from dltool.console import Console, table
from dltool.errors import CheckFailed

app = typer.Typer(
    help="Run a run again and name the first value that differs.",
    context_settings=options.HELP,
)
# settings of one command, not of the run
LEFT_OUT = {"max_time", "track"}


@app.command()
def reproduce(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder, TOPIC/latest, or latest of all.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Keep the second run here [default: it is removed].", show_default=False),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Train again with the run's settings; exit 6 when a logged value differs."""
    console = Console("reproduce", json=json)
    folder = find(run).resolve()
    facts = runs.read_json(folder)
    for reason in _doubts(folder, facts):
        console.warn(reason)
    with _second_folder(out) as second:
        _train_again(folder, facts, second, console)
        console.loading()
        found = _compare(folder, second)
    same = found["first_difference"] is None
    result = {"run": str(folder), "grade": facts.get("grade"), "same": same, **found}
    console.result(result, _text(result)) if same or not json else None
    if not same:
        raise CheckFailed(
            "E601",
            f"the second run differs: {found['first_difference']}"
            + (
                f"; the environment: {_changes(found['environment'])}"
                if found["environment"]
                else ""
            ),
            cure="use the versions, threads and device of the first run; see dltool runs show",
        )


def _doubts(folder: Path, facts: dict[str, Any]) -> list[str]:
    """Say what of the first run its settings do not tell."""
    config = runs.read_json(folder, "config.json")
    changed = [name for name, item in config.items() if str(item["origin"]).startswith("changed")]
    found = []
    if changed:
        found.append(f"{', '.join(changed)} changed in the middle of the first run")
    if facts.get("memory"):
        found.append("the first run ran out of memory and divided its batches")
    if facts.get("status") != "finished":
        found.append(f"the first run is {facts.get('status')}: only what it logged is compared")
    if facts.get("grade") != "bitwise":
        found.append(f"the first run's grade is {facts.get('grade')}: it need not repeat")
    return found


@contextmanager
def _second_folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out.resolve()
        return
    folder = tempfile.mkdtemp(prefix="dltool-reproduce-")
    try:
        yield Path(folder, "run")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _train_again(folder: Path, facts: dict[str, Any], second: Path, console: Console) -> None:
    command = [str(facts["topic"]), runs.verb_of(facts)]
    config = runs.read_json(folder, "config.json")
    began = Path(runs.read_json(folder, "environment.json").get("working_folder", ""))
    logged = len(runs.read_records(folder))
    finished = facts.get("status") == "finished"

    def is_enough(event: dict[str, Any]) -> bool:
        return not finished and event["event"] == "epoch" and event.get("epoch", 0) >= logged

    with tempfile.TemporaryDirectory(prefix="dltool-settings-") as place:
        settings = Path(place, "settings.toml")
        settings.write_text(_toml(config), encoding="utf-8")
        words = [*command, "--config", str(settings), "--out", str(second)]
        console.note(f"dltool {runs.command_line(words)}")
        ended = processes.run(words, folder=began if began.is_dir() else None, stop_when=is_enough)
    processes.refuse_failure(ended, runs.command_line(command), *([] if finished else [130]))


def _toml(config: dict[str, Any]) -> str:
    """Write flat settings as TOML, whose strings, numbers and lists are those of JSON."""
    values = {name: item["value"] for name, item in config.items() if name not in LEFT_OUT}
    return "".join(
        f"{name} = {jsonlib.dumps(value)}\n" for name, value in values.items() if value is not None
    )


def _compare(first: Path, second: Path) -> dict[str, Any]:
    from dltool import compare

    before, after = runs.read_records(first), runs.read_records(second)
    difference = compare.first_record_that_differs(before, after[: len(before)])
    if difference is None:
        results = [runs.read_json(folder).get("result") or {} for folder in (first, second)]
        difference = compare.first_result_that_differs(*results)
    surroundings = [runs.read_json(folder, "environment.json") for folder in (first, second)]
    return {
        "epochs_compared": len(before),
        "first_difference": difference,
        "environment": environment.differences(*surroundings),
    }


def _changes(different: list[dict[str, Any]]) -> str:
    return ", ".join(f"{each['name']} {each['before']} -> {each['now']}" for each in different)


def _text(result: dict[str, Any]) -> str:
    head = "same" if result["same"] else f"DIFFERENT  {result['first_difference']}"
    lines = [f"{result['run']}: {head}, {result['epochs_compared']} epochs compared"]
    if result["environment"]:
        rows = [[each["name"], each["before"], each["now"]] for each in result["environment"]]
        lines.append(table(rows, ["environment", "before", "now"]))
    else:
        lines.append("the environment is the same")
    return "\n".join(lines)
