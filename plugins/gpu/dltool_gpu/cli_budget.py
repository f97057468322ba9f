"""Options and help of `dltool gpu budget`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dltool.console import Console
from dltool.errors import ConfigError
from dltool.options import DeviceOption, JsonOption, PrecisionOption


class Optimizer(StrEnum):
    """Optimizers by what they keep for each parameter: nothing, one number, two numbers."""

    sgd = "sgd"
    momentum = "momentum"
    adamw = "adamw"


def register(app: typer.Typer) -> None:
    """Add the command to the topic."""
    app.command("budget")(command)


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model of torchvision, MODULE:FUNCTION that returns one, or a run, model folder "
            "or .safetensors file.",
        ),
    ],
    batch: Annotated[
        int | None,
        typer.Option("--batch-size", "--batch", min=1, help="Samples a batch.", show_default="32"),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="SHAPE",
            help="One sample, such as 3x224x224, or 128:int for 128 numbers of tokens; repeat it "
            "for a model with several inputs.",
            show_default="torchvision's usual size",
        ),
    ] = None,
    precision: PrecisionOption = "fp32",
    optimizer: Annotated[Optimizer, typer.Option("--optimizer", help="The optimizer.")] = (
        Optimizer.adamw
    ),
    device: DeviceOption = "auto",
    device_memory: Annotated[
        str | None,
        typer.Option(
            "--device-memory",
            metavar="SIZE",
            help="Memory to fit into, e.g. 24GiB.",
            show_default="what is free on the GPU",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Predict the memory of a training step and the largest batch.

    Also what AMP, checkpointing and accumulation would save. The step runs on tensors without
    content, so any model of any size is answered in seconds and without a GPU. On a GPU it also
    runs really, and the measured peak stands beside it.
    """
    from dltool_gpu.report import parse_size

    console = Console("gpu budget", json=json)
    given = parse_size(device_memory, "--device-memory") if device_memory else None
    console.loading()
    from dltool.device import choose
    from dltool_gpu import budget, budget_report, models

    place = choose(device).device
    budget.check(precision)
    source = models.find(model, shape or [])
    plan = budget.Plan(batch or 32, precision, optimizer.value)
    if source.build is None:
        for name, value in (("--batch-size", batch), ("--device-memory", given)):
            if value is not None:
                raise ConfigError(
                    "E205",
                    f"{name} says nothing of stored weights: how they compute is not with them",
                    cure="give the model as torchvision's name or MODULE:FUNCTION",
                )
        answer = budget.of_weights(source, plan)
    else:
        answer = budget.answer(source, plan, place, given, console)
    console.result(answer, budget_report.report(answer))
