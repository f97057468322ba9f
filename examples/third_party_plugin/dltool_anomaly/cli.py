"""Options and help of the `anomaly` topic, and what a run can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from dltool import asking, options, ranges, runs
from dltool.console import Console
from dltool.options import data_option, training_option
from dltool.training_config import TrainingConfig

TOPIC = "anomaly"


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Everything that shapes a training run."""

    data: str = "digits"
    odd_class: int = 4
    false_alarms: float = 0.05
    hidden: int = 64
    code: int = 12
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.005
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.inside("--false-alarms", self.false_alarms, 0.0, 0.5, open_low=True)


app = typer.Typer(
    help="Find the odd rows of a table with an autoencoder.",
    no_args_is_help=True,
    add_completion=False,
    context_settings=options.HELP,
    epilog="Try: dltool anomaly train     then: dltool anomaly predict latest TABLE.csv",
)


@app.callback()
def root() -> None:
    """Find the odd rows of a table with an autoencoder."""


@app.command()
@asking.trains(TrainConfig, TOPIC, leave_out=("guards",))
def train(
    asked: asking.Asked[TrainConfig],
    data: Annotated[
        str, data_option("digits, or a CSV file: names, then rows of numbers.")
    ] = TrainConfig.data,
    odd_class: Annotated[
        int, data_option("The digit that counts as odd (with digits).", min=0, max=9)
    ] = TrainConfig.odd_class,
    false_alarms: Annotated[
        float, data_option("Share of usual rows that may be called odd.")
    ] = TrainConfig.false_alarms,
    hidden: Annotated[
        int, training_option("Width of the hidden layers.", min=1)
    ] = TrainConfig.hidden,
    code: Annotated[
        int, training_option("Numbers that a row is squeezed into.", min=1)
    ] = TrainConfig.code,
) -> None:
    """Learn what is usual, set the threshold, test it where odd rows are known."""
    folder, config, origins = asked.settled()
    asked.console.loading()
    from dltool_anomaly.detect import train as run_training

    run_training(config, origins, console=asked.console, out=asked.out, resume=folder)


@app.command()
def predict(
    run: options.RunArgument,
    table: Annotated[str, typer.Argument(metavar="FILE", help="A CSV file like the data's.")],
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Score each row of a table and name the odd ones."""
    console = Console("anomaly predict", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_anomaly.detect import score_table

    score_table(folder, table, device=device, console=console)


@app.command()
def info(run: options.RunArgument, json: options.JsonOption = False) -> None:
    """Show what a model was trained on, its threshold and its test."""
    console = Console("anomaly info", json=json)
    folder = runs.locate(run, TOPIC)
    from dltool_anomaly.detect import describe

    describe(folder, console)
