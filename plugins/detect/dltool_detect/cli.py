"""Options and help of the `detect` topic; what they do is in predict.py, evaluate.py and others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import options
from dltool.console import Console
from dltool.options import data_option
from dltool_detect import cli_teach, cli_train
from dltool_detect.group import InputGroup

TOPIC = "detect"
ABOUT = "Find objects in images: dltool detect photo.jpg. Train a detector on your own boxes."

app = typer.Typer(
    cls=InputGroup,
    help=ABOUT,
    no_args_is_help=True,
    context_settings=options.HELP,
    subcommand_metavar="IMAGE|FOLDER|GLOB|VIDEO|-... | COMMAND [ARGS]...",
    epilog="Try: dltool detect photo.jpg     then: dltool detect train --data FOLDER",
)

ModelOption = Annotated[
    str,
    typer.Option(
        help="auto, shipped, a run, latest, or a detector of torchvision; see dltool detect info."
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(help="File with torchvision's weights for --model [default: fetched once]."),
]
FormatOption = Annotated[str, data_option("auto, voc, coco or yolo.", "--format")]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A run folder, latest, shipped, or a detector of torchvision."
    ),
]


@app.callback()
def root() -> None:
    """Find objects in images: dltool detect photo.jpg. Train a detector on your own boxes."""


@app.command()
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|FOLDER|GLOB|VIDEO|-...",
            help="Pictures, folders of them, patterns, videos, or - for stdin.",
        ),
    ],
    model: ModelOption = "auto",
    weights: WeightsOption = None,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Lowest score of a box that is shown.")
    ] = 0.5,
    max_boxes: Annotated[int, typer.Option(min=1, help="Most boxes on a picture.")] = 100,
    classes: Annotated[
        str, typer.Option(help="Only these classes, comma-separated.", show_default="all")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the annotated pictures, or one .jpg, .png or .mp4 "
            "[default: beside the input, as NAME.boxes.jpg].",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Write the annotated pictures.")
    ] = True,
    crop: Annotated[
        bool, typer.Option("--crop", help="Write what each box holds, by class, in NAME.crops.")
    ] = False,
    every: Annotated[int, typer.Option(min=1, help="Of a video, every such frame.")] = 1,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures of one size that the model sees at once.")
    ] = 4,
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = 0,
    json: options.JsonOption = False,
) -> None:
    """Find objects on pictures; the same as dltool detect IMAGE."""
    console = Console(TOPIC, json=json)
    console.loading()
    from dltool_detect.predict import Wishes, detect_inputs

    wishes = Wishes(min_score, max_boxes, (), save, crop, every, batch_size)
    detect_inputs(
        inputs,
        model=model,
        weights=weights,
        classes=classes,
        out=out,
        wishes=wishes,
        device=device,
        threads=threads,
        console=console,
    )


cli_train.register(app)
cli_teach.register(app)
