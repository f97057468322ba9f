"""Options and help of `dltool cnn data`; what it does is in survey.py and describe.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import options
from dltool.console import Console
from dltool.options import data_option
from dltool_cnn.config import AUGMENTATIONS, TrainConfig

TOPIC = "cnn"


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


def register(app: typer.Typer) -> None:
    """Add `data` to the topic's commands."""
    app.command()(data)
