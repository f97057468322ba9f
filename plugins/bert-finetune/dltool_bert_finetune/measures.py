"""How good answers are: by class, by rank, by confidence; with interval and baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dltool import calibration, metrics
from dltool_bert_finetune.targets import Targets


def of(logits: Tensor, values: Tensor, targets: Targets) -> dict[str, Any]:
    """Return all measures of a task.

    Args:
        logits: (N, C) as the network gives them; for regression (N, 1) in the labels' own units.
        values: as `Targets.encode` gives them.
    """
    if targets.task == "regress":
        return regression(logits[:, 0], values)
    if targets.task == "multilabel":
        return multilabel(logits, values, targets.classes)
    return classification(logits, values, targets.classes)


def classification(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return accuracy with interval and baseline, macro F1, MCC, AUC, calibration, confusion.

    Args:
        logits: (N, C). labels: (N,) class numbers.
    """
    matrix = metrics.confusion(logits.argmax(1), labels, len(classes))
    shares = logits.double().softmax(1)
    report = metrics.class_report(matrix, classes)
    return {
        "accuracy": metrics.accuracy_score(matrix).as_dict(),
        "macro_f1": metrics.macro_average(report)["f1"],
        "mcc": matthews(matrix),
        "auc": auc(shares, labels),
        "calibration_error": calibration.expected_calibration_error(shares, labels),
        "loss": metrics.negative_log_likelihood(logits, labels),
        "classes": report,
        "confusion": matrix.tolist(),
    }


def matthews(matrix: Tensor) -> float | None:
    """Return Gorodkin's R_K, Matthews' coefficient for C classes; None where it is undefined.

    Source: J. Gorodkin, Computational Biology and Chemistry 28 (2004) 367-374.
    """
    counts = matrix.double()
    total, hits = counts.sum(), counts.diagonal().sum()
    true, predicted = counts.sum(1), counts.sum(0)
    above = hits * total - (true * predicted).sum()
    below = (total**2 - (predicted**2).sum()) * (total**2 - (true**2).sum())
    return float(above / below.sqrt()) if below > 0 else None


def auc(shares: Tensor, labels: Tensor) -> float | None:
    """Return the area under the ROC curve: of class 1, or the mean of each class against the rest.

    It is the share of pairs of a positive and a negative sample that are in the right order, ties
    counting half; None where a class has no sample or no other.
    """
    classes = range(1, 2) if shares.shape[1] == 2 else range(shares.shape[1])
    values = [_rank_auc(shares[:, number], labels == number) for number in classes]
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def _rank_auc(scores: Tensor, positive: Tensor) -> float | None:
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return None
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    upper = counts.cumsum(0).double()
    ranks = (upper - (counts.double() - 1) / 2)[inverse]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def multilabel(logits: Tensor, values: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return exact matches, micro and macro F1 and the measures of each class, at probability 0.5.

    Args:
        logits: (N, C). values: (N, C) of 0 and 1.
    """
    said, true = logits > 0, values > 0.5
    hits, predicted, support = (said & true).sum(0), said.sum(0), true.sum(0)
    report: list[dict[str, Any]] = []
    for number, name in enumerate(classes):
        found, all_said, all_true = (int(part[number]) for part in (hits, predicted, support))
        low, high = metrics.wilson(found, all_true) if all_true else (None, None)
        report.append(
            {
                "class": name,
                "precision": found / all_said if all_said else None,
                "recall": found / all_true if all_true else None,
                "recall_low": low,
                "recall_high": high,
                "f1": 2 * found / (all_said + all_true) if all_said + all_true else None,
                "support": all_true,
            }
        )
    known = [float(row["f1"]) for row in report if row["f1"] is not None]
    commonest = int(true.unique(dim=0, return_counts=True)[1].max()) / len(true)
    exact = int((said == true).all(1).sum())
    return {
        "accuracy": metrics.Score.from_counts(exact, len(true), commonest).as_dict(),
        "micro_f1": float(2 * hits.sum() / max(int(predicted.sum() + support.sum()), 1)),
        "macro_f1": math.fsum(known) / len(known) if known else None,
        "loss": float(F.binary_cross_entropy_with_logits(logits.double(), values.double())),
        "classes": report,
    }


def regression(predicted: Tensor, values: Tensor) -> dict[str, Any]:
    """Return RMSE, MAE with interval, R², both correlations; the baseline answers with the mean.

    Args:
        predicted: (N,). values: (N,), in the same units.
    """
    a, b = predicted.double(), values.double()
    errors = (a - b).abs()
    mean, low, high = metrics.mean_interval(errors.tolist())
    spread = float((b - b.mean()).square().mean())
    squared = float((a - b).square().mean())
    return {
        "mae": {"value": mean, "n": len(b), "low": low, "high": high}
        | {"confidence": metrics.CONFIDENCE, "baseline": float((b - b.mean()).abs().mean())},
        "rmse": math.sqrt(squared),
        "rmse_baseline": math.sqrt(spread),
        "r2": 1 - squared / spread if spread else None,
        "pearson": _correlation(a, b),
        "spearman": _correlation(_ranks(a), _ranks(b)),
        "loss": squared,
    }


def _correlation(a: Tensor, b: Tensor) -> float | None:
    a, b = a - a.mean(), b - b.mean()
    below = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / below if below else None


def _ranks(values: Tensor) -> Tensor:
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    ranks: Tensor = (counts.cumsum(0).double() - (counts.double() - 1) / 2)[inverse]
    return ranks


def text(found: dict[str, Any], targets: Targets) -> str:
    """Return measures as lines for people."""
    if targets.task == "regress":
        mae = found["mae"]
        interval = f"{mae['low']:.4g}–{mae['high']:.4g}" if mae["low"] is not None else "–"
        return (
            f"mean absolute error {mae['value']:.4g} (95 % interval {interval}, n = {mae['n']:,}; "
            f"answering with the mean {mae['baseline']:.4g})\n"
            f"RMSE {found['rmse']:.4g} (the mean: {found['rmse_baseline']:.4g}), "
            f"R² {_shown(found['r2'])}, Pearson {_shown(found['pearson'])}, "
            f"Spearman {_shown(found['spearman'])}"
        )
    accuracy = metrics.Score(**{k: v for k, v in found["accuracy"].items() if k != "confidence"})
    if targets.task == "multilabel":
        return (
            f"all labels right {accuracy.text()}\n"
            f"micro F1 {found['micro_f1']:.4f}, macro F1 {_shown(found['macro_f1'])}"
        )
    return (
        f"accuracy {accuracy.text()}\n"
        f"macro F1 {_shown(found['macro_f1'])}, MCC {_shown(found['mcc'])}, "
        f"AUC {_shown(found['auc'])}, calibration error {found['calibration_error']:.4f}"
    )


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def headline(found: dict[str, Any], targets: Targets) -> str:
    """Return the first line of `text`."""
    return text(found, targets).split("\n")[0]


def losses(logits: Tensor, values: Tensor, targets: Targets) -> Tensor:
    """Return how wrong the answer to each text is (N,)."""
    if targets.task == "regress":
        return (logits[:, 0] - values).square()
    if targets.task == "multilabel":
        return F.binary_cross_entropy_with_logits(logits, values, reduction="none").mean(1)
    return F.cross_entropy(logits, values, reduction="none")


def validation(logits: Tensor, values: Tensor, targets: Targets) -> dict[str, float]:
    """Return what an epoch reports and what the best epoch is chosen by."""
    loss = float(
        losses(
            logits.double(), values.double() if values.is_floating_point() else values, targets
        ).mean()
    )
    if targets.task == "regress":
        return {"val_loss": loss}
    found = of(logits, values, targets)
    return {
        "val_loss": loss,
        "val_accuracy": float(found["accuracy"]["value"]),
        "val_macro_f1": float(found["macro_f1"] or 0.0),
    }


def probabilities(logits: Tensor, targets: Targets) -> Tensor:
    """Return probabilities (N, C); for numbers and answers what the network gives, as it is."""
    if targets.task in ("regress", "qa"):
        return logits
    return logits.sigmoid() if targets.task == "multilabel" else logits.softmax(1)
