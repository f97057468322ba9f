"""`dltool check`: look for silent mistakes in a topic's training, a run, your own code or a log."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dltool import options, runs
from dltool.console import Console
from dltool.errors import CheckFailed, CheckpointError, ConfigError, DltoolError

if TYPE_CHECKING:
    from dltool.guards.report import Report

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, **options.HELP}

app = typer.Typer(help="Look for silent mistakes.")


@app.command(context_settings=PASS_ON)
def check(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC|RUN|MODULE:FUNCTION|log FILE",
            help="A topic (its train options behind --), a run folder, a function that returns "
            "what guards.check takes, or a log.",
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="Handed to MODULE:FUNCTION.", metavar="PATH")
    ] = None,
    classes: Annotated[
        int, typer.Option(min=0, help="For a log: classes, or tokens of the vocabulary.")
    ] = 0,
    full: Annotated[bool, typer.Option("--full", help="Slow checks too.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 6 at warnings too.")] = False,
    without: options.WithoutOption = [],  # noqa: B006
    json: options.JsonOption = False,
) -> None:
    """Look for silent mistakes without training; exit 6 when one is found."""
    console = Console("check", json=json)
    rest = [word for word in ctx.args if word != "--"]
    if target == "log":
        report = _log(rest, classes, without)
    elif Path(target, "run.json").is_file() or target.partition("/")[2] == "latest":
        report = _run(target, without)
    elif ":" in target and not _is_topic(target):
        report = _function(target, data, full=full, without=without)
    else:
        raise typer.Exit(_topic(target, rest, full=full, without=without, json=json))
    console.result(report.as_dict(), report.text())
    bad = [each for each in report.findings if strict or each.severity == "fail"]
    if bad and json:
        raise typer.Exit(6)
    if bad:
        raise CheckFailed("E601", f"guard {bad[0].code}: {bad[0].message}", cure=bad[0].cure)


def _is_topic(name: str) -> bool:
    from dltool import plugins

    return any(name in (each.name, each.qualified) for each in plugins.discover())


def _topic(name: str, rest: list[str], *, full: bool, without: list[str], json: bool) -> int:
    """Run a topic's training up to the first step."""
    if not _is_topic(name):
        raise ConfigError(
            "E206",
            f"{name!r} is no topic, no run folder and no MODULE:FUNCTION",
            expected="a topic, a run, MODULE:FUNCTION, or log FILE",
            cure="dltool check cnn -- --data FOLDER",
        )
    from dltool import cli

    left_out = [word for code in without for word in ("--without", code)]
    mode = "only-full" if full else "only"
    flags = [*left_out, "--guards", mode, *["--json"] * json]
    return cli.run([name, "train", *rest, *flags])


def _run(target: str, without: list[str]) -> Report:
    """Judge a run by what its folder holds."""
    from dltool.guards import audit
    from dltool.guards.findings import FILE, Finding, reasons
    from dltool.guards.report import report_of

    topic, _, name = target.partition("/")
    folder = runs.locate(name, topic) if name == "latest" else Path(target)
    facts = runs.read_json(folder)
    try:
        data = runs.read_json(folder, "data.json")
    except CheckpointError:
        data = {}
    records = runs.read_records(folder)
    verdicts = audit.audit(facts.get("result") or {}, data, records)
    known = set(inspect.signature(Finding).parameters)
    for entry in _entries(folder / FILE):
        kept = {key: value for key, value in entry.items() if key in known}
        verdicts.append(Finding(**{**kept, "also": tuple(kept.get("also", ()))}))
    off = [each.code for each in verdicts if getattr(each, "left_out", "")]
    return report_of(verdicts, [*reasons(without), *off])


def _entries(path: Path) -> list[dict[str, Any]]:
    import json

    if not path.is_file():
        return []
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        needed = {"code", "severity", "message", "cure"}
        return [dict(each) for each in value if needed <= set(each)]
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError("E511", f"{path} is damaged", cure="restore the file") from error


def _function(target: str, data: str | None, *, full: bool, without: list[str]) -> Report:
    """Check what a user's own function returns."""
    given = _returned(target, data)
    from dltool.guards.findings import reasons
    from dltool.guards.preflight import check as check_model

    positions = [given.pop(name, None) for name in ("model", "batch")]
    known = set(inspect.signature(check_model).parameters) - {"model", "batch", "full", "without"}
    strange = sorted(set(given) - known)
    if strange or any(each is None for each in positions):
        raise ConfigError(
            "E205",
            f"{target} returns {', '.join(strange) or 'no model or no batch'}",
            expected=f"a dict with model, batch and any of {', '.join(sorted(known))}",
            cure="return what dltool.guards.check takes; see docs/plugins.md",
        )
    model, batch = positions
    return check_model(model, batch, full=full, without=reasons(without), **given)


def _returned(target: str, data: str | None) -> dict[str, Any]:
    module_name, _, name = target.partition(":")
    sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(module_name), name)
        takes = inspect.signature(function).parameters
        if data is not None and not takes:
            raise ConfigError("E205", f"{target} takes no data", cure="leave --data out")
        value = function(data) if data is not None else function()
    except DltoolError:
        raise
    except Exception as error:
        raise ConfigError(
            "E206",
            f"{target} cannot be used: {type(error).__name__}: {error}",
            expected="MODULE:FUNCTION in the working folder or the environment",
            cure="try python -c 'import MODULE; MODULE.FUNCTION()'",
        ) from error
    finally:
        sys.path.remove("")
    if isinstance(value, tuple) and 2 <= len(value) <= 4:
        value = dict(zip(("model", "batch", "loss", "optimizer"), value, strict=False))
    if not isinstance(value, Mapping):
        raise ConfigError(
            "E205",
            f"{target} returns {type(value).__name__}",
            expected="a dict, or (model, batch, loss, optimizer)",
            cure="return what dltool.guards.check takes; see docs/plugins.md",
        )
    return dict(value)


def _log(rest: list[str], classes: int, without: list[str]) -> Report:
    """Judge a log of any training."""
    from dltool.guards import logs
    from dltool.guards.findings import reasons
    from dltool.guards.report import report_of

    if len(rest) != 1:
        raise ConfigError("E201", "one log is needed", cure="dltool check log metrics.jsonl")
    records = logs.read(Path(rest[0]))
    return report_of(logs.judge(records, classes), reasons(without))
