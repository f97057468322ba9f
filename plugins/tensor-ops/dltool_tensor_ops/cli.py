"""Options and help of the `tensor-ops` topic; catalog.py lists the demos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import options
from dltool.console import Console, table
from dltool.errors import ConfigError
from dltool_tensor_ops import catalog, shapes

SUMMARY = "See how tensors work: short demos, each checked against known numbers."

app = typer.Typer(
    help=SUMMARY,
    no_args_is_help=True,
    context_settings=options.HELP,
    epilog="Try: dltool tensor-ops run broadcast     then: dltool tensor-ops show broadcast",
)

NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Demos; see list.")
]


@app.callback()
def root() -> None:
    """See how tensors work: short demos, each checked against known numbers."""


@app.command("list")
def list_command(json: options.JsonOption = False) -> None:
    """List the demos."""
    data = [{"name": demo.name, "summary": demo.summary} for demo in catalog.DEMOS]
    text = table([(demo.name, demo.summary) for demo in catalog.DEMOS], ("demo", "shows"))
    Console("tensor-ops list", json=json).result({"demos": data}, text)


@app.command()
def run(
    names: NamesArgument = None,
    every: Annotated[bool, typer.Option("--all", help="Run every demo.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write pictures there, where a demo has one."),
    ] = None,
    device: options.DeviceOption = "auto",
    seed: options.SeedOption = 0,
    json: options.JsonOption = False,
) -> None:
    """Run demos and read what they find."""
    if bool(names) == every:
        message = "--all and names contradict each other" if names else "no demo is named"
        raise ConfigError(
            "E205" if names else "E201",
            message,
            cure="give names of dltool tensor-ops list, or --all",
        )
    console = Console("tensor-ops run", json=json)
    demos = catalog.choose(names or [])
    console.loading()
    from dltool_tensor_ops.run import run_demos

    run_demos(demos, device=device, seed=seed, plot=plot, console=console)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A demo; see list.")],
    json: options.JsonOption = False,
) -> None:
    """Show the source of a demo: the code that runs."""
    (demo,) = catalog.choose([name])
    console = Console("tensor-ops show", json=json)
    console.loading()
    from dltool_tensor_ops.run import show_demo

    show_demo(demo, console)


@app.command()
def check(
    names: NamesArgument = None,
    device: options.DeviceOption = "auto",
    seed: options.SeedOption = 0,
    json: options.JsonOption = False,
) -> None:
    """Check demos, or all of them, against known values; exit 6 when one fails."""
    console = Console("tensor-ops check", json=json)
    demos = catalog.choose(names or [])
    console.loading()
    from dltool_tensor_ops.run import check_demos

    check_demos(demos, device=device, seed=seed, console=console)


@app.command()
def broadcast(
    sizes: Annotated[
        list[str], typer.Argument(metavar="SHAPE SHAPE...", help="Such as 3x1x5 or '(3, 1, 5)'.")
    ],
    json: options.JsonOption = False,
) -> None:
    """Explain how shapes broadcast, or on which axis they fail."""
    if len(sizes) < 2:
        raise ConfigError(
            "E201",
            "broadcasting needs two shapes or more",
            cure="dltool tensor-ops broadcast 3x1 4",
        )
    aligned = shapes.broadcast([shapes.parse(text, "SHAPE") for text in sizes])
    Console("tensor-ops broadcast", json=json).result(aligned.as_dict(), "\n".join(aligned.lines()))


@app.command()
def shape(
    size: Annotated[str, typer.Option("--in", metavar="SIZE", help="Such as 8x8 or 224.")],
    kernel: Annotated[str, typer.Option(metavar="SIZE", help="Such as 3 or 5x3.")],
    stride: Annotated[
        str | None, typer.Option(help="Step [default: 1; the kernel for --pool].")
    ] = None,
    padding: Annotated[str, typer.Option(help="Zeros added on each side.")] = "0",
    dilation: Annotated[str, typer.Option(help="Distance of kernel entries.")] = "1",
    same: Annotated[
        bool, typer.Option("--same", help="Pad so that the output has in / stride numbers.")
    ] = False,
    pool: Annotated[
        bool, typer.Option("--pool", help="Pooling: the stride is the kernel.")
    ] = False,
    layers: Annotated[int, typer.Option(min=1, max=10_000, help="So many layers alike.")] = 1,
    json: options.JsonOption = False,
) -> None:
    """Work out the output size of a convolution or pooling."""
    if same and padding != "0":
        raise ConfigError("E205", "--same and --padding contradict each other")
    layer = shapes.Layer(
        size=shapes.parse(size, "--in", least=1),
        kernel=shapes.parse(kernel, "--kernel", least=1),
        stride=shapes.parse(stride or (kernel if pool else "1"), "--stride", least=1),
        padding=shapes.parse(padding, "--padding"),
        dilation=shapes.parse(dilation, "--dilation", least=1),
        same=same,
        pool=pool,
        layers=layers,
    )
    data, lines = shapes.explained(layer)
    Console("tensor-ops shape", json=json).result(data, "\n".join(lines))
