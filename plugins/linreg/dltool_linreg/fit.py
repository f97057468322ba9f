"""What every solver shares: scales by the training rows, the reference solution, folds, guards."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltool.device import generator
from dltool.errors import DataError
from dltool.guards.findings import Finding
from dltool_linreg import scores, solve
from dltool_linreg.config import TrainConfig
from dltool_linreg.data import Part, TableData
from dltool_linreg.model import LinearModel
from dltool_linreg.solve import Solution

SCALE_LIMITS = (0.1, 10.0)
CONDITION_LIMIT = 1e6
LEAST_SPREAD = 0.1


def build(config: TrainConfig, part: Part, num_classes: int) -> LinearModel:
    """Return a model at zero whose scales are those of the training rows."""
    outputs = num_classes if config.task == "softmax" else 1
    model = LinearModel(part.x.shape[1], outputs)
    if config.standardise:
        model.center.copy_(part.x.mean(0))
        scale = _deviation(part.x, model.center)
        # what does not vary in these rows stays as it is: a fold may lack a rare text
        model.scale.copy_(torch.where(scale > 1e-12 * model.center.abs(), scale, 1.0))
        if config.task == "regression":
            model.target_center.copy_(part.y.mean())
            spread = part.y.std(correction=0)
            model.target_scale.copy_(spread if spread > 0 else torch.ones_like(spread))
    return model


def _deviation(x: Tensor, center: Tensor) -> Tensor:
    total = torch.zeros_like(center)
    for start in range(0, len(x), solve.BLOCK):
        total += (x[start : start + solve.BLOCK] - center).square().sum(0)
    return (total / len(x)).sqrt()


def standardise(model: LinearModel, part: Part) -> Part:
    """Scale a part in place, so that no second copy of all rows is held."""
    part.x.sub_(model.center).div_(model.scale)
    y = part.y
    if y.is_floating_point():
        y = (y - model.target_center) / model.target_scale
    return Part(part.x, y)


def reference(config: TrainConfig, model: LinearModel, scaled: Part) -> Solution:
    """Return the minimum of the run's objective, found without a learning rate."""
    z, y = scaled.x.cpu(), scaled.y.cpu()
    if config.task != "regression":
        return solve.classify(z, y, config.task, model.head.out_features, config.ridge)
    if config.lasso:
        # on a target that was divided by its deviation the same lasso is weaker by that factor
        strength = config.lasso / float(model.target_scale)
        return solve.lasso(z, y, strength, config.ridge)
    return solve.least_squares(z, y, config.ridge)


@torch.no_grad()
def put(solution: Solution, model: LinearModel) -> None:
    """Give the model a solution's weights."""
    model.head.weight.copy_(solution.weight)
    model.head.bias.copy_(solution.bias)


@torch.no_grad()
def measure(
    model: LinearModel, part: Part, mean: float, *, num_classes: int, log_target: bool
) -> dict[str, Any]:
    """Return the scores of a model on raw rows."""
    blocks = range(0, max(len(part), 1), solve.BLOCK)
    predicted = torch.cat([model(part.x[start : start + solve.BLOCK]) for start in blocks])
    if num_classes:
        return scores.classification(predicted, part.y, num_classes)
    found = scores.regression(predicted, part.y, mean)
    if log_target:
        found["mae_in_target_units"] = float((predicted.exp() - part.y.exp()).abs().mean())
    return found


def cross_validate(config: TrainConfig, data: TableData) -> dict[str, Any]:
    """Fit the objective's minimum on all but one part of the training rows, each part in turn.

    Scales, fills and levels are learnt anew in every fold. The test rows are not touched.
    """
    found = []
    for train, held in _folds(config, data):
        part, rest = data.fold(train, held)
        model = build(config, part, len(data.classes))
        mean = float(part.y.mean()) if not data.classes else 0.0
        put(reference(config, model, standardise(model, part)), model)
        found.append(
            measure(model, rest, mean, num_classes=len(data.classes), log_target=config.log_target)
        )
    names = ("accuracy", "log_loss") if data.classes else ("r2", "rmse", "mae")
    summary: dict[str, Any] = {"folds": config.folds}
    for name in names:
        values = [part[name]["value"] for part in found if part[name]["value"] is not None]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            summary[name] = {"mean": statistics.fmean(values), "sd": spread, "values": values}
    return summary


Pair = tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]


def _folds(config: TrainConfig, data: TableData) -> Iterator[Pair]:
    count = len(data.train)
    if config.folds * 2 > count:
        raise DataError(
            "E503", f"{count} training rows are too few for {config.folds} folds", cure="--folds 2"
        )
    order = torch.randperm(count, generator=generator(config.seed, "folds")).numpy()
    if data.classes:  # every class in every fold, as far as it goes round
        order = order[np.argsort(data.train.y.numpy()[order], kind="stable")]
    for number in range(config.folds):
        held = np.sort(order[number :: config.folds])
        yield np.setdiff1d(np.arange(count), held), held


def preflight(config: TrainConfig, data: TableData, solution: Solution) -> list[Finding]:
    """Look at scales and shapes before the first step; `data.train` is scaled already."""
    found = list(data.findings)
    rows, columns = data.train.x.shape
    if columns >= rows:
        found.append(
            Finding(
                "G-L03",
                "warn",
                f"{columns} weights and {rows} training rows: some line fits the rows exactly, "
                "whatever they hold",
                "add --ridge 1 or more, or name fewer --features",
            )
        )
    if not config.standardise:
        found += _scale_finding(data)
    if solution.condition > CONDITION_LIMIT and config.settled_solver != "closed-form":
        found.append(
            Finding(
                "G-L02",
                "warn",
                f"the columns nearly repeat one another (condition number {solution.condition:.2g},"
                f" limit {CONDITION_LIMIT:.0e}): gradient descent will not reach the weights of "
                "the closed form",
                "use --solver closed-form, or add --ridge",
            )
        )
    return found


def _scale_finding(data: TableData) -> list[Finding]:
    deviations = data.train.x.std(0, correction=0)
    low, high = SCALE_LIMITS
    bad = [i for i, value in enumerate(deviations.tolist()) if not low <= value <= high]
    if not bad:
        return []
    worst = max(bad, key=lambda i: abs(float(deviations[i].clamp(min=1e-300).log())))
    message = (
        f"{len(bad)} of {len(data.names)} features are unscaled: {data.names[worst]} has the "
        f"deviation {float(deviations[worst]):.3g} (usual {low:g} to {high:g}); one learning rate "
        "suits no two scales, and small features hardly learn"
    )
    return [Finding("G-L01", "warn", message, "leave --no-standardise out")]


def check_spread(found: dict[str, Any]) -> list[Finding]:
    """Warn when predictions hardly vary where the target does, but the fit claims to be done."""
    share = found["prediction_std"] / found["target_std"] if found.get("target_std") else 1.0
    if share >= LEAST_SPREAD:
        return []
    message = (
        f"the predictions vary {share:.3f} times as much as the target (limit {LEAST_SPREAD}): "
        "the model answers little more than the mean"
    )
    return [Finding("G-L04", "warn", message, "train longer, or look for better features")]
