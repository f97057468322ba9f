"""The command line of the topic `gpu`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from dltool import ranges
from dltool.console import Console
from dltool.errors import ConfigError
from dltool.options import (
    HELP,
    DeviceOption,
    JsonOption,
    OutOption,
    SeedOption,
    ThreadsOption,
    training_option,
)
from dltool_gpu import cli_budget, cli_burn

LONGEST_INTERVAL = 1e7  # four months

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
    """Show GPUs, driver, CPU, torch and what is wrong with them.

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
        ranges.inside("--interval", interval or 2.0, 0.1, LONGEST_INTERVAL)
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


@app.command("test")
def trial_command(
    device: DeviceOption = "auto",
    epochs: Annotated[
        int, training_option("Passes over the training data.", "--epochs", min=1)
    ] = 4,
    batch_size: Annotated[
        int, training_option("Samples a batch.", "--batch-size", min=1, max=6400)
    ] = 128,
    seed: SeedOption = 0,
    threads: ThreadsOption = 0,
    json: JsonOption = False,
) -> None:
    """Train a small network on every device and compare the losses.

    Exit 6 unless all devices and the CPU learn the same. The network is that of MNIST's first
    lesson, 784-1024-10, on images drawn at random; auto takes every GPU. With several devices it
    also trains on all at once and tells what that gains.
    """
    console = Console("gpu test", json=json)
    console.loading()
    import torch

    from dltool.errors import CheckFailed
    from dltool_gpu import agreement, targets, trial

    if threads:
        torch.set_num_threads(threads)
    devices = targets.every_device(device)
    plan = trial.Plan(batch_size=batch_size, epochs=epochs, seed=seed)
    places = [*(item for item in devices if item.type != "cpu"), torch.device("cpu")]
    steps = plan.steps * plan.epochs
    with console.progress(steps * len(places), "test", "step") as bar:
        outcomes = [trial.run(place, plan, lambda step: bar.advance()) for place in places]
    rows = agreement.compared(outcomes, trial.reference(plan))
    found, text = agreement.faults(rows), agreement.report(rows)
    together = None
    if len(devices) > 1 and not found:
        from dltool_gpu import together as several

        shared = trial.Plan(
            batch_size=batch_size - batch_size % len(devices), epochs=epochs, seed=seed
        )
        alone = outcomes[0] if shared == plan else trial.run(devices[0], shared)
        together = several.measure(devices, shared, alone)
        found += several.faults(together)
        text += f"\n{together.explanation}"
    elif len(devices) == 1:
        console.note("one device: the speed-up of several was not measured")
    passed = "passed" if not found else "FAILED"
    data = {
        "passed": not found,
        "faults": found,
        "devices": rows,
        "together": vars(together) if together else None,
        "batch_size": batch_size,
        "steps": steps,
    }
    if not found or not json:
        console.result(data, "\n".join([text, *found, passed]))
    if found:
        raise CheckFailed("E601", "; ".join(found), cure="dltool gpu burn looks for wrong results")


@app.command("bench")
def bench_command(
    device: DeviceOption = "auto",
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="GROUPS",
            help="Only these, separated by commas: matmul, add, copy, transfer, conv, attention, "
            "launch, all-reduce.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size", min=16, help="Edge of the matrices.", show_default="8192; CPU: 1024"
        ),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=3, help="Rounds of each operation.")] = 9,
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            metavar="FILE",
            help="Earlier results.json, or its folder; exit 6 when an operation became slower.",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", min=0.01, max=0.9, help="Loss of rate that --compare allows."),
    ] = 0.1,
    threads: ThreadsOption = 0,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Time the usual operations against the device's ceiling.

    Matrix products, copies, transfers, convolution, attention, launches. Random data, warm-up, the
    median of rounds that each wait for the device. Leaves results.json and roofline.png in the run
    folder.
    """
    from dltool_gpu.report import parse_groups

    console = Console("gpu bench", json=json)
    groups = parse_groups(only)
    console.loading()
    from dataclasses import replace

    import torch

    from dltool import files, runs
    from dltool.device import choose
    from dltool_gpu import bench, kernels, roofline

    if threads:
        torch.set_num_threads(threads)
    choice = choose(device)
    old = bench.read_results(compare) if compare else None
    if old is not None:
        bench.refuse_other_hardware(choice.device, old)
    sizes = kernels.SIZES[choice.device.type]
    sizes = replace(sizes, matmul=size or sizes.matmul)
    folder = runs.claim("gpu", "bench", out)
    console.note(f"device {choice.device} ({choice.reason})")
    results = bench.run(choice.device, groups, sizes, repeats, console)
    failure, text = None, bench.report(results)
    if old is not None:
        results["comparison"] = bench.compared(results, old, tolerance)
        text += f"\n\n{bench.comparison_report(results['comparison'])}"
        failure = bench.regression(results["comparison"])
    files.write_json_atomic(folder / bench.RESULTS, results)
    if any(case["intensity"] for case in results["cases"]):
        roofline.draw(results, folder / "roofline.png")
    if failure is None or not json:
        console.result({"folder": str(folder), **results}, text)
    console.note(f"results and picture: {folder}")
    if failure is not None:
        raise failure
    console.hint(f"dltool gpu bench --compare {folder}")


cli_burn.register(app)
cli_budget.register(app)
