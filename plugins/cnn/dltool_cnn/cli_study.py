"""Options and help of `dltool cnn data` and `compare`: describe.py and compare.py do the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import options
from dltool.console import Console
from dltool.options import data_option
from dltool_cnn.config import AUGMENTATIONS, TrainConfig

TOPIC = "cnn"
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, **options.HELP}


def data(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="digits, mnist, fashion-mnist, cifar10, an image folder or a zip."
        ),
    ],
    data_root: options.DataRootOption = None,
    augment: Annotated[
        str | None,
        data_option(
            f"What to show: comma-separated of {', '.join(AUGMENTATIONS)}; or none "
            "[default: by recipe].",
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[
        int, data_option("Side to bring the shown images to; 0: as they are, 64 at most.", min=0)
    ] = TrainConfig.image_size,
    grid: Annotated[
        Path | None,
        data_option(
            "Picture of augmented samples, .png [default: in runs/cnn].", show_default=False
        ),
    ] = None,
    draws: Annotated[bool, typer.Option("--draw/--no-draw", help="Draw that picture.")] = True,
    count: Annotated[int, typer.Option(min=1, max=16, help="Images to show.")] = 8,
    seed: options.SeedOption = TrainConfig.seed,
    json: options.JsonOption = False,
) -> None:
    """Look at a data set: counts, balance, sizes, broken files, copies, augmented samples."""
    console = Console("cnn data", json=json)
    console.loading()
    from dltool_cnn.describe import describe_data

    describe_data(
        path,
        data_root=data_root,
        augment=augment,
        image_size=image_size,
        grid=grid,
        draws=draws,
        count=count,
        seed=seed,
        console=console,
    )


def compare(
    ctx: typer.Context,
    models: Annotated[
        str, typer.Option(help="Models to compare, comma-separated.", show_default=False)
    ] = "",
    data: Annotated[
        str | None,
        data_option("Named set, image folder or zip [default: digits].", show_default=False),
    ] = None,
    data_root: options.DataRootOption = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=A,B",
            help="A setting of train and its values; may be repeated, and combined with --models.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds for every combination.")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the runs; one that exists goes on [default: one for this call].",
            show_default=False,
        ),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Train models and settings with several seeds; compare accuracy, size and time.

    Further options are those of train. The same call again goes on with what is missing.
    """
    console = Console("cnn compare", json=json)
    from dltool_cnn.compare import compare as run_comparison

    given = [*ctx.args]
    if data is not None:
        given += [f"--data={data}"]
    if data_root is not None:
        given += [f"--data-root={data_root}"]
    run_comparison(models, sets or [], given, seeds=seeds, jobs=jobs, out=out, console=console)


def register(app: typer.Typer) -> None:
    """Add `data` and `compare` to the topic's commands."""
    app.command()(data)
    app.command(context_settings=PASS_ON)(compare)
