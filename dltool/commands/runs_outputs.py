"""`dltool runs plot`, `report` and `export`: curves, one page to send, tables for others."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from dltool import options, runs
from dltool.commands.runs_options import RunsArgument, named
from dltool.console import Console, use_color
from dltool.errors import ConfigError, DataError
from dltool.history import choose
from dltool.history import export as exports
from dltool.history.export import FORMATS, TABLES
from dltool.history.folders import PastRun

PLOT = runs.ROOT / "plot.png"


def plot(
    run: RunsArgument,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric to draw; may be repeated [default: losses and scores]."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Picture to write, .png or .svg.")] = PLOT,
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Draw in the terminal; no file is written.")
    ] = False,
    json: options.JsonOption = False,
) -> None:
    """Draw the curves of one run, or of several over one another."""
    console = Console("runs plot", json=json)
    if terminal and out != PLOT:
        raise ConfigError(
            "E205", "--terminal writes no file", received=f"--out {out}", cure="leave one out"
        )
    found = named(run, console)
    names = list(dict.fromkeys(metric or ()))
    for name in names:
        choose.refuse_unknown(name, found)
    from dltool.history import curves, pictures

    pictures.check_name(out)
    panels = curves.of_runs(found, names)
    if not panels:
        wanted = ", ".join(names) or "a metric"
        raise DataError(
            "E503",
            f"{wanted} was not logged in {_told(found)}: there is no curve to draw",
            cure="see dltool runs show RUN",
        )
    points = {name: sum(len(each.x) for each in bands) for name, bands in panels.items()}
    data = {"metrics": points, "runs": [str(each.folder) for each in found]}
    if terminal:
        from dltool.history import terminal as text

        width = shutil.get_terminal_size((100, 24)).columns
        drawn = text.draw(
            panels, width, color=use_color(sys.stdout), dots=text.has_dots(sys.stdout.encoding)
        )
        console.result({**data, "picture": None, "text": drawn}, drawn)
        return
    pictures.overlay(panels, out, found[0].folder.name if len(found) == 1 else _told(found))
    console.result({**data, "picture": str(out)}, f"curves {out}")


def _told(found: list[PastRun]) -> str:
    return str(found[0].folder) if len(found) == 1 else f"{len(found)} runs"


def report(
    run: RunsArgument,
    out: Annotated[Path, typer.Option(help="Page to write, .html.")],
    json: options.JsonOption = False,
) -> None:
    """Write one HTML page about runs: for a phone, in the dark, offline, to send to someone.

    Settings with their origins, curves, the topic's pictures, results with their intervals, what
    the guards found, the environment, and the command that repeats it. It loads nothing from
    elsewhere and runs no script.
    """
    console = Console("runs report", json=json)
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            "E202", "a report is a page", received=str(out), expected="a name in .html"
        )
    found = named(run, console)
    from dltool.history import report as page

    written = page.write(found, out)
    for problem in written.problems:
        console.warn(problem)
    result = {"report": str(out), "bytes": written.size, "runs": [str(r.folder) for r in found]}
    console.result(
        {**result, "pictures": written.pictures}, f"report {out}, {written.size / 1e3:,.0f} kB"
    )


def export(
    run: RunsArgument,
    out: Annotated[Path, typer.Option(help="File to write.")],
    form: Annotated[
        str | None,
        typer.Option("--format", help=f"{', '.join(FORMATS)} [default: by the file's name]."),
    ] = None,
    table: Annotated[
        str, typer.Option(help="metrics: a row a logged line; runs: a row a run.")
    ] = "metrics",
    json: options.JsonOption = False,
) -> None:
    """Write runs as one table for a spreadsheet, pandas or a database."""
    console = Console("runs export", json=json)
    chosen = exports.format_of(out, form)
    if table not in TABLES:
        raise ConfigError(
            "E202", "--table is not known", received=table, expected="metrics or runs"
        )
    found = named(run, console)
    count = exports.write(found, table, out, chosen)
    if not count:
        console.warn("nothing was logged in these runs: the table is empty")
    result = {"file": str(out), "format": chosen, "table": table, "rows": count}
    console.result(result, f"{out}: {count:,} rows of {_told(found)}")
