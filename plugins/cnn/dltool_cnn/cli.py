"""Options and help of the `cnn` topic; what they do is in train.py and predict.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import asking, options, runs
from dltool.console import Console
from dltool.options import data_option, training_option
from dltool_cnn import cli_deploy, cli_study
from dltool_cnn.config import (
    AUGMENTATIONS,
    LOADERS,
    MODELS,
    SCHEDULES,
    TrainConfig,
    class_names,
    numbers,
    recipe,
)

TOPIC = "cnn"

app = typer.Typer(
    help="Classify images: train a network on your pictures, see how good it is, use it.",
    no_args_is_help=True,
    context_settings=options.HELP,
    epilog="Try: dltool cnn train     then: dltool cnn predict latest IMAGE...",
)


@app.callback()
def root() -> None:
    """Classify images: train a network on your pictures, see how good it is, use it."""


@app.command()
@asking.trains(TrainConfig, TOPIC)
def train(
    asked: asking.Asked[TrainConfig],
    data: Annotated[
        str,
        data_option(
            "digits, mnist, fashion-mnist, cifar10, an image folder with one subfolder a class, "
            "or a zip of one."
        ),
    ] = TrainConfig.data,
    data_root: options.DataRootOption = None,
    image_size: Annotated[
        int, data_option("Side to bring images to; 0: as they are, 64 at most.", min=0)
    ] = TrainConfig.image_size,
    augment: Annotated[
        str,
        data_option(
            f"Comma-separated: {', '.join(AUGMENTATIONS)}; or none.",
            show_default=options.BY_RECIPE,
        ),
    ] = TrainConfig.augment,
    val_fraction: Annotated[
        float,
        data_option("Training share that chooses the best epoch.", show_default=options.BY_RECIPE),
    ] = TrainConfig.val_fraction,
    test_fraction: Annotated[
        float, data_option("Share for the final test where the data has no test part.")
    ] = TrainConfig.test_fraction,
    loader: Annotated[
        str, data_option(f"{', '.join(LOADERS)}: hold all images on the device, or stream them.")
    ] = TrainConfig.loader,
    workers: Annotated[
        int, data_option("Processes that read images.", min=0)
    ] = TrainConfig.workers,
    model: Annotated[str, training_option(f"{', '.join(MODELS)}.")] = TrainConfig.model,
    hidden: Annotated[str, training_option("Hidden widths of mlp.")] = TrainConfig.hidden,
    width: Annotated[
        int,
        training_option(
            "Channels of simple-cnn's first layer.", min=1, show_default=options.BY_RECIPE
        ),
    ] = TrainConfig.width,
    dropout: Annotated[
        float, training_option("Dropout before the last layer of mlp and simple-cnn.")
    ] = TrainConfig.dropout,
    schedule: Annotated[str, training_option(f"{', '.join(SCHEDULES)}.")] = TrainConfig.schedule,
    label_smoothing: Annotated[
        float, training_option("Share of the target spread over all classes.")
    ] = TrainConfig.label_smoothing,
) -> None:
    """Train a classifier; test it once; leave a run folder with the model."""
    chosen = asked.chosen
    defaults = recipe(chosen.get("data", data), chosen.get("model", model))
    folder, config, origins = asked.settled(defaults)
    asked.console.loading()
    from dltool_cnn.train import train as run_training

    run_training(config, origins, console=asked.console, out=asked.out, resume=folder)


@app.command()
def evaluate(
    run: options.RunArgument,
    data: Annotated[
        str | None,
        typer.Option(
            help="Other data: a named set, an image folder or a zip [default: the run's]."
        ),
    ] = None,
    data_root: options.DataRootOption = None,
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    min_accuracy: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Exit 6 below this accuracy.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Confusion matrix picture [default: in the run's pictures].", show_default=False
        ),
    ] = None,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures",
            help="Draw curves, worst mistakes, calibration and filters into the run's pictures.",
        ),
    ] = False,
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Measure a trained model: accuracy with its interval, calibration, classes."""
    console = Console("cnn evaluate", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_cnn import evaluate as evaluation

    evaluation.evaluate_run(
        folder,
        data=data,
        data_root=data_root,
        split=split,
        min_accuracy=min_accuracy,
        plot=plot,
        pictures=pictures,
        device=device,
        console=console,
    )


@app.command()
def predict(
    run: options.RunArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...|FOLDER|-", help="Images, folders of them, or - for stdin."
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 1,
    grid: Annotated[
        Path | None, typer.Option(help="Write a picture of the images with their labels.")
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Draw where a convolutional network looked (Grad-CAM), for the first 48 images.",
        ),
    ] = False,
    explain_out: Annotated[
        Path | None,
        typer.Option(
            help="That picture, .png [default: pictures/grad-cam.png in the run].",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 256,
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Name what is on pictures, with the probability of each name."""
    console = Console("cnn predict", json=json)
    folder = runs.locate(run, TOPIC)
    drawn = explain or explain_out is not None
    console.loading()
    from dltool_cnn.predict import predict_files

    predict_files(
        folder,
        images,
        top=top,
        grid=grid,
        explain=(explain_out or folder / "pictures" / "grad-cam.png") if drawn else None,
        batch_size=batch_size,
        device=device,
        console=console,
    )


@app.command()
def info(run: options.RunArgument, json: options.JsonOption = False) -> None:
    """Show what a run or model folder is: network, classes, preprocessing, results."""
    console = Console("cnn info", json=json)
    folder = runs.locate(run, TOPIC)
    from dltool_cnn.predict import describe

    describe(folder, console)


@app.command("import")
def import_(
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS", help=".pt, .pth, .th, .ckpt or .safetensors.")
    ],
    classes: Annotated[str, typer.Option(help="Names by label: comma-separated, or a file.")],
    mean: Annotated[str, typer.Option(help="Mean of each channel, 0 to 1, comma-separated.")],
    std: Annotated[str, typer.Option(help="Deviation of each channel, comma-separated.")],
    out: Annotated[Path, typer.Option(help="Model folder to make.")],
    image_size: Annotated[int, typer.Option(min=1, help="Side that images are brought to.")],
    model: Annotated[str, typer.Option(help=f"{', '.join(MODELS)}.")] = "resnet20",
    hidden: Annotated[str, typer.Option(help="Hidden widths of mlp.")] = TrainConfig.hidden,
    width: Annotated[
        int, typer.Option(min=1, help="Channels of simple-cnn's first layer.")
    ] = TrainConfig.width,
    key: Annotated[str | None, typer.Option(help="Where the weights are in the file.")] = None,
    strip_prefix: Annotated[
        str | None, typer.Option(help="Take this off names [default: module., model. and such].")
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Make a model folder from weights trained elsewhere; names and shapes must fit exactly."""
    console = Console("cnn import", json=json)
    settings = TrainConfig(model=model, hidden=hidden, width=width)
    names = class_names(classes)
    means, deviations = numbers("--mean", mean), numbers("--std", std)
    console.loading()
    from dltool_cnn.importing import import_weights
    from dltool_cnn.model import Spec

    spec = Spec(
        name=model,
        channels=len(means),
        height=image_size,
        width=image_size,
        num_classes=len(names),
        hidden=settings.hidden_widths if model == "mlp" else (),
        base_width=width,
    )
    import_weights(
        weights,
        spec,
        names,
        means,
        deviations,
        out=out,
        key=key,
        strip_prefix=strip_prefix,
        console=console,
    )


cli_deploy.register(app)
cli_study.register(app)
