"""Options and help of the `mlp-xor` topic; what they do is in train.py and its neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import asking, options, runs
from dltool.console import Console
from dltool.options import data_option, run_option, training_option
from dltool_mlp_xor.config import (
    ACTIVATIONS,
    INITS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    TASKS,
    TrainConfig,
    recipe,
)

TOPIC = "mlp-xor"

app = typer.Typer(
    help="Train small networks on points in the plane and see what they learn.",
    no_args_is_help=True,
    context_settings=options.HELP,
    epilog="Try: dltool mlp-xor train     then: dltool mlp-xor plot latest",
)


@app.callback()
def root() -> None:
    """Train small networks on points in the plane and see what they learn."""


@app.command()
@asking.trains(TrainConfig, TOPIC)
def train(
    asked: asking.Asked[TrainConfig],
    task: Annotated[
        str, data_option(f"{', '.join(TASKS)}: which points to tell apart.")
    ] = TrainConfig.task,
    points: Annotated[
        int, data_option("Training points.", min=4, show_default=options.BY_RECIPE)
    ] = TrainConfig.points,
    noise: Annotated[
        float,
        data_option("Deviation that moves every point.", min=0.0, show_default=options.BY_RECIPE),
    ] = TrainConfig.noise,
    hidden: Annotated[
        str,
        training_option(
            "Widths of the hidden layers, such as 9,5; none: a linear model.",
            show_default=options.BY_RECIPE,
        ),
    ] = TrainConfig.hidden,
    activation: Annotated[
        str, training_option(f"{', '.join(ACTIVATIONS)}.", show_default=options.BY_RECIPE)
    ] = TrainConfig.activation,
    init: Annotated[str, training_option(f"First weights: {', '.join(INITS)}.")] = TrainConfig.init,
    loss: Annotated[
        str, training_option(f"{', '.join(LOSSES)} (plain output against -1 and 1).")
    ] = TrainConfig.loss,
    optimizer: Annotated[str, training_option(f"{', '.join(OPTIMIZERS)}.")] = TrainConfig.optimizer,
    passes: Annotated[
        int,
        training_option(
            "How often an epoch goes over the points.", min=1, show_default=options.BY_RECIPE
        ),
    ] = TrainConfig.passes,
    schedule: Annotated[str, training_option(f"{', '.join(SCHEDULES)}.")] = TrainConfig.schedule,
    tolerance: Annotated[
        float,
        data_option("Task sign: how near to -1 or 1 an output must be to count."),
    ] = TrainConfig.tolerance,
    snapshots: Annotated[
        int, run_option("Moments to keep for plot --animate.", min=0, max=500)
    ] = TrainConfig.snapshots,
) -> None:
    """Train a network on points; test it once; leave a run folder with model and pictures."""
    folder, config, origins = asked.settled(recipe(asked.chosen))
    asked.console.loading()
    from dltool_mlp_xor.train import train as run_training

    run_training(config, origins, console=asked.console, out=asked.out, resume=folder)


@app.command()
def evaluate(
    run: options.RunArgument,
    data: Annotated[
        Path | None,
        typer.Option(
            help="CSV file of x,y,class [default: the run's own points].", show_default=False
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Task sign [default: the run's, 0.15].", show_default=False
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Exit 6 below this accuracy.")
    ] = None,
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Measure a trained network: accuracy with its interval and the majority baseline."""
    console = Console("mlp-xor evaluate", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_mlp_xor.evaluate import evaluate_run

    evaluate_run(
        folder,
        data=data,
        split=split,
        tolerance=tolerance,
        min_accuracy=min_accuracy,
        device=device,
        console=console,
    )


# a point such as -0.5,1 begins like an option
@app.command(context_settings={"ignore_unknown_options": True})
def predict(
    run: options.RunArgument,
    points: Annotated[
        list[str],
        typer.Argument(
            metavar="X,Y...|FILE|-", help="Points, CSV files of x,y, or - for CSV on stdin."
        ),
    ],
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Name the class of points; print CSV with probability and value from -1 to 1."""
    console = Console("mlp-xor predict", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_mlp_xor.predict import predict_points

    predict_points(folder, points, device=device, console=console)


@app.command()
def plot(
    run: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run folders, or latest; several: side by side."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the pictures [default: the first run's].", show_default=False
        ),
    ] = None,
    animate: Annotated[
        bool, typer.Option("--animate", help="Write the boundary over training as a GIF too.")
    ] = False,
    json: options.JsonOption = False,
) -> None:
    """Draw the decision boundary and what each hidden unit sees."""
    console = Console("mlp-xor plot", json=json)
    folders = [runs.locate(name, TOPIC) for name in run]
    console.loading()
    from dltool_mlp_xor.plot import plot_runs

    plot_runs(folders, out=out, animate=animate, console=console)


@app.command()
def info(run: options.RunArgument, json: options.JsonOption = False) -> None:
    """Show what a run or model folder is: network, classes, preprocessing, results."""
    console = Console("mlp-xor info", json=json)
    folder = runs.locate(run, TOPIC)
    from dltool_mlp_xor.predict import describe

    describe(folder, console)
