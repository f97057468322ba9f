"""The command line of the topic `gpu`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import typer

from dltool.console import Console
from dltool.errors import ConfigError
from dltool.options import HELP, JsonOption

app = typer.Typer(
    help="What the GPUs and the CPU of this machine are and can do.",
    no_args_is_help=True,
    add_completion=False,
    context_settings=HELP,
)


@app.callback()
def gpu() -> None:
    """What the GPUs and the CPU of this machine are and can do."""


@app.command("info")
def info_command(
    json: JsonOption = False,
    require: Annotated[
        int | None,
        typer.Option("--require", min=1, help="Exit with 6 unless so many GPUs are usable."),
    ] = None,
    min_free: Annotated[
        str | None,
        typer.Option(
            "--min-free",
            metavar="SIZE",
            help="Count only GPUs with so much free memory, e.g. 8GiB; implies --require 1.",
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Look again and again until Ctrl-C; with --json one object a line.",
        ),
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval", min=0.1, help="Seconds between two looks of --watch.", show_default="2"
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="End --watch after so many looks.")
    ] = None,
) -> None:
    """Show GPUs, driver, CPU, memory and the installed torch, and what is wrong with them.

    No GPU is a normal answer. A GPU is usable when it is visible, open to computing, and fit for
    the installed torch.
    """
    from dltool_gpu.info import collect
    from dltool_gpu.report import check_requirement, parse_size, report

    console = Console("gpu info", json=json)
    free = parse_size(min_free, "--min-free") if min_free is not None else 0
    if watch:
        if require or free:
            raise ConfigError(
                "E205",
                "--watch only shows; --require and --min-free check once",
                cure="leave --watch or the requirement out",
            )
        watch_machine(console, interval or 2.0, count)
        return
    if interval is not None or count is not None:
        raise ConfigError(
            "E205", "--interval and --count belong to --watch", cure="add --watch or leave them out"
        )
    info = collect()
    failure = check_requirement(info, require or (1 if free else 0), free)
    if failure is None or not json:
        console.result(info.as_dict(), report(info))
    if failure is not None:
        raise failure


def watch_machine(console: Console, interval: float, count: int | None) -> None:
    """Print the state of the machine again and again; Ctrl-C is the usual end and no error."""
    from itertools import islice

    from dltool_gpu.info import watch
    from dltool_gpu.report import watched

    clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() and not console.json else ""
    with leave_on_interrupt():
        for info in islice(watch(interval), count):
            console.result(info.as_dict(), clear + watched(info, f"{datetime.now():%H:%M:%S}"))


@contextmanager
def leave_on_interrupt() -> Iterator[None]:
    """End the block at Ctrl-C in silence; SIGTERM goes on to the root command."""
    try:
        yield
    except KeyboardInterrupt as caught:
        if type(caught) is not KeyboardInterrupt:
            raise
