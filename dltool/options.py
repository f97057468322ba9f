"""The options that topics share, declared once: same name, type and help everywhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from dltool.errors import ConfigError

HELP = {"help_option_names": ["-h", "--help"]}

DATA_PANEL = "Data"
TRAINING_PANEL = "Training"
RUN_PANEL = "Run"

BY_RECIPE = "by recipe"


def data_option(text: str, *names: str, **settings: Any) -> Any:
    """Return a `typer.Option` of the data panel."""
    return typer.Option(*names, help=text, rich_help_panel=DATA_PANEL, **settings)


def training_option(text: str, *names: str, **settings: Any) -> Any:
    """Return a `typer.Option` of the training panel."""
    return typer.Option(*names, help=text, rich_help_panel=TRAINING_PANEL, **settings)


def run_option(text: str, *names: str, **settings: Any) -> Any:
    """Return a `typer.Option` of the run panel."""
    return typer.Option(*names, help=text, rich_help_panel=RUN_PANEL, **settings)


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")
]
EventsOption = Annotated[
    bool, typer.Option("--events", help="Write JSON lines on stdout while working.")
]
DeviceOption = Annotated[str, run_option("auto, cpu, cuda, cuda:N or mps.", "--device")]
PrecisionOption = Annotated[str, run_option("fp32, bf16 or fp16 (CUDA only).", "--precision")]
SeedOption = Annotated[int, run_option("Seed of every random stream.", "--seed", min=0)]
DeterministicOption = Annotated[
    bool,
    run_option(
        "Use only bitwise repeatable kernels on a GPU.", "--deterministic/--no-deterministic"
    ),
]
ThreadsOption = Annotated[
    int, run_option("CPU threads; 0 leaves torch's choice.", "--threads", min=0)
]
SaveEveryOption = Annotated[
    str,
    run_option(
        "Interval between checkpoints: 10m, 30s or 500steps.", "--save-every", metavar="INTERVAL"
    ),
]
KeepOption = Annotated[
    int, run_option("Checkpoints to keep beside the best, at least 2.", "--keep", min=2)
]
MaxTimeOption = Annotated[
    str,
    run_option(
        "Stop and save after 2h, 90m or 30s; exit 0.",
        "--max-time",
        metavar="TIME",
        show_default="no limit",
    ),
]
OnNanOption = Annotated[
    str,
    run_option(
        "NaN or infinity: stop (exit 7), skip the step, or rollback to the last checkpoint with "
        "half the rate.",
        "--on-nan",
    ),
]
GuardsOption = Annotated[
    str,
    run_option(
        "preflight; full: slow checks too; strict: stop at warnings; only: check and stop; off.",
        "--guards",
    ),
]
WithoutOption = Annotated[
    list[str],
    run_option(
        "Leave a guard out, with your reason: 'G-P09: batches are graphs'. Repeatable.",
        "--without",
        metavar="CODE[: REASON]",
        show_default=False,
    ),
]
NprocOption = Annotated[
    int,
    run_option(
        "Train in so many processes on this machine, a CUDA device each; see docs/scaling.md.",
        "--nproc",
        min=1,
    ),
]
TrackOption = Annotated[
    str,
    run_option(
        "Write the metrics for a board too: tensorboard or mlflow; no server is needed.",
        "--track",
        metavar="BOARD",
        show_default=False,
    ),
]
AllowChangedOption = Annotated[
    bool,
    run_option(
        "Let --resume take other settings; the run is then no longer exact.", "--allow-changed"
    ),
]
PatienceOption = Annotated[
    int, training_option("Stop after so many epochs without a better one; 0: off.", min=0)
]
EmaOption = Annotated[
    float,
    training_option(
        "Decay of averaged weights, which are then evaluated and kept; 0: off.", "--ema"
    ),
]
OutOption = Annotated[
    Path | None,
    run_option(
        "Run folder to create [default: runs/<topic>/<date>-<name>].", "--out", show_default=False
    ),
]
ResumeOption = Annotated[
    str | None, run_option("Go on with a stopped run.", "--resume", metavar="RUN|latest")
]
ConfigOption = Annotated[
    Path | None,
    run_option("TOML file that fills what the flags leave.", "--config", metavar="FILE"),
]
DryRunOption = Annotated[
    bool,
    run_option(
        "Open the data, run the guards and the first steps on the device, forecast time, memory "
        "and disk; leave no run folder. Exit 0: the training would begin.",
        "--dry-run",
    ),
]
EpochsOption = Annotated[
    int,
    training_option("Passes over the training data.", "--epochs", min=1, show_default=BY_RECIPE),
]
BatchSizeOption = Annotated[
    int, training_option("Samples a batch.", "--batch-size", min=1, show_default=BY_RECIPE)
]
LrOption = Annotated[float, training_option("Peak learning rate.", "--lr", show_default=BY_RECIPE)]
WeightDecayOption = Annotated[
    float, training_option("Decay of weights; biases and norms have none.", "--weight-decay")
]
AccumulateOption = Annotated[
    int, training_option("Batches whose gradients make one step.", "--accumulate", min=1)
]
ClipOption = Annotated[float, training_option("Largest gradient norm; 0: off.", "--clip", min=0.0)]
DataRootOption = Annotated[
    Path | None,
    data_option(
        "Folder that holds named data sets already [default: the download cache].",
        "--data-root",
        show_default=False,
    ),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run folder, a model folder, or latest.")
]


def given(ctx: typer.Context, config_class: type[Any]) -> dict[str, Any]:
    """Return the options that the user gave and that are fields of the config, paths as text."""
    names = {field.name for field in dataclasses.fields(config_class)}
    values = {}
    for name, value in ctx.params.items():
        source = ctx.get_parameter_source(name)
        if name in names and source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
            if isinstance(value, list):
                value = tuple(value)
            values[name] = str(value) if isinstance(value, Path) else value
    return values


def refuse_beside_resume(**values: object) -> None:
    """Refuse options that make no sense beside `--resume`.

    Raises:
        ConfigError: naming the first that was given.
    """
    for name, value in values.items():
        if value is not None:
            raise ConfigError(
                "E205",
                f"--{name} cannot be given with --resume: the run keeps its own",
                cure=f"leave --{name} out",
            )
