"""Pictures of a run: the loss, predictions against the truth, weights, a learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dltool.console import Console
from dltool.drawing import (
    BLUE,
    DPI,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    RED,
    check_name,
    clean,
    drawing,
    heading,
    save,
    shorten,
)
from dltool.errors import ConfigError
from dltool_linreg import fit
from dltool_linreg.config import TrainConfig
from dltool_linreg.data import Part, TableData
from dltool_linreg.predict import LoadedModel, load_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("fit", "residuals", "weights", "loss", "learning-curve")
MOST_POINTS, MOST_WEIGHTS = 5_000, 20
COLORS = (BLUE, RED, GREEN, ORANGE, INK, GREY)


def figure(width: float, height: float, columns: int, title: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side in the house's look; call inside `drawing`."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    made = Figure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(wspace=0.06))
    made.suptitle(heading(title, width), fontsize=12.5, color=INK)
    panels = list(made.subplots(1, columns, squeeze=False)[0])
    for axes in panels:
        axes.grid(True, color=PALE, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    return made, panels


def log_scale(axes: Axes) -> None:
    """Give the y axis a logarithmic scale with plain numbers: the house's text parses no maths."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def loss_curve(records: Sequence[Mapping[str, Any]], path: Path, minimum: float) -> None:
    """Draw how far the objective was above its exact minimum, after each report."""
    check_name(path)
    passes = [record["pass"] for record in records]
    above = [max(record["objective_loss"] - minimum, 1e-16) for record in records]
    with drawing():
        made, (axes,) = figure(5.2, 3.7, 1, "distance to the minimum")
        axes.plot(passes, above, color=BLUE, marker="o", markersize=3.5)
        log_scale(axes)
        axes.set_xlabel("passes over the training rows")
        axes.set_ylabel("loss − exact minimum")
        save(made, path)


def plot_run(folder: Path, kind: str, out: Path | None, console: Console) -> None:
    """Draw one picture of a run and say where it is.

    Raises:
        ConfigError: an unknown kind, or one that does not suit the model.
    """
    if kind not in KINDS:
        raise ConfigError("E206", f"--kind {kind!r} is not known", expected=", ".join(KINDS))
    path = out or folder / f"{kind}.png"
    check_name(path)
    loaded = load_model(folder)
    if kind == "weights":
        _weights(loaded, path)
    elif kind == "loss":
        _loss(folder, path)
    else:
        from dltool_linreg.evaluate import own_data

        data = own_data(folder, console)
        makers = {"fit": _fit, "residuals": _residuals, "learning-curve": _learning_curve}
        makers[kind](folder, loaded, data, path)
    console.result({"run": str(folder), "kind": kind, "plot": str(path)}, str(path))


def _loss(folder: Path, path: Path) -> None:
    from dltool import runs

    records = runs.read_records(folder)
    result = runs.read_json(folder).get("result")
    if not records or not result:
        raise ConfigError(
            "E205",
            f"{folder} has no loss curve: a closed form takes no steps",
            cure="train with --solver scratch or nn",
        )
    loss_curve(records, path, result["objective"]["minimum"])


@torch.no_grad()
def _predicted(loaded: LoadedModel, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions and truth, thinned to what a picture can show."""
    step = max(1, len(part) // MOST_POINTS)
    return loaded.model(part.x[::step]).numpy(), part.y[::step].numpy()


def _fit(folder: Path, loaded: LoadedModel, data: TableData, path: Path) -> None:
    if loaded.task == "regression":
        _line_fit(folder, loaded, data, path)
    elif len(loaded.names) == 1 and loaded.task == "logistic":
        _curve(folder, loaded, data, path)
    else:
        raise ConfigError(
            "E205",
            "this picture needs a regression, or a logistic model of one feature",
            cure="use --kind weights or learning-curve",
        )


def _line_fit(folder: Path, loaded: LoadedModel, data: TableData, path: Path) -> None:
    name = _target(loaded)
    with drawing():
        made, (axes,) = figure(5.0, 4.4, 1, f"{folder.name}: predicted and true")
        parts = [("training", data.train, GREY)]
        parts += [] if data.on_train else [("test", data.test, BLUE)]
        both: list[float] = []
        for label, part, color in parts:
            predicted, truth = _predicted(loaded, part)
            axes.plot(truth, predicted, ".", color=color, markersize=4, alpha=0.6, label=label)
            both += [truth.min(), truth.max()]
        axes.plot([min(both), max(both)], [min(both), max(both)], "--", color=RED, linewidth=1)
        axes.set_xlabel(f"true {name}")
        axes.set_ylabel(f"predicted {name}")
        axes.legend(frameon=False)
        save(made, path)


def _curve(folder: Path, loaded: LoadedModel, data: TableData, path: Path) -> None:
    x, y = data.train.x[:, 0].numpy(), data.train.y.numpy()
    reach = max(float(np.ptp(x)), 1e-9)
    grid = torch.linspace(x.min() - reach / 2, x.max() + reach / 2, 300, dtype=torch.float64)
    with torch.no_grad():
        chance = loaded.model(grid[:, None]).sigmoid()
    with drawing():
        made, (axes,) = figure(5.4, 3.7, 1, f"{folder.name}: chance of {loaded.classes[1]}")
        axes.plot(grid, chance, color=BLUE)
        axes.plot(x, y, "o", color=RED, markersize=6)
        axes.axhline(0.5, color=GREY, linewidth=1, linestyle=":")
        weight, bias = (float(value.squeeze()) for value in loaded.model.raw())
        if weight:
            axes.axvline(-bias / weight, color=GREY, linewidth=1, linestyle=":")
        axes.set_xlabel(clean(loaded.names[0]))
        axes.set_ylabel("probability")
        save(made, path)


def _residuals(folder: Path, loaded: LoadedModel, data: TableData, path: Path) -> None:
    if loaded.task != "regression":
        raise ConfigError("E205", "residuals need a regression", cure="use --kind weights")
    predicted, truth = _predicted(loaded, data.test)
    error = predicted - truth
    with drawing():
        title = f"{folder.name}: errors on the {'training' if data.on_train else 'test'} rows"
        made, (left, right) = figure(8.6, 3.7, 2, title)
        left.plot(predicted, error, ".", color=BLUE, markersize=4, alpha=0.6)
        left.axhline(0, color=RED, linewidth=1, linestyle="--")
        left.set_xlabel(f"predicted {_target(loaded)}")
        left.set_ylabel("predicted − true")
        right.hist(error, bins=min(40, max(5, len(error) // 5)), color=BLUE)
        right.axvline(0, color=RED, linewidth=1, linestyle="--")
        right.set_xlabel("predicted − true")
        right.set_ylabel("rows")
        save(made, path)


def _weights(loaded: LoadedModel, path: Path) -> None:
    """Draw the largest weights, each as the effect of one deviation of its feature."""
    model = loaded.model
    effects = (model.head.weight.detach() * model.target_scale).numpy()  # (C, F)
    order = np.argsort(-np.abs(effects).max(0))[:MOST_WEIGHTS][::-1]
    names = [shorten(clean(loaded.names[place]), 28) for place in order]
    with drawing():
        title = f"effect of one standard deviation on {_target(loaded)}"
        made, (axes,) = figure(6.4, 1.6 + 0.27 * len(order), 1, title)
        height = 0.8 / len(effects)
        for number, row in enumerate(effects):
            label = loaded.classes[number] if len(effects) > 1 else None
            places = np.arange(len(order)) + height * (number - (len(effects) - 1) / 2)
            axes.barh(places, row[order], height, color=COLORS[number % 6], label=label)
        axes.set_yticks(range(len(order)), names)
        axes.axvline(0, color=INK, linewidth=0.8)
        if len(effects) > 1:
            axes.legend(frameon=False)
        save(made, path)


def _learning_curve(folder: Path, loaded: LoadedModel, data: TableData, path: Path) -> None:
    """Draw the error on both parts for growing numbers of training rows, each fit exact."""
    from dltool import runs

    config, _ = runs.read_config(folder, TrainConfig)
    sizes, trained, tested = _growing(config, data)
    key = "log loss" if data.classes else "RMSE"
    with drawing():
        made, (axes,) = figure(5.4, 3.9, 1, f"{folder.name}: what more rows would bring")
        axes.plot(sizes, trained, "--", color=RED, marker="o", markersize=3.5, label="training")
        label = "training, all rows" if data.on_train else "test"
        axes.plot(sizes, tested, color=BLUE, marker="o", markersize=3.5, label=label)
        axes.set_xlabel("training rows")
        axes.set_ylabel(f"{key} of {_target(loaded)}")
        axes.legend(frameon=False)
        save(made, path)


def _growing(config: TrainConfig, data: TableData) -> tuple[list[int], list[float], list[float]]:
    count = len(data.train)
    least = min(count, max(len(data.names) + 2, 3 * max(1, len(data.classes)), 5))
    sizes = sorted({int(size) for size in np.geomspace(least, count, 10)})
    order = torch.randperm(count, generator=torch.Generator().manual_seed(config.seed))
    key = "log_loss" if data.classes else "rmse"
    trained: list[float] = []
    tested: list[float] = []
    for size in sizes:
        rows = order[:size]
        part = Part(data.train.x[rows], data.train.y[rows])
        model = fit.build(config, part, len(data.classes))
        kept = Part(part.x.clone(), part.y)
        fit.put(fit.reference(config, model, fit.standardise(model, part)), model)
        for values, measured in ((trained, kept), (tested, data.test)):
            found = fit.measure(
                model, measured, 0.0, num_classes=len(data.classes), log_target=config.log_target
            )
            values.append(found[key]["value"])
    return sizes, trained, tested


def _target(loaded: LoadedModel) -> str:
    return clean(f"ln {loaded.target}" if loaded.log_target else loaded.target)
