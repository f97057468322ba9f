"""Options and help of the `linreg` topic; what they do is in train.py and predict.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import asking, options, runs
from dltool.console import Console
from dltool.data.table_rows import Format
from dltool.options import data_option, run_option, training_option
from dltool_linreg.config import (
    BUILT_IN,
    OPTIMIZERS,
    SCHEDULES,
    SOLVERS,
    TASKS,
    TrainConfig,
    recipe,
)
from dltool_linreg.demo.cli import app as demo

TOPIC = "linreg"
HELP = "Fit linear, logistic and softmax models to tables; see how learning works."

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    context_settings=options.HELP,
    epilog="Try: dltool linreg train     then: dltool linreg demo descent",
)
app.add_typer(demo, name="demo")

DelimiterOption = Annotated[
    str, data_option("Between the cells [default: found].", "--delimiter", show_default=False)
]
EncodingOption = Annotated[str, data_option("Of the CSV file: utf-8, latin-1, …", "--encoding")]
DecimalOption = Annotated[str, data_option("Decimal point: . or ,", "--decimal")]


@app.callback()
def root() -> None:
    """Fit linear, logistic and softmax models to tables; see how learning works."""


@app.command()
@asking.trains(TrainConfig, TOPIC)
def train(
    asked: asking.Asked[TrainConfig],
    data: Annotated[
        str, data_option(f"A CSV file with a header line, or: {', '.join(BUILT_IN)}.")
    ] = TrainConfig.data,
    target: Annotated[str, data_option("Column to predict.")] = TrainConfig.target,
    features: Annotated[
        str, data_option("Columns to learn from, comma-separated [default: all].")
    ] = TrainConfig.features,
    categories: Annotated[
        str, data_option("Columns that are texts although they look like numbers.")
    ] = TrainConfig.categories,
    delimiter: DelimiterOption = TrainConfig.delimiter,
    encoding: EncodingOption = TrainConfig.encoding,
    decimal: DecimalOption = TrainConfig.decimal,
    log_target: Annotated[
        bool, data_option("Fit the logarithm of the target.", "--log-target/--no-log-target")
    ] = TrainConfig.log_target,
    standardise: Annotated[
        bool,
        data_option(
            "Bring columns to mean 0, deviation 1, by the training rows.",
            "--standardise/--no-standardise",
        ),
    ] = TrainConfig.standardise,
    test_fraction: Annotated[
        float, data_option("Share of the rows for the final test; 0: none.")
    ] = TrainConfig.test_fraction,
    folds: Annotated[
        int, data_option("Cross-validate on so many parts of the training rows.", min=0)
    ] = TrainConfig.folds,
    true_w: Annotated[str, data_option("Weights of --data synthetic.")] = TrainConfig.true_w,
    true_b: Annotated[float, data_option("Bias of --data synthetic.")] = TrainConfig.true_b,
    samples: Annotated[int, data_option("Rows of a generated set.")] = TrainConfig.samples,
    noise: Annotated[
        float, data_option("Standard deviation of a generated set's noise.")
    ] = TrainConfig.noise,
    feature_std: Annotated[
        float, data_option("Deviation of the features of --data synthetic.")
    ] = TrainConfig.feature_std,
    degree: Annotated[int, data_option("Highest power of --data polynomial.")] = TrainConfig.degree,
    task: Annotated[
        str, training_option(f"{', '.join(TASKS)}.", show_default=options.BY_RECIPE)
    ] = TrainConfig.task,
    solver: Annotated[
        str,
        training_option(
            f"{', '.join(SOLVERS)}: solve the equations, descend by hand, or in torch."
        ),
    ] = TrainConfig.solver,
    ridge: Annotated[
        float, training_option("Penalty on squared weights, as scikit-learn's Ridge(alpha).")
    ] = TrainConfig.ridge,
    lasso: Annotated[
        float, training_option("Penalty on absolute weights, as scikit-learn's Lasso(alpha).")
    ] = TrainConfig.lasso,
    optimizer: Annotated[
        str, training_option(f"Of --solver nn: {', '.join(OPTIMIZERS)}.")
    ] = TrainConfig.optimizer,
    batch_size: Annotated[
        int, training_option("Rows a step; 0: all training rows.", min=0)
    ] = TrainConfig.batch_size,
    learning_rate: Annotated[
        float, training_option("Learning rate; 0: from the loss's curvature.", "--lr")
    ] = TrainConfig.learning_rate,
    momentum: Annotated[
        float, training_option("Of sgd.", show_default=options.BY_RECIPE)
    ] = TrainConfig.momentum,
    schedule: Annotated[
        str, training_option(f"{', '.join(SCHEDULES)}.", show_default=options.BY_RECIPE)
    ] = TrainConfig.schedule,
    device: Annotated[
        str, run_option("cpu, cuda, cuda:N or auto; a small model is fastest on the cpu.")
    ] = TrainConfig.device,
) -> None:
    """Fit a model; compare it with the exact minimum; test it once; leave a run folder."""
    folder, config, origins = asked.settled(recipe(asked.chosen))
    asked.console.loading()
    from dltool_linreg.train import train as run_training

    run_training(config, origins, console=asked.console, out=asked.out, resume=folder)


@app.command()
def evaluate(
    run: options.RunArgument,
    data: Annotated[
        str | None,
        typer.Option(help="Another CSV file with the target, or -; by default the run's own data."),
    ] = None,
    split: Annotated[str, typer.Option(help="Of the run's own data: test or train.")] = "test",
    delimiter: DelimiterOption = "",
    encoding: EncodingOption = "utf-8",
    decimal: DecimalOption = ".",
    min_r2: Annotated[float | None, typer.Option(help="Exit 6 below this R².")] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Exit 6 below this accuracy.")
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Measure a trained model: R², RMSE and MAE, or accuracy, with intervals."""
    console = Console("linreg evaluate", json=json)
    folder = runs.locate(run, TOPIC)
    form = Format(delimiter, encoding, decimal)
    console.loading()
    from dltool_linreg.evaluate import evaluate_run

    evaluate_run(
        folder,
        data=data,
        split=split,
        form=form,
        min_r2=min_r2,
        min_accuracy=min_accuracy,
        console=console,
    )


@app.command()
def predict(
    run: options.RunArgument,
    source: Annotated[
        str | None,
        typer.Argument(metavar="FILE.csv|-", help="Rows to predict; - for stdin."),
    ] = None,
    x: Annotated[
        str | None, typer.Option("--x", metavar="3.0,2.1", help="One row of feature values.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the CSV here, not to stdout.")] = None,
    keep: Annotated[
        str, typer.Option(help="Columns to copy beside the predictions, such as Id.")
    ] = "",
    delimiter: DelimiterOption = "",
    encoding: EncodingOption = "utf-8",
    decimal: DecimalOption = ".",
    json: options.JsonOption = False,
) -> None:
    """Predict rows of a CSV file or of stdin; the answer is CSV too."""
    console = Console("linreg predict", json=json)
    folder = runs.locate(run, TOPIC)
    form = Format(delimiter, encoding, decimal)
    console.loading()
    from dltool_linreg.predict import predict_rows

    predict_rows(folder, source, x=x, out=out, keep=keep, form=form, console=console)


@app.command()
def plot(
    run: options.RunArgument,
    kind: Annotated[
        str, typer.Option(help="fit, residuals, weights, loss or learning-curve.")
    ] = "fit",
    out: Annotated[
        Path | None,
        typer.Option(help="PNG to write [default: in the run folder].", show_default=False),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Draw a run: its fit, errors, weights, loss, or what more rows would bring."""
    console = Console("linreg plot", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_linreg.pictures import plot_run

    plot_run(folder, kind, out, console)


@app.command()
def info(run: options.RunArgument, json: options.JsonOption = False) -> None:
    """Show what a run or model folder is: target, features, every weight, results."""
    console = Console("linreg info", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_linreg.evaluate import describe

    describe(folder, console)
