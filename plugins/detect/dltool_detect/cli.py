"""Options and help of the `detect` topic; what they do is in predict.py, evaluate.py and others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import options, runs
from dltool.console import Console
from dltool.options import data_option
from dltool.ranges import one_of
from dltool_detect import cli_teach, cli_train
from dltool_detect.config import FORMATS
from dltool_detect.group import InputGroup

TOPIC = "detect"
EXPORTS = ("onnx", "pt2")
SPLITS = ("test", "val", "train", "all")
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
ClassesOption = Annotated[
    str,
    data_option("Only these classes, in this order, comma-separated.", show_default="all"),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A run folder, latest, shipped, or a detector of torchvision."
    ),
]


def names_of(text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


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
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Lowest score of a box that is shown [default: 0.5; 0.4 for models of ours].",
            show_default=False,
        ),
    ] = None,
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
    from dltool_detect import vision

    vision.load()
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


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run folder, latest, shipped, a detector of torchvision, or a JSON file of "
            "detections in COCO's results form.",
        ),
    ],
    data: Annotated[
        str | None,
        data_option("Folder, zip or COCO file [default: the run's own].", show_default=False),
    ] = None,
    format: FormatOption = "auto",
    split: Annotated[str, data_option("test, val, train or all.")] = "test",
    weights: WeightsOption = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Score for confusions and the worst pictures [default: that of the best F1].",
            show_default=False,
        ),
    ] = None,
    min_ap50: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Exit 6 below this AP50.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures of one size that the model sees at once.")
    ] = 8,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the pictures [default: the run's].", show_default=False),
    ] = None,
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Measure a detector: AP, AP50, AP75, by size and class, recall, confusions, worst pictures."""
    console = Console("detect evaluate", json=json)
    one_of("--split", split, SPLITS)
    one_of("--format", format, FORMATS)
    console.loading()
    from dltool_detect.evaluate import evaluate_model

    evaluate_model(
        model,
        weights=weights,
        data=data,
        format=format,
        split=split,
        min_score=min_score,
        min_ap50=min_ap50,
        batch_size=batch_size,
        out=out,
        device=device,
        console=console,
    )


@app.command()
def data(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Folder, zip, COCO file, data.yaml, or shapes.")
    ],
    format: FormatOption = "auto",
    classes: ClassesOption = "",
    page: Annotated[
        Path | None,
        data_option(
            "Page of pictures with boxes, .png [default: in runs/detect].", show_default=False
        ),
    ] = None,
    has_page: Annotated[bool, typer.Option("--draw/--no-draw", help="Draw that page.")] = True,
    count: Annotated[int, typer.Option(min=1, max=100, help="Pictures on the page.")] = 20,
    json: options.JsonOption = False,
) -> None:
    """Look at a data set: counts, sizes, shapes, overlaps, faults, and a page of pictures."""
    console = Console("detect data", json=json)
    one_of("--format", format, FORMATS)
    console.loading()
    from dltool_detect.describe import describe_data

    place = page or Path("runs", TOPIC, f"{runs.short_name(path)}-boxes.png")
    describe_data(
        path,
        format=format,
        classes=names_of(classes),
        page=place if has_page else None,
        count=count,
        console=console,
    )


@app.command()
def convert(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Folder, zip or COCO file.")],
    to: Annotated[str, typer.Option(help="voc, coco or yolo.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    format: FormatOption = "auto",
    classes: ClassesOption = "",
    json: options.JsonOption = False,
) -> None:
    """Write a data set in another format, pictures included."""
    console = Console("detect convert", json=json)
    one_of("--format", format, FORMATS)
    console.loading()
    from dltool_detect.convert import convert_data

    convert_data(path, out, to=to, format=format, classes=names_of(classes), console=console)


@app.command()
def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="File to write, in .onnx or .pt2.")],
    format: Annotated[
        str, typer.Option(help="onnx or pt2.", show_default="by the file's name")
    ] = "",
    weights: WeightsOption = None,
    image_size: Annotated[
        int,
        typer.Option(
            min=0,
            help="Side of the picture that goes in [default: the model's, or 320].",
            show_default=False,
        ),
    ] = 0,
    json: options.JsonOption = False,
) -> None:
    """Write a detector as ONNX or torch.export program, checked against the detector."""
    console = Console("detect export", json=json)
    kind = format or out.suffix.lower().removeprefix(".")
    one_of("--format", kind, EXPORTS)
    console.loading()
    from dltool_detect.export import export_model

    export_model(
        model, format=kind, out=out, weights=weights, image_size=image_size, console=console
    )


@app.command()
def bench(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE|FOLDER]...", help="Pictures to use; made-up ones without."),
    ] = None,
    model: ModelOption = "auto",
    weights: WeightsOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures a batch.")] = 4,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; medians are told.")] = 5,
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = 0,
    json: options.JsonOption = False,
) -> None:
    """Time a detector here: decoding, the model alone, drawing."""
    console = Console("detect bench", json=json)
    console.loading()
    from dltool_detect.bench import bench_model

    bench_model(
        model,
        images or [],
        weights=weights,
        batch_size=batch_size,
        repeats=repeats,
        device=device,
        threads=threads,
        console=console,
    )


@app.command()
def info(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A run folder, latest, shipped, or a detector of torchvision; none lists them.",
        ),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Show what a detector is, or which ones there are."""
    console = Console("detect info", json=json)
    from dltool_detect import info as about

    if model is None:
        about.list_models(console)
    else:
        about.describe(model, console)


cli_teach.register(app)
