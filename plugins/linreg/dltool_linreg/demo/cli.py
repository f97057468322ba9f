"""Options and help of `dltool linreg demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import options
from dltool.console import Console

app = typer.Typer(
    help="Small experiments on learning itself, each with a picture.",
    no_args_is_help=True,
    context_settings=options.HELP,
    epilog="Try: dltool linreg demo descent --lr 0.01,0.1,0.5",
)

PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", help="PNG to write [default: runs/linreg/demo/<name>.png]."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random stream.")]
StepsOption = Annotated[int, typer.Option("--steps", min=1, max=100_000, help="Steps to take.")]


def _path(plot: Path | None, name: str) -> Path:
    return plot or Path("runs") / "linreg" / "demo" / f"{name}.png"


@app.callback()
def root() -> None:
    """Small experiments on learning itself, each with a picture."""


@app.command()
def sweep(
    plot: PlotOption = None,
    json: options.JsonOption = False,
) -> None:
    """Try one weight after another on y = 2x: the loss is a parabola with its foot at 2."""
    console = Console("linreg demo sweep", json=json)
    console.loading()
    from dltool_linreg.demo.descent import run_sweep

    run_sweep(_path(plot, "sweep"), console)


@app.command()
def descent(
    function: Annotated[
        str, typer.Option(help="wave: x·cos(πx); bowl: (x² + 10y²)/2, a long valley.")
    ] = "wave",
    x0: Annotated[float, typer.Option(help="Where to start.")] = 2.0,
    lr: Annotated[
        str, typer.Option("--lr", help="Learning rates, comma-separated [default: by function].")
    ] = "",
    momentum: Annotated[
        float, typer.Option(min=0.0, max=0.999, help="Share of the last step.")
    ] = 0.0,
    steps: StepsOption = 30,
    plot: PlotOption = None,
    json: options.JsonOption = False,
) -> None:
    """Follow gradient descent at several rates: converges, oscillates or diverges."""
    console = Console("linreg demo descent", json=json)
    console.loading()
    from dltool_linreg.demo.descent import run_descent

    run_descent(function, x0, lr, momentum, steps, _path(plot, "descent"), console)


@app.command()
def batches(
    sizes: Annotated[str, typer.Option(help="Rows a step, comma-separated; all: every row.")] = (
        "1,32,all"
    ),
    lr: Annotated[float, typer.Option("--lr", min=0.0, help="Learning rate.")] = 0.05,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="Passes over the rows.")] = 10,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    json: options.JsonOption = False,
) -> None:
    """Compare batch sizes: many noisy steps or few exact ones, at the same rate."""
    console = Console("linreg demo batches", json=json)
    console.loading()
    from dltool_linreg.demo.descent import run_batches

    run_batches(sizes, lr, epochs, seed, _path(plot, "batches"), console)


@app.command()
def optimizers(
    names: Annotated[
        str, typer.Option(help="Comma-separated names; all by default.", show_default=False)
    ] = "",
    steps: StepsOption = 100,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    json: options.JsonOption = False,
) -> None:
    """Run torch's optimizers side by side on one ill-conditioned least-squares problem."""
    console = Console("linreg demo optimizers", json=json)
    console.loading()
    from dltool_linreg.demo.optimizers import run_optimizers

    run_optimizers(names, steps, seed, _path(plot, "optimizers"), console)


@app.command()
def schedules(
    names: Annotated[
        str, typer.Option(help="Comma-separated names; all by default.", show_default=False)
    ] = "",
    epochs: Annotated[int, typer.Option(min=2, max=10_000, help="Epochs to draw.")] = 100,
    plot: PlotOption = None,
    json: options.JsonOption = False,
) -> None:
    """Draw how every scheduler moves the learning rate."""
    console = Console("linreg demo schedules", json=json)
    console.loading()
    from dltool_linreg.demo.schedules import run_schedules

    run_schedules(names, epochs, _path(plot, "schedules"), console)


@app.command()
def polynomial(
    degrees: Annotated[str, typer.Option(help="Degrees to fit: a range.")] = "1-12",
    samples: Annotated[int, typer.Option(min=3, help="Training points.")] = 15,
    noise: Annotated[float, typer.Option(min=0.0, help="Standard deviation of the noise.")] = 1.0,
    ridge: Annotated[float, typer.Option(min=0.0, help="Penalty on squared weights.")] = 0.0,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    json: options.JsonOption = False,
) -> None:
    """Fit y = (x + 1)² with polynomials: too stiff, right, and too free."""
    console = Console("linreg demo polynomial", json=json)
    console.loading()
    from dltool_linreg.demo.capacity import run_polynomial

    run_polynomial(degrees, samples, noise, ridge, seed, _path(plot, "polynomial"), console)


@app.command("weight-decay")
def weight_decay(
    strengths: Annotated[
        str, typer.Option("--lambda", help="Penalties λ in ½ mean error² + λ/2 ‖w‖².")
    ] = "0,0.3,3",
    epochs: Annotated[int, typer.Option(min=1, max=10_000, help="Passes over the rows.")] = 100,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    json: options.JsonOption = False,
) -> None:
    """Fit 200 weights to 20 rows: weight decay is what lets them generalise."""
    console = Console("linreg demo weight-decay", json=json)
    console.loading()
    from dltool_linreg.demo.capacity import run_weight_decay

    run_weight_decay(strengths, epochs, seed, _path(plot, "weight-decay"), console)


@app.command()
def dropout(
    shares: Annotated[str, typer.Option("--dropout", help="Dropout shares.")] = "0,0.2,0.5",
    steps: StepsOption = 1500,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    json: options.JsonOption = False,
) -> None:
    """Let a large network over-fit a noisy sine, without dropout and with it."""
    console = Console("linreg demo dropout", json=json)
    console.loading()
    from dltool_linreg.demo.networks import run_dropout

    run_dropout(shares, steps, seed, _path(plot, "dropout"), console)


@app.command()
def initialisation(
    activation: Annotated[str, typer.Option(help="tanh, relu or sigmoid.")] = "relu",
    depth: Annotated[int, typer.Option(min=2, max=500, help="Layers.")] = 30,
    width: Annotated[int, typer.Option(min=2, max=2048, help="Units a layer.")] = 256,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    json: options.JsonOption = False,
) -> None:
    """Send a signal through many layers: it vanishes, explodes or lives, by its start."""
    console = Console("linreg demo initialisation", json=json)
    console.loading()
    from dltool_linreg.demo.networks import run_initialisation

    run_initialisation(activation, depth, width, seed, _path(plot, "initialisation"), console)
