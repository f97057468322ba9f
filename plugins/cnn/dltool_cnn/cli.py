"""Options and help of the `cnn` topic; what they do is in train.py and predict.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import asking, options, runs
from dltool.console import Console
from dltool_cnn import cli_deploy, cli_kernels, cli_models, cli_study, flags, recipes
from dltool_cnn.config import TrainConfig, class_names, numbers

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
    data: flags.Data = TrainConfig.data,
    data_root: options.DataRootOption = None,
    image_size: flags.ImageSize = TrainConfig.image_size,
    augment: flags.Augment = TrainConfig.augment,
    val_fraction: flags.ValFraction = TrainConfig.val_fraction,
    test_fraction: flags.TestFraction = TrainConfig.test_fraction,
    balance: flags.Balance = TrainConfig.balance,
    loader: flags.Loader = TrainConfig.loader,
    workers: flags.Workers = TrainConfig.workers,
    model: flags.Model = TrainConfig.model,
    recipe: flags.Recipe = TrainConfig.recipe,
    hidden: flags.Hidden = TrainConfig.hidden,
    width: flags.Width = TrainConfig.width,
    dropout: flags.Dropout = TrainConfig.dropout,
    optimizer: flags.Optimizer = TrainConfig.optimizer,
    schedule: flags.Schedule = TrainConfig.schedule,
    label_smoothing: flags.LabelSmoothing = TrainConfig.label_smoothing,
    find_lr: flags.FindLr = TrainConfig.find_lr,
    compile: flags.Compile = TrainConfig.compile,
    pretrained: flags.Pretrained = TrainConfig.pretrained,
    weights: flags.Weights = TrainConfig.weights,
    freeze: flags.Freeze = TrainConfig.freeze,
    head_lr: flags.HeadLr = TrainConfig.head_lr,
    backbone_lr: flags.BackboneLr = TrainConfig.backbone_lr,
    lora_rank: flags.LoraRank = TrainConfig.lora_rank,
    lora_alpha: flags.LoraAlpha = TrainConfig.lora_alpha,
    lora_targets: flags.LoraTargets = TrainConfig.lora_targets,
) -> None:
    """Train a classifier; test it once; leave a run folder with the model."""
    folder, config, origins = asked.settled(recipes.recipe(asked.chosen))
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
    plot: flags.Plot = None,
    pictures: flags.Pictures = False,
    tta: flags.Tta = "none",
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
        tta=tta,
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
    explain: flags.Explain = False,
    explain_out: flags.ExplainOut = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 256,
    tta: flags.Tta = "none",
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
        tta=tta,
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
    model: flags.Model = "resnet20",
    hidden: flags.Hidden = TrainConfig.hidden,
    width: flags.Width = TrainConfig.width,
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
        hidden=settings.hidden_widths,
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


cli_models.register(app)
cli_deploy.register(app)
cli_study.register(app)
cli_kernels.register(app)
