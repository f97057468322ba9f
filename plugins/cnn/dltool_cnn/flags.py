"""The options of `cnn train`, declared once for the commands that share them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool.options import BY_RECIPE, data_option, training_option
from dltool_cnn.config import (
    AUGMENTATIONS,
    LOADERS,
    LORA_TARGETS,
    MODELS,
    OPTIMIZERS,
    RECIPES,
    SCHEDULES,
)

TRANSFER_PANEL = "Transfer learning"


def _transfer(text: str, *names: str, **settings: object) -> object:
    return typer.Option(*names, help=text, rich_help_panel=TRANSFER_PANEL, **settings)  # type: ignore[arg-type]  # passed through to typer


Data = Annotated[
    str,
    data_option(
        "digits, mnist, fashion-mnist, cifar10, an image folder with one subfolder a class, "
        "or a zip of one."
    ),
]
ImageSize = Annotated[
    int,
    data_option(
        "Side to bring images to; 0: as they are, 64 at most, or what torchvision's model takes.",
        min=0,
    ),
]
Augment = Annotated[
    str,
    data_option(f"Comma-separated: {', '.join(AUGMENTATIONS)}; or none.", show_default=BY_RECIPE),
]
ValFraction = Annotated[
    float, data_option("Training share that chooses the best epoch.", show_default=BY_RECIPE)
]
TestFraction = Annotated[
    float, data_option("Share for the final test where the data has no test part.")
]
Balance = Annotated[bool, data_option("Draw every class equally often.", "--balance/--no-balance")]
Loader = Annotated[
    str, data_option(f"{', '.join(LOADERS)}: hold all images on the device, or stream them.")
]
Workers = Annotated[int, data_option("Processes that read images.", min=0)]

NAMES = ", ".join(MODELS)
Model = Annotated[
    str, training_option(f"{NAMES}; or tv:NAME, a model of torchvision (dltool cnn models).")
]
Recipe = Annotated[
    str, training_option(f"{', '.join(RECIPES)}: settings that fill what is not given.")
]
Hidden = Annotated[str, training_option("Hidden widths of mlp.")]
Width = Annotated[
    int,
    training_option(
        "Channels of the first layer of simple-cnn, preact and vgg11; 0: the network's own.",
        min=0,
        show_default=BY_RECIPE,
    ),
]
Dropout = Annotated[
    float, training_option("Dropout before the last layer of mlp, simple-cnn and others.")
]
Optimizer = Annotated[
    str, training_option(f"{', '.join(OPTIMIZERS)}.", "--optimizer", show_default=BY_RECIPE)
]
Schedule = Annotated[str, training_option(f"{', '.join(SCHEDULES)}.", show_default=BY_RECIPE)]
LabelSmoothing = Annotated[float, training_option("Share of the target spread over all classes.")]
FindLr = Annotated[
    bool,
    training_option(
        "Test learning rates first, draw the result, and take it unless --lr is given.",
        "--find-lr/--no-find-lr",
    ),
]
Compile = Annotated[
    bool,
    training_option(
        "Compile the network; says what the first step costs and the next gain.",
        "--compile/--no-compile",
    ),
]

Pretrained = Annotated[
    bool,
    _transfer("Begin from torchvision's published weights.", "--pretrained/--scratch"),
]
Weights = Annotated[
    str,
    _transfer(
        "Begin from the weights in a file, or of a run of cnn.",
        metavar="FILE|RUN",
        show_default="none",
    ),
]
Freeze = Annotated[
    str, _transfer("backbone, none, or how many of the first blocks keep their weights.")
]
HeadLr = Annotated[
    float, _transfer("Rate of the last layer; 0: as --lr.", min=0.0, show_default=BY_RECIPE)
]
BackboneLr = Annotated[float, _transfer("Rate of all before it; 0: as --lr.", min=0.0)]
LoraRank = Annotated[
    int,
    _transfer("Train changes of this rank in attention layers, and the head; 0: off.", min=0),
]
LoraAlpha = Annotated[
    float, _transfer("Changes are scaled by alpha / rank; 0: twice the rank.", min=0.0)
]
LoraTargets = Annotated[str, _transfer(f"Comma-separated: {', '.join(LORA_TARGETS)}.")]

Tta = Annotated[
    str, typer.Option("--tta", help="none, or flip: mean over the image and its mirror image.")
]
Find = Annotated[str, typer.Argument(metavar="[TEXT]", help="Part of a name.")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name that dltool cnn models shows.")
]
Input = Annotated[
    str, typer.Option("--input", help="Channels, height and width of an image.", metavar="CxHxW")
]
Classes = Annotated[int, typer.Option(min=2, help="Classes to tell apart.")]
BatchSize = Annotated[int, typer.Option(min=1, help="For the memory that training takes.")]
Plot = Annotated[
    Path | None,
    typer.Option(
        help="Confusion matrix picture [default: in the run's pictures].", show_default=False
    ),
]
Pictures = Annotated[
    bool,
    typer.Option(
        "--pictures",
        help="Draw curves, worst mistakes, calibration and filters into the run's pictures.",
    ),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Draw where a convolutional network looked (Grad-CAM), for the first 48 images.",
    ),
]
ExplainOut = Annotated[
    Path | None,
    typer.Option(
        help="That picture, .png [default: pictures/grad-cam.png in the run].",
        show_default=False,
    ),
]
