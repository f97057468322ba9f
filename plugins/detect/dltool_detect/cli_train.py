"""Options and help of `dltool detect train`; what it does is in train.py."""

from __future__ import annotations

from typing import Annotated

import typer

from dltool import asking
from dltool.options import data_option, training_option
from dltool_detect.config import (
    AUGMENTATIONS,
    FORMATS,
    MODELS,
    SCHEDULES,
    TrainConfig,
    recipe,
)

TOPIC = "detect"

ImageSizeOption = Annotated[
    int,
    data_option(
        "Side of the square that pictures are brought to.",
        min=0,
        show_default="320, or what the model wants",
    ),
]
BackboneOption = Annotated[
    str,
    training_option(
        "A run of cnn (resnet18) whose network looks at the pictures.",
        metavar="RUN",
        show_default=False,
    ),
]


@asking.trains(TrainConfig, TOPIC)
def train(
    asked: asking.Asked[TrainConfig],
    data: Annotated[
        str,
        data_option("A folder or zip with boxes; or shapes: made-up pictures."),
    ] = TrainConfig.data,
    format: Annotated[str, data_option(f"{', '.join(FORMATS)}.")] = TrainConfig.format,
    classes: Annotated[
        str,
        data_option(
            "Their names in order, comma-separated [default: the data's].", show_default=False
        ),
    ] = TrainConfig.classes,
    image_size: ImageSizeOption = TrainConfig.image_size,
    augment: Annotated[
        str, data_option(f"Comma-separated: {', '.join(AUGMENTATIONS)}; or none.")
    ] = TrainConfig.augment,
    mosaic: Annotated[
        float, data_option("Share of mosaics; none in the last 15 % of the epochs.")
    ] = TrainConfig.mosaic,
    val_split: Annotated[
        float, data_option("Share that chooses the best epoch where the data has no such part.")
    ] = TrainConfig.val_split,
    model: Annotated[str, training_option(f"{', '.join(MODELS)}.")] = TrainConfig.model,
    weights: Annotated[
        str, training_option("Begin from: none, coco (torchvision's models), a file or a run.")
    ] = TrainConfig.weights,
    backbone: BackboneOption = TrainConfig.backbone,
    schedule: Annotated[str, training_option(f"{', '.join(SCHEDULES)}.")] = TrainConfig.schedule,
) -> None:
    """Train a detector on your own boxes; test it once; leave a run folder with the model."""
    chosen = asked.chosen
    defaults = recipe(chosen.get("data", data), chosen.get("model", model))
    folder, config, origins = asked.settled(defaults)
    asked.console.loading()
    from dltool_detect.train import train as run_training

    run_training(config, origins, console=asked.console, out=asked.out, resume=folder)


def register(app: typer.Typer) -> None:
    """Add `train` to the topic's commands."""
    app.command()(train)
