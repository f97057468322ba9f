"""Options and help of `dltool gpu burn`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dltool import ranges
from dltool.console import Console
from dltool.errors import ConfigError
from dltool.options import DeviceOption, JsonOption, OutOption, ThreadsOption

if TYPE_CHECKING:
    import torch

    from dltool_gpu import burn

LONG_SECONDS = 3600.0  # a burn of more asks first
MOST_SECONDS = 1e7  # four months


def register(app: typer.Typer) -> None:
    """Add the command to the topic."""
    app.command("burn")(command)


class BurnDtype(StrEnum):
    """Number formats of `gpu burn`."""

    fp64 = "fp64"
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"
    fp16 = "fp16"


def command(
    seconds: Annotated[float, typer.Option("--seconds", min=1.0, help="How long to burn.")] = 60.0,
    memory: Annotated[
        float | None,
        typer.Option(
            "--memory",
            min=0.01,
            max=0.98,
            help="Share of the free memory to fill.",
            show_default="0.9; Apple: 0.5; CPU: 0.1",
        ),
    ] = None,
    dtype: Annotated[
        BurnDtype | None,
        typer.Option("--dtype", help="Number format.", show_default="bf16; CPU: fp32"),
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before long burns.")] = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Keep every GPU at full load and look at every result.

    Exit 6 when anything is wrong: a product that is not bit for bit the first one, or not that of
    the CPU; clocks held down by heat or power supply; memory errors; a rate that sags; a GPU slower
    than its peers. auto takes every GPU, or the CPU. Leaves burn.json and burn.png in the run
    folder.
    """
    console = Console("gpu burn", json=json)
    confirm_long(seconds, yes=yes, json=json)
    console.loading()
    import os

    # bit-equal repeats on CUDA need a fixed workspace; read when the first product is made
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    from dltool import runs
    from dltool_gpu import burn, targets

    if threads:
        torch.set_num_threads(threads)
    devices = targets.every_device(device)
    settings = []
    for item in devices:
        chosen = dtype.value if dtype else burn.usual_dtype(item)
        burn.check_dtype(item, chosen)
        share = memory or burn.MEMORY[item.type]
        settings.append(burn.Settings(seconds, chosen, share, burn.SIZE[item.type]))
    folder = runs.claim("gpu", "burn", out)
    console.note(f"burning {', '.join(map(str, devices))} for {seconds:g} s with {chosen}")
    burn_and_judge(console, folder, devices, settings)


def confirm_long(seconds: float, *, yes: bool, json: bool) -> None:
    """Ask before a burn of more than an hour.

    Raises:
        ConfigError: E201, nobody can answer, or the answer is no; E202, it is no time at all.
    """
    ranges.inside("--seconds", seconds, 1, MOST_SECONDS)
    if seconds <= LONG_SECONDS or yes:
        return
    question = f"burn for {seconds / 3600:.1f} hours?"
    if json or not sys.stdin.isatty():
        raise ConfigError("E201", f"{question} Nobody is here to answer", cure="add --yes")
    if not typer.confirm(question, err=True):
        raise ConfigError("E201", "not burned", cure="give fewer --seconds")


def burn_and_judge(
    console: Console,
    folder: Path,
    devices: Sequence[torch.device],
    settings: Sequence[burn.Settings],
) -> None:
    """Burn, write burn.json and burn.png, print the verdict; Ctrl-C ends the burn early."""
    import threading

    from dltool import files, signals
    from dltool.environment import now
    from dltool.errors import CheckFailed, Interrupted
    from dltool_gpu import burn, burn_picture, verdict

    stop, caught, records = threading.Event(), None, burn.blank(devices, settings)
    with signals.Watch(), console.progress(round(settings[0].seconds), "burn", "s") as bar:

        def tick(seconds: float) -> None:
            bar.advance(min(int(seconds), bar.total or 0) - bar.done, burn.state(records))

        try:
            burn.burn(devices, records, stop, tick)
        except Interrupted as interrupted:
            caught = interrupted
    found = verdict.faults(records)
    result = {"folder": str(folder), "created": now(), **verdict.as_dict(records, found)}
    files.write_json_atomic(folder / "burn.json", result)
    if any(record.samples for record in records):
        burn_picture.draw(records, folder / "burn.png", passed=not found)
    if not console.json or not (found or caught):
        console.result(result, verdict.report(records, found))
    console.note(f"record and picture: {folder}")
    if found:
        told = "; ".join(f"{fault.device} {fault.code}: {fault.message}" for fault in found)
        raise CheckFailed("E601", told, cure="check cooling and power supply; see the table above")
    if caught is not None:
        number = caught.exit_code - 128
        raise Interrupted(number, f"stopped early; what was seen is in {folder}")
