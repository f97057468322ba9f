"""Options and help of the commands that show a detector's pipeline, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import options
from dltool.console import Console
from dltool.errors import ConfigError
from dltool.ranges import inside

PLACE = Path("runs") / "detect" / "demo"

ImageArgument = Annotated[
    str, typer.Argument(metavar="[IMAGE]", help="A picture [default: a made-up one].")
]
PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", help="PNG to write [default: runs/detect/demo/<name>.png]."),
]
BoxOption = Annotated[
    list[str],
    typer.Option(
        "--box", metavar="X1,Y1,X2,Y2", help="An object on the picture, in pixels; repeatable."
    ),
]
IouOption = Annotated[float, typer.Option("--iou", min=0.0, max=1.0, help="Overlap that counts.")]


def numbers(option: str, text: str, count: int = 0) -> tuple[float, ...]:
    """Return finite numbers that are given with commas between them.

    Raises:
        ConfigError: E202, they are none, or not `count` of them.
    """
    import math

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or (count and len(values) != count) or not all(map(math.isfinite, values)):
        raise ConfigError(
            "E202",
            f"{option} is not understood",
            received=text,
            expected=f"{count or 'some'} numbers with commas between them",
            cure=f"use {option} {'10,20,110,90' if count == 4 else '0.5,1,2'}",
        )
    return values


def corners(boxes: list[str]) -> list[tuple[float, ...]]:
    """Return boxes as x1, y1, x2, y2.

    Raises:
        ConfigError: E202, one is no box.
    """
    found = [numbers("--box", text, 4) for text in boxes]
    for text, box in zip(boxes, found, strict=True):
        if box[2] <= box[0] or box[3] <= box[1]:
            raise ConfigError(
                "E202",
                "--box has no width or no height",
                received=text,
                expected="x1 < x2 and y1 < y2, in pixels from the upper left",
                cure="use --box 10,20,110,90",
            )
    return found


def between(option: str, text: str, low: float, high: float) -> tuple[float, ...]:
    """Return numbers from `low` to `high`.

    Raises:
        ConfigError: E202.
    """
    values = numbers(option, text)
    for value in values:
        inside(option, value, low, high)
    return values


def anchors(
    image: ImageArgument = "",
    box: BoxOption = [],  # noqa: B006  typer reads the default and never changes it
    grid: Annotated[
        str, typer.Option(metavar="ROWSxCOLUMNS", help="Size of the feature map.")
    ] = "6x6",
    scales: Annotated[
        str, typer.Option(help="Sides of square anchors, as shares of the picture's side.")
    ] = "0.2,0.35",
    ratios: Annotated[str, typer.Option(help="Width by height, with the first scale.")] = "1,2,0.5",
    iou: IouOption = 0.5,
    plot: PlotOption = None,
    json: options.JsonOption = False,
) -> None:
    """Show anchors on a picture: which answer for which object, and the offsets they learn."""
    console = Console("detect anchors", json=json)
    rows, columns = _grid(grid)
    objects = corners(box)
    sizes = between("--scales", scales, 0.01, 2.0)
    shapes = between("--ratios", ratios, 0.05, 20.0)
    console.loading()
    from dltool_detect.teach import show_anchors

    show_anchors(
        image,
        objects,
        rows=rows,
        columns=columns,
        scales=sizes,
        ratios=shapes,
        iou=iou,
        plot=plot or PLACE / "anchors.png",
        console=console,
    )


def _grid(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) == 2 and all(part.isdigit() and 0 < int(part) <= 256 for part in parts):
        return int(parts[0]), int(parts[1])
    raise ConfigError(
        "E202",
        "--grid is not understood",
        received=text,
        expected="rows x columns, 1 to 256 each",
        cure="use --grid 6x6",
    )


def nms(
    boxes: Annotated[
        str,
        typer.Argument(
            metavar="[FILE]",
            help="JSON rows of COCO results: bbox, score, category_id "
            "[default: made-up detections].",
        ),
    ] = "",
    iou: IouOption = 0.5,
    per_class: Annotated[
        bool,
        typer.Option(
            "--per-class/--all-classes", help="Boxes of different classes leave one another alone."
        ),
    ] = True,
    plot: PlotOption = None,
    json: options.JsonOption = False,
) -> None:
    """Show non-maximum suppression: which boxes stay, and which box suppressed each other one."""
    console = Console("detect nms", json=json)
    console.loading()
    from dltool_detect.teach import show_nms

    show_nms(boxes, iou=iou, per_class=per_class, plot=plot or PLACE / "nms.png", console=console)


def proposals(
    image: ImageArgument = "",
    box: BoxOption = [],  # noqa: B006
    mode: Annotated[str, typer.Option(help="fast or quality.")] = "fast",
    most: Annotated[int, typer.Option(min=1, help="Proposals that are kept at most.")] = 300,
    min_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Smallest side, as a share of the picture's.")
    ] = 0.05,
    max_ratio: Annotated[
        float, typer.Option(min=1.0, help="Longest side by shortest; thinner ones are dropped.")
    ] = 4.0,
    iou: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of two that overlap more, one is dropped.")
    ] = 0.7,
    plot: PlotOption = None,
    json: options.JsonOption = False,
) -> None:
    """Show selective search: thousands of regions, and the few hundred worth looking at."""
    console = Console("detect proposals", json=json)
    if mode not in ("fast", "quality"):
        raise ConfigError(
            "E206",
            f"--mode {mode!r} is not known",
            expected="fast or quality",
            cure="use --mode fast",
        )
    objects = corners(box)
    console.loading()
    from dltool_detect.proposals import Limits, show_proposals

    show_proposals(
        image,
        objects,
        mode=mode,
        limits=Limits(most, min_share, max_ratio, iou),
        plot=plot or PLACE / "proposals.png",
        console=console,
    )


def register(app: typer.Typer) -> None:
    """Add the stages to the topic's commands."""
    for command in (anchors, nms, proposals):
        app.command()(command)
