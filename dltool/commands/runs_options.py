"""Options and arguments that several commands of `dltool runs` share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dltool.console import Console
from dltool.errors import CheckpointError, ConfigError
from dltool.history import choose, folders, values
from dltool.history.folders import PastRun

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run folder, TOPIC/latest, or latest of all.")
]
RunsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...", help="Run folders, folders of them, TOPIC/latest, or latest of all."
    ),
]
RootOption = Annotated[Path, typer.Option("--root", help="Folder that holds the runs.")]
TopicOption = Annotated[str | None, typer.Option(help="Only runs of this topic.")]
DataOption = Annotated[
    str | None, typer.Option(help="Only runs on this data: its name, or a pattern such as '*.csv'.")
]
StateOption = Annotated[
    str | None, typer.Option(help="Only runs with this status, such as finished or running.")
]
GradeOption = Annotated[
    str | None, typer.Option(help="Only bitwise, 'same machine' or statistical runs.")
]
SinceOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only runs since 2026-11-21, or 12h, 7d back.")
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="Only where a metric or setting is so, as 'val_accuracy>=0.9'; may be repeated.",
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(help="What to go by [default: the validation metric].", show_default=False),
]
MinimiseOption = Annotated[bool, typer.Option("--minimise", help="A low value is good.")]
MaximiseOption = Annotated[bool, typer.Option("--maximise", help="A high value is good.")]


def below(root: Path, choice: choose.Choice, console: Console) -> list[PastRun]:
    """Return the runs below a folder that the options mean; warn of those that are unreadable."""
    found, problems = folders.scan(root)
    for problem in problems:
        console.warn(problem.one_line())
    warn_of_damage(found, console)
    return choice.of(found)


def warn_of_damage(found: Sequence[PastRun], console: Console) -> None:
    """Warn of runs whose settings cannot be read; what else they say is still used."""
    for run in found:
        if run.damage:
            console.warn(run.damage)


def named(texts: Sequence[str], console: Console) -> list[PastRun]:
    """Return the runs that the arguments name.

    Raises:
        CheckpointError: one of them leads to no run.
    """
    found = folders.chosen(texts)
    warn_of_damage(found, console)
    return found


def metric_of(
    found: Sequence[PastRun], metric: str | None, *, minimise: bool, maximise: bool
) -> tuple[str, bool]:
    """Return the metric to go by and whether a high value of it is good.

    Raises:
        ConfigError: none was named and none is known, or its direction is not.
        CheckpointError: there is no run.
    """
    if not found:
        raise CheckpointError(
            "E501", "there is no run to look at", cure="see dltool runs list, or train one"
        )
    name = metric or values.default_metric(name for run in found for name in run.names())
    if name is None:
        known = sorted({name for run in found for name in run.scores})
        raise ConfigError(
            "E201",
            "these runs have no validation metric to go by",
            cure=f"name one with --metric{': ' if known else ''}{', '.join(known[:12])}",
        )
    choose.refuse_unknown(name, found)
    if not any(isinstance(run.value(name), int | float) for run in found):
        raise ConfigError(
            "E202", f"{name} is no number in these runs", cure="name a metric with --metric"
        )
    return name, values.direction(name, minimise=minimise, maximise=maximise)
