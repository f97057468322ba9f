"""Options and help of `dltool detect train`; what it does is in train.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import options, resuming, runs
from dltool.console import Console
from dltool.options import data_option, run_option, training_option
from dltool_detect.config import (
    AUGMENTATIONS,
    FORMATS,
    GUARDS,
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


def train(
    ctx: typer.Context,
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
    epochs: options.EpochsOption = TrainConfig.epochs,
    batch_size: options.BatchSizeOption = TrainConfig.batch_size,
    learning_rate: options.LrOption = TrainConfig.learning_rate,
    weight_decay: options.WeightDecayOption = TrainConfig.weight_decay,
    schedule: Annotated[str, training_option(f"{', '.join(SCHEDULES)}.")] = TrainConfig.schedule,
    accumulate: options.AccumulateOption = TrainConfig.accumulate,
    clip: options.ClipOption = TrainConfig.clip,
    ema: options.EmaOption = TrainConfig.ema,
    patience: options.PatienceOption = TrainConfig.patience,
    device: options.DeviceOption = TrainConfig.device,
    precision: options.PrecisionOption = TrainConfig.precision,
    seed: options.SeedOption = TrainConfig.seed,
    deterministic: options.DeterministicOption = TrainConfig.deterministic,
    threads: options.ThreadsOption = TrainConfig.threads,
    save_every: options.SaveEveryOption = TrainConfig.save_every,
    keep: options.KeepOption = TrainConfig.keep,
    max_time: options.MaxTimeOption = TrainConfig.max_time,
    on_nan: options.OnNanOption = TrainConfig.on_nan,
    guards: Annotated[
        str, run_option(f"{', '.join(GUARDS)}: checks before training.")
    ] = TrainConfig.guards,
    out: options.OutOption = None,
    resume: options.ResumeOption = None,
    allow_changed: options.AllowChangedOption = False,
    config: options.ConfigOption = None,
    json: options.JsonOption = False,
    events: options.EventsOption = False,
) -> None:
    """Train a detector on your own boxes; test it once; leave a run folder with the model."""
    console = Console("detect train", json=json, events=events)
    flags = options.given(ctx, TrainConfig)
    if resume is not None:
        options.refuse_beside_resume(out=out, config=config)
        folder, settings, origins = resuming.resumed(
            resume, TOPIC, TrainConfig, flags, allow_changed=allow_changed
        )
    else:
        folder = None
        settings, origins = _settled(flags, config)
    console.loading()
    from dltool_detect.train import train as run_training

    run_training(settings, origins, console=console, out=out, resume=folder)


def _settled(flags: dict[str, Any], config: Path | None) -> tuple[TrainConfig, dict[str, str]]:
    """Lay flags over the file, over what suits data and model, over the defaults."""
    file = runs.read_config_file(config, TrainConfig) if config else {}
    chosen = {"data": TrainConfig.data, "model": TrainConfig.model, **file, **flags}
    return runs.settle(
        TrainConfig,
        flags=flags,
        file=file,
        file_name=str(config),
        recipe=recipe(chosen["data"], chosen["model"]),
    )


def register(app: typer.Typer) -> None:
    """Add `train` to the topic's commands."""
    app.command()(train)
