"""`dltool cnn models` and `dltool cnn summary`: what can be trained, and what it is made of."""

from __future__ import annotations

import typer

from dltool import options
from dltool.console import Console
from dltool_cnn import flags
from dltool_cnn.config import TrainConfig, image_shape


def register(app: typer.Typer) -> None:
    """Add the commands to the topic."""
    app.command()(models)
    app.command()(summary)


def models(find: flags.Find = "", json: options.JsonOption = False) -> None:
    """Show the models that can be trained, ours and torchvision's."""
    console = Console("cnn models", json=json)
    from dltool_cnn.summary import show_models

    show_models(find, console)


def summary(
    model: flags.ModelArgument,
    input: flags.Input = "1x28x28",
    classes: flags.Classes = 10,
    hidden: flags.Hidden = TrainConfig.hidden,
    width: flags.Width = TrainConfig.width,
    dropout: flags.Dropout = TrainConfig.dropout,
    batch_size: flags.BatchSize = TrainConfig.batch_size,
    json: options.JsonOption = False,
) -> None:
    """Show a network: layers, output shapes, parameters, multiply-adds and memory."""
    console = Console("cnn summary", json=json)
    settings = TrainConfig(model=model, hidden=hidden, width=width, dropout=dropout)
    channels, height, breadth = image_shape(input)
    from dltool_cnn.model import Spec
    from dltool_cnn.summary import show

    spec = Spec(
        name=model,
        channels=channels,
        height=height,
        width=breadth,
        num_classes=classes,
        hidden=settings.hidden_widths,
        dropout=dropout,
        base_width=width,
    )
    show(spec, batch_size, console)
