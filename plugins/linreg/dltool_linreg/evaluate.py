"""Measure a trained linear model, and tell what a model folder is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from dltool import runs
from dltool.console import Console, table
from dltool.data.tables import Format
from dltool.errors import CheckFailed, ConfigError
from dltool_linreg import data as tables
from dltool_linreg import fit, scores
from dltool_linreg.config import TrainConfig
from dltool_linreg.data import Part, TableData
from dltool_linreg.predict import LoadedModel, as_file, features, load_model, read_table

SPLITS = ("test", "train")


def evaluate_run(
    folder: Path,
    *,
    data: str | None,
    split: str,
    form: Format,
    min_r2: float | None,
    min_accuracy: float | None,
    console: Console,
) -> None:
    """Evaluate a model on its own split, or on another file, and print the figures.

    Raises:
        CheckFailed: a figure is below its minimum.
    """
    if split not in SPLITS:
        raise ConfigError("E206", f"--split {split!r} is not known", expected=", ".join(SPLITS))
    loaded = load_model(folder)
    limits = {"r2": min_r2, "accuracy": min_accuracy}
    unfit = "accuracy" if not loaded.classes else "r2"
    if limits[unfit] is not None:
        raise ConfigError("E205", f"--min-{unfit} does not suit a model for {loaded.task}")
    if data is None:
        found = own_data(folder, console)
        part, where = (found.train if split == "train" else found.test), f"its {split} rows"
        if split == "test" and found.on_train:
            where = "its training rows (no others were kept)"
    else:
        part, where = other_data(loaded, data, form, console), data
    measured = fit.measure(
        loaded.model,
        part,
        loaded.target_mean,
        num_classes=loaded.num_classes,
        log_target=loaded.log_target,
    )
    target = f"ln({loaded.target})" if loaded.log_target else loaded.target
    result = {"run": str(folder), "data": where, "target": target, "measured": measured}
    console.result(result, f"{target} on {where}\n{scores.text(measured)}")
    for name, least in limits.items():
        value = measured[name]["value"] if least is not None else None
        if least is not None and (value is None or value < least):
            raise CheckFailed("E601", f"{name} {value} is below {least}")


def own_data(folder: Path, console: Console) -> TableData:
    """Load a run's own data, split as it was."""
    if not (folder / "config.json").exists():
        raise ConfigError("E205", f"{folder} is no run and names no data", cure="add --data")
    config, _ = runs.read_config(folder, TrainConfig)
    return tables.load(config, console)


def other_data(loaded: LoadedModel, source: str, form: Format, console: Console) -> Part:
    """Read a CSV file with features and target, encoded as the model knows them."""
    with as_file(source) as (path, name):
        if loaded.target in loaded.names:
            raise ConfigError("E205", "the target is one of the features")
        found = read_table(loaded, path, name, form)
        wanted = dataclasses.replace(
            TrainConfig(),
            data=str(path),
            target=loaded.target,
            task=loaded.task,
            log_target=loaded.log_target,
            delimiter=form.delimiter,
            encoding=form.encoding,
            decimal=form.decimal,
        )
        whole = tables.read_target(wanted, path, name, texts=bool(loaded.classes))
        y, _, rows = tables.target_values(whole, wanted, loaded.classes)
        return Part(features(loaded, found, console)[rows], y[rows])


def describe(folder: Path, console: Console) -> None:
    """Print what a run or model folder is, with every weight."""
    loaded = load_model(folder)
    weight, bias = loaded.model.raw()
    labels = loaded.classes if loaded.task == "softmax" else ("",)
    rows = [
        (f"{label}: {name}" if label else name, float(f"{value:.10g}"))
        for output, label in enumerate(labels)
        for name, value in zip(
            [*loaded.names, "(bias)"], [*weight[output].tolist(), float(bias[output])], strict=True
        )
    ]
    description = loaded.description
    result = {
        "folder": str(folder),
        "task": loaded.task,
        "target": loaded.target,
        "classes": list(loaded.classes),
        "weights": dict(rows),
        "preprocessing": description["preprocessing"],
        "results": description.get("results"),
    }
    head = f"{loaded.task} of {'ln ' if loaded.log_target else ''}{loaded.target}"
    if loaded.task == "logistic":
        head += f": the odds of {loaded.classes[1]!r}"
    text = f"{head}\n\n{table(rows, ('feature', 'weight'))}{_boundary(loaded)}"
    measured: dict[str, Any] | None = (description.get("results") or {}).get("measured")
    if measured:
        text += f"\n\non {description['results']['measured_on']}\n{scores.text(measured)}"
    console.result(result, text)


def _boundary(loaded: LoadedModel) -> str:
    """Say where a logistic model of one feature changes its answer."""
    if loaded.task != "logistic" or len(loaded.names) != 1:
        return ""
    weight, bias = (float(torch.squeeze(value)) for value in loaded.model.raw())
    if weight == 0:
        return ""
    return f"\n\nthe answer changes at {loaded.names[0]} = {-bias / weight:.6g}"
