"""The command line of the topic `gpu`."""

from __future__ import annotations

from typing import Annotated

import typer

from dltool.console import Console
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
) -> None:
    """Show GPUs, driver, CPU, memory and the installed torch, and what is wrong with them.

    No GPU is a normal answer. A GPU is usable when it is visible, open to computing, and fit for
    the installed torch.
    """
    from dltool_gpu.info import collect
    from dltool_gpu.report import check_requirement, parse_size, report

    free = parse_size(min_free, "--min-free") if min_free is not None else 0
    info = collect()
    console = Console("gpu info", json=json)
    failure = check_requirement(info, require or (1 if free else 0), free)
    if failure is None or not json:
        console.result(info.as_dict(), report(info))
    if failure is not None:
        raise failure
