"""`dltool sweep`: train one topic with many settings and seeds, and compare the results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import options, runs
from dltool.commands.runs_options import MaximiseOption, MetricOption, MinimiseOption
from dltool.console import Console, table
from dltool.errors import ConfigError

HELP = "Train with many settings and seeds, some at a time, and compare: mean and deviation."
TRIALS = 20
# options of a training that would keep its run from coming to its end here
NOT_PASSED_ON = ("--resume", "--events", "--dry-run", "--allow-changed")
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, **options.HELP}

app = typer.Typer(help=HELP, context_settings=options.HELP)


@app.command(context_settings=PASS_ON)
def sweep(
    ctx: typer.Context,
    topic: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC [VERB]", help="A topic, and its training command if not train."
        ),
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=A,B",
            help="A setting and its values; may be repeated: every combination is trained.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=0, help="Seeds for every combination; 0: the training's own.")
    ] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    search: Annotated[str, typer.Option(help="grid: every combination; optuna: trials.")] = "grid",
    trials: Annotated[int | None, typer.Option(min=1, help="Of optuna.", show_default="20")] = None,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range", metavar="KEY=LOW..HIGH[:log]", help="What optuna draws from; repeatable."
        ),
    ] = None,
    metric: MetricOption = None,
    minimise: MinimiseOption = False,
    maximise: MaximiseOption = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The sweep's folder; one that exists goes on [default: one for this call].",
            show_default=False,
        ),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Train every combination of settings with every seed; further options are the training's.

    The same call again goes on with what is missing.
    """
    console = Console("sweep", json=json)
    from dltool import sweep_processes, sweep_sources, sweeps

    asked, parameters = _asked(topic, ctx.args, sets or [], seeds)
    figure = _Figure(metric, minimise=minimise, maximise=maximise)
    spans = _spans(search, ranges or [], trials, parameters, asked)
    digest = sweeps.fingerprint(asked, search, ranges or [])
    folder = out or runs.ROOT / f"{topic}-sweep-{digest}"
    asked = dataclasses.replace(asked, folder=folder)
    _check_before(asked, spans)
    sweeps.open_folder(asked, search, ranges or [])
    with runs.locked(folder):
        if search == "grid":
            source: Any = sweep_sources.Grid(asked)
            console.note(f"{source.total} runs in {folder}, {jobs} at a time")
        else:
            count = trials or TRIALS
            console.note(f"{count} trials in {folder}, {jobs} runs at a time")
            source = sweep_sources.Search(
                asked, spans, count, figure.score, higher=figure.is_higher(asked)
            )
        outcomes = sweep_processes.run_all(source, jobs, console, figure.told)
    _tell(asked, source.settings, outcomes, figure, console)


def _asked(
    topic: str, rest: Sequence[str], sets: Sequence[str], seeds: int
) -> tuple[Any, list[Any]]:
    """Return the sweep that a call describes, and the options of its training."""
    from dltool import sweeps, tree

    known = getattr(tree.root(topic), "commands", {})
    verb, fixed = "train", list(rest)
    if fixed and fixed[0] in known:
        verb = fixed.pop(0)
    command = tree.command(topic, verb)
    if not hasattr(command.callback, "config_class"):
        raise ConfigError(
            "E206", f"dltool {topic} {verb} trains nothing", cure="name a training command"
        )
    parameters = tree.parameters(command)
    for word in fixed:
        if word.partition("=")[0] in NOT_PASSED_ON:
            raise ConfigError("E205", f"{word} is not for a sweep", cure="leave it out")
    axes = [sweeps.axis(text, parameters) for text in sets]
    names = [parameter.name for parameter, _ in axes]
    double = next((name for name in names if names.count(name) > 1), "")
    if double or (seeds and "seed" in names):
        name = double or "seed"
        raise ConfigError("E205", f"{name} is swept twice", cure=f"give --set {name}=… once")
    base = 0
    if seeds and "--seed" in fixed:
        place = fixed.index("--seed")
        given = fixed[place + 1 : place + 2]
        if not given or not given[0].isdecimal():
            raise ConfigError("E202", "--seed needs a whole number", received=" ".join(given))
        base = int(given[0])
        del fixed[place : place + 2]
    asked = sweeps.Sweep(
        words=(topic, verb),
        parameters={each.name: each for each in parameters},
        axes={parameter.name: values for parameter, values in axes},
        fixed=tuple(fixed),
        seeds=tuple(range(base, base + seeds)),
    )
    return asked, parameters


def _spans(
    search: str, ranges: Sequence[str], trials: int | None, parameters: Sequence[Any], asked: Any
) -> list[Any]:
    """Return what a search draws from."""
    from dltool import ranges as checks
    from dltool import sweep_sources

    checks.one_of("--search", search, ("grid", "optuna"))
    if search == "grid":
        if ranges or trials:
            name = "--range" if ranges else "--trials"
            raise ConfigError("E205", f"{name} needs --search optuna", cure="or use --set KEY=A,B")
        return []
    spans = [sweep_sources.span(text, parameters) for text in ranges]
    names = [each.parameter.name for each in spans] + list(asked.axes)
    if not spans and not asked.axes:
        raise ConfigError(
            "E205", "optuna has nothing to draw from", cure="add --range lr=1e-4..1e-1:log"
        )
    if len(set(names)) < len(names):
        raise ConfigError("E205", "a setting is given twice", received=", ".join(names))
    return spans


def _check_before(asked: Any, spans: Sequence[Any]) -> None:
    """Let the training refuse a combination before the first one begins.

    Raises:
        ConfigError: whatever the training refuses of any combination.
    """
    from math import prod

    from dltool import asking, sweeps, tree

    count = prod(len(values) for values in asked.axes.values()) * max(1, len(asked.seeds))
    sweeps.refuse_too_many(count)
    command = tree.command(*asked.words)
    low = tuple((each.parameter.name, _end(each, each.low)) for each in spans)
    high = tuple((each.parameter.name, _end(each, each.high)) for each in spans)
    for settings in asked.settings():
        for ends in {low, high}:
            asking.look(command, asked.words[1], asked.options((*ends, *settings)))


def _end(span: Any, value: float) -> str:
    return str(int(value)) if span.is_whole else str(value)


class _Figure:
    """The figure that runs are compared by: as asked for, or found in the first that has ended."""

    def __init__(self, name: str | None, *, minimise: bool, maximise: bool) -> None:
        from dltool.history import values
        from dltool.sweep_scores import Metric

        self.metric: Metric | None = None
        if name is not None:
            self.metric = Metric(name, values.direction(name, minimise=minimise, maximise=maximise))
        elif minimise or maximise:
            raise ConfigError("E205", "--minimise and --maximise need --metric")

    def score(self, folder: Path) -> float | None:
        """Return a finished run's figure."""
        from dltool import sweep_scores

        self.metric = self.metric or sweep_scores.find(folder)
        return sweep_scores.score(folder, self.metric) if self.metric else None

    def told(self, outcome: Any) -> str:
        """Say in a few words what a run gave."""
        if outcome.code:
            return str(outcome.told)
        value = self.score(outcome.member.folder)
        return "" if value is None or self.metric is None else f"{self.metric.name} {value:.4g}"

    def is_higher(self, asked: Any) -> bool:
        """Tell before the first run whether more is better; optuna has to know it at its start."""
        if self.metric is None:
            raise ConfigError(
                "E205",
                "--search optuna must be told what to look for",
                expected="--metric, as val_accuracy or val_loss",
                cure=f"see a run of dltool {' '.join(asked.words)} for the names",
            )
        return self.metric.higher


def _tell(
    asked: Any, settings: Sequence[Any], outcomes: Sequence[Any], figure: _Figure, console: Console
) -> None:
    """Print the table, the best and the command for it.

    Raises:
        DltoolError: no run came to its end.
    """
    from dltool import sweep_scores, sweeps

    failed = [each for each in outcomes if each.code]
    if len(failed) == len(outcomes):
        raise sweeps.failure(failed[0].code, failed[0].told)
    for each in failed:
        console.warn(f"{each.member.name} failed (exit {each.code}): {each.told}")
    for each in outcomes:
        if not each.code and figure.metric is None:
            figure.score(each.member.folder)
    metric = figure.metric
    rows = []
    for one in settings:
        members = asked.members(one)
        good = [each.folder for each in members if each.state() == "finished"]
        rows.append(sweep_scores.row(one, good, len(members) - len(good), metric))
    rows = sweep_scores.ranked(rows, metric)
    best = rows[0]
    command = asked.command(best.settings, asked.seeds[0] if asked.seeds else None)
    result = {
        "sweep": str(asked.folder),
        "topic": asked.words[0],
        "verb": asked.words[1],
        "metric": metric.name if metric else None,
        "higher_is_better": metric.higher if metric else None,
        "settings": [row.as_dict() for row in rows],
        "best": {**best.as_dict(), "command": command},
        "failed": [
            {"run": str(each.member.folder), "code": each.code, "message": each.told}
            for each in failed
        ],
    }
    words = sweep_scores.verdict(rows, metric) if metric else ""
    result["verdict"] = words
    if metric is not None and metric.is_of_test:
        console.warn(f"{metric.name} is measured on the test data: the best of many is optimistic")
    text = f"{_table(rows, metric.name if metric else 'no figure')}\n{asked.folder}"
    console.result(result, f"{text}\n{words}".rstrip())
    console.hint(command)


def _table(rows: Sequence[Any], figure: str) -> str:
    names = [name for name, _ in rows[0].settings]
    cells = [
        [
            *(value for _, value in row.settings),
            len(row.values),
            "-" if row.mean is None else f"{row.mean:.4g}",
            "-" if row.deviation is None else f"{row.deviation:.2g}",
            row.failed,
            f"{row.seconds:.0f}",
        ]
        for row in rows
    ]
    return table(cells, [*names, "runs", figure, "± sd", "failed", "seconds"])
