"""Options and help of `dltool cnn conv`, `learn-kernel` and `edges`; kernels.py does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import options
from dltool.console import Console


def conv(
    image: Annotated[
        str, typer.Option("--matrix", help="Rows with ; between them.")
    ] = "0 1 2; 3 4 5; 6 7 8",
    kernel: Annotated[str, typer.Option(help="Rows with ; between them.")] = "0 1; 2 3",
    padding: Annotated[int, typer.Option(min=0, max=100, help="Zeros on every side.")] = 0,
    stride: Annotated[int, typer.Option(min=1, help="Step between windows.")] = 1,
    json: options.JsonOption = False,
) -> None:
    """Convolve a matrix by loops, as a matrix product and by conv2d: all three agree."""
    console = Console("cnn conv", json=json)
    console.loading()
    from dltool_cnn import kernels

    kernels.convolve(
        kernels.matrix("--matrix", image),
        kernels.matrix("--kernel", kernel),
        padding,
        stride,
        console,
    )


def learn_kernel(
    iterations: Annotated[int, typer.Option("--iters", min=1, help="Steps of descent.")] = 10,
    rate: Annotated[float, typer.Option("--lr", min=0.0, help="Learning rate.")] = 0.03,
    seed: options.SeedOption = 0,
    json: options.JsonOption = False,
) -> None:
    """Learn an edge kernel from one image and its edges."""
    console = Console("cnn learn-kernel", json=json)
    console.loading()
    from dltool_cnn import kernels

    kernels.learn_kernel(iterations, rate, seed, console)


def edges(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture.")],
    kernel: Annotated[
        str,
        typer.Option(help="sobel, sobel-x, sobel-y, edge, laplace, blur or sharpen."),
    ] = "sobel",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Picture to write, .png [default: NAME.KERNEL.png beside the picture].",
            show_default=False,
        ),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Draw what a fixed kernel makes of a picture."""
    console = Console("cnn edges", json=json)
    console.loading()
    from dltool_cnn import kernels

    kernels.draw_edges(image, kernel, out, console)


def register(app: typer.Typer) -> None:
    """Add the commands to the topic."""
    app.command()(conv)
    app.command("learn-kernel")(learn_kernel)
    app.command()(edges)
