"""How good predictions are: each figure with its interval, its sample size and a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dltool import metrics
from dltool.errors import DataError
from dltool_linreg.model import paired

Z = NormalDist().inv_cdf((1 + metrics.CONFIDENCE) / 2)


def regression(predicted: Tensor, y: Tensor, mean: float) -> dict[str, Any]:
    """Return R², RMSE and MAE of predictions (N,) for targets (N,).

    The intervals are normal approximations from the spread of each row's share in the figure
    (the delta method); with one row there is none. `baseline_rmse` is that of always answering
    `mean`, the mean of the training rows; R² is 1 − mean squared error / variance of y.

    Raises:
        DataError: E503 without a row, E506 when the shapes differ.
    """
    n = len(y)
    if n == 0:
        raise DataError("E503", "no row was evaluated", received="0 rows")
    error = paired(predicted, y) - y
    squares, centred = error.square(), (y - y.mean()).square()
    mse, variance = float(squares.mean()), float(centred.mean())
    mae, mae_reach = float(error.abs().mean()), _reach(error.abs())
    low, high = (_root(mse - (_reach(squares) or 0)), _root(mse + (_reach(squares) or 0)))
    result: dict[str, Any] = {
        "n": n,
        "rmse": _figure(math.sqrt(mse), *((low, high) if n > 1 else (None, None))),
        "mae": _around(mae, mae_reach),
        "r2": _figure(None, None, None),
        "baseline_rmse": math.sqrt(float((y - mean).square().mean())),
        "prediction_std": float(predicted.std(correction=0)),
        "target_std": math.sqrt(variance),
    }
    if variance > 0:
        r2 = 1 - mse / variance
        reach = _reach((squares - (1 - r2) * centred) / variance)
        result["r2"] = _around(r2, reach, most=1.0)
    return result


def _reach(values: Tensor) -> float | None:
    """Return half the width of the interval of a mean."""
    if len(values) < 2:
        return None
    return Z * float(values.std()) / math.sqrt(len(values))


def _root(value: float) -> float:
    return math.sqrt(max(value, 0.0))


def _figure(value: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def _around(value: float, reach: float | None, most: float = math.inf) -> dict[str, Any]:
    if reach is None:
        return _figure(value, None, None)
    return _figure(value, value - reach, min(value + reach, most))


def classification(scores: Tensor, y: Tensor, num_classes: int) -> dict[str, Any]:
    """Return accuracy, mean cross-entropy and the confusion matrix.

    Args:
        scores: logits (N,) of the second of two classes, or (N, C).
        y: (N,) class numbers.
    """
    if scores.dim() == 1:
        scores = torch.stack([torch.zeros_like(scores), scores], 1)  # (N, 2), the same odds
    matrix = metrics.confusion(scores.argmax(1), y, num_classes)
    losses = F.cross_entropy(scores, y, reduction="none")
    score = metrics.accuracy_score(matrix)
    return {
        "n": len(y),
        "accuracy": {**score.as_dict(), "text": score.text()},
        "log_loss": _around(float(losses.mean()), _reach(losses)),
        "chance_log_loss": math.log(num_classes),
        "confusion": matrix.tolist(),
    }


def text(found: Mapping[str, Any], unit: str = "") -> str:
    """Return the figures as lines for people."""
    if "accuracy" in found:
        return (
            f"accuracy  {found['accuracy']['text']}\n"
            f"log loss  {_shown(found['log_loss'])}; an even guess {found['chance_log_loss']:.4f}"
        )
    lines = [f"R2    {_shown(found['r2'])}, n = {found['n']:,}"]
    lines.append(
        f"RMSE  {_shown(found['rmse'])}; always answering the mean: {found['baseline_rmse']:.6g}"
    )
    lines.append(f"MAE   {_shown(found['mae'])}{unit}")
    return "\n".join(lines)


def _shown(figure: Mapping[str, float | None]) -> str:
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return "undefined: the target does not vary"
    interval = "" if low is None else f" (95 % interval {low:.6g} to {high:.6g})"
    return f"{value:.6g}{interval}"
