"""Options and help of `dltool cnn export` and `bench`; the work is in export.py and bench.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import options, runs
from dltool.console import Console
from dltool.options import data_option

TOPIC = "cnn"
# logits of single precision, computed in another order
TOLERANCE = 1e-4


def export(
    run: options.RunArgument,
    format: Annotated[
        str | None,
        typer.Option(
            help="onnx, pt2 (torch.export) or safetensors [default: by --out, else onnx].",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write [default: export/model.onnx, .pt2 or .safetensors in the run].",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0.0, help="Exit 6 when the file's answers differ by more than this."),
    ] = TOLERANCE,
    data: Annotated[
        str | None,
        data_option("Images to compare on [default: the run's test split].", show_default=False),
    ] = None,
    data_root: options.DataRootOption = None,
    json: options.JsonOption = False,
) -> None:
    """Write the model for other programs, preprocessing inside, and check the file's answers."""
    console = Console("cnn export", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_cnn.export import chosen_format, export_run

    export_run(
        folder,
        out,
        chosen_format(format, out),
        tolerance=tolerance,
        data=data,
        data_root=data_root,
        console=console,
    )


def bench(
    run: options.RunArgument,
    batch_sizes: Annotated[
        str, typer.Option(help="Images a batch, comma-separated.")
    ] = "1,8,64,256",
    repeats: Annotated[int, typer.Option(min=2, help="Rounds of measurements.")] = 15,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "fp32",
    threads: options.ThreadsOption = 0,
    json: options.JsonOption = False,
) -> None:
    """Measure a model's latency and images a second by batch size."""
    console = Console("cnn bench", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_cnn import bench as benchmark

    benchmark.bench_run(
        folder,
        benchmark.batch_sizes(batch_sizes),
        repeats=repeats,
        device=device,
        precision=precision,
        threads=threads,
        console=console,
    )


def register(app: typer.Typer) -> None:
    """Add `export` and `bench` to the topic's commands."""
    app.command()(export)
    app.command()(bench)
