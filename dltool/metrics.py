"""Metrics that come with their sample size, their interval and a baseline.

Counts come from one confusion matrix, so that no figure depends on how the samples were batched.
A quantity that the data leaves undefined is `None`, never 0 or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from dltool.console import table
from dltool.errors import ConfigError, DataError, Diverged

CONFIDENCE = 0.95
AVERAGED = ("precision", "recall", "f1")


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion.

    Without a sample (`n` = 0) nothing is known: (0, 1). Raises ConfigError E202 unless
    0 ≤ successes ≤ n. Source: E. B. Wilson, JASA 22 (1927) 209–212.
    """
    _check_confidence(confidence)
    if not 0 <= successes <= n:
        raise _out_of_range("a count", f"{successes} of {n}", "0 ≤ successes ≤ n")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # the ends are exactly 0 and 1 there; rounding would leave them a hair inside
    low = 0.0 if successes == 0 else centre - reach
    high = 1.0 if successes == n else centre + reach
    return low, high


def mean_interval(
    values: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float | None, float | None]:
    """Return the mean of independent values and its Student-t interval.

    One value has no spread: its interval is (None, None). Raises DataError E503 without a value and
    ConfigError E202 when one is not finite. Source: Student, Biometrika 6 (1908) 1–25.
    """
    _check_confidence(confidence)
    n = len(values)
    if n == 0:
        raise DataError("E503", "there is no value to average", expected="at least one")
    if not all(math.isfinite(value) for value in values):
        raise _out_of_range("a value to average", list(values)[:10], "finite numbers")
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None, None
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    reach = float(stdtrit(n - 1, (1 + confidence) / 2)) * math.sqrt(variance / n)
    return mean, mean - reach, mean + reach


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise _out_of_range("the confidence", confidence, "0 < confidence < 1")


def _out_of_range(what: str, received: object, expected: str) -> ConfigError:
    return ConfigError("E202", f"{what} is out of range", received=received, expected=expected)


@dataclass(frozen=True)
class Score:
    """A proportion with its sample size `n`, its 95 % interval and its baseline.

    `baseline` is what the best answer that ignores the input reaches on the same samples.
    """

    value: float
    n: int
    low: float
    high: float
    baseline: float | None = None

    @classmethod
    def from_counts(cls, successes: int, n: int, baseline: float | None = None) -> Score:
        """Make the score of `successes` out of `n`; DataError E503 without a sample."""
        if n == 0:
            raise DataError("E503", "no sample was evaluated", received="0 samples")
        low, high = wilson(successes, n)
        return cls(successes / n, n, low, high, baseline)

    def text(self) -> str:
        """Return the score as one line for people."""
        details = (
            f"{100 * CONFIDENCE:.0f} % interval {self.low:.4f}–{self.high:.4f}, n = {self.n:,}"
        )
        if self.baseline is not None:
            details += f"; majority baseline {self.baseline:.4f}"
        return f"{self.value:.4f} ({details})"

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the score for `--json`."""
        return {
            "value": self.value,
            "n": self.n,
            "low": self.low,
            "high": self.high,
            "confidence": CONFIDENCE,
            "baseline": self.baseline,
        }


def confusion(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count the pairs of true and predicted class.

    Args:
        predicted: (N,) integer class numbers.
        target: (N,) integer class numbers; no broadcasting.
        num_classes: C; every class number lies in 0 … C-1.

    Returns:
        (C, C) int64 on the device of `target`: row = true class, column = predicted class.
        Matrices of several batches may be added.

    Raises:
        DataError E506: another shape, another type, or a class number out of range.
    """
    if predicted.shape != target.shape or target.dim() != 1:
        raise DataError(
            "E506",
            "predictions and labels do not pair up",
            received=f"shapes {tuple(predicted.shape)} and {tuple(target.shape)}",
            expected="two shapes (N,)",
        )
    if num_classes < 1:
        raise _out_of_range("the number of classes", num_classes, "at least 1")
    # int64 first: class numbers kept as uint8 would overflow in the product below
    rows = _class_numbers(target, num_classes, "label")
    columns = _class_numbers(predicted, num_classes, "prediction").to(rows.device)
    counts = torch.bincount(rows * num_classes + columns, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes)


def _class_numbers(values: Tensor, num_classes: int, what: str) -> Tensor:
    if values.is_floating_point() or values.is_complex():
        raise DataError(
            "E506", f"a {what} is not a class number", received=values.dtype, expected="integers"
        )
    numbers = values.detach().long()
    if numbers.numel() == 0:
        return numbers
    low, high = torch.stack(torch.aminmax(numbers)).tolist()
    if low < 0 or high >= num_classes:
        raise DataError(
            "E506",
            f"a {what} does not fit {num_classes} classes",
            received=low if low < 0 else high,
            expected=f"0 to {num_classes - 1}",
        )
    return numbers


def accuracy_score(confusion: Tensor) -> Score:
    """Return the accuracy of a (C, C) confusion matrix.

    The baseline always answers the commonest of the evaluated labels. Raises DataError E503 when
    the matrix is empty.
    """
    counts = confusion.cpu()
    n = int(counts.sum())
    baseline = int(counts.sum(1).max()) / n if n else None
    return Score.from_counts(int(counts.diagonal().sum()), n, baseline)


def class_report(confusion: Tensor, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of every class.

    Args:
        confusion: (C, C) counts, row = true class.
        classes: C names.

    Returns:
        One dict a class: class, precision, recall, recall_low, recall_high (95 %), f1, support.
        Precision of a class that was never predicted and recall of one without a sample are None.

    Raises:
        DataError E506: names and matrix differ in number.
    """
    if confusion.shape != (len(classes), len(classes)):
        raise DataError(
            "E506",
            "class names do not fit the confusion matrix",
            received=f"{len(classes)} names, matrix {tuple(confusion.shape)}",
        )
    counts = confusion.cpu()
    hits = counts.diagonal().tolist()
    predicted, support = counts.sum(0).tolist(), counts.sum(1).tolist()
    rows = zip(classes, hits, predicted, support, strict=True)
    return [_class_row(*row) for row in rows]


def _class_row(name: str, hits: int, predicted: int, support: int) -> dict[str, Any]:
    low, high = wilson(hits, support) if support else (None, None)
    return {
        "class": name,
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "recall_low": low,
        "recall_high": high,
        "f1": _ratio(2 * hits, predicted + support),
        "support": support,
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def macro_average(report: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the unweighted mean over the classes of a `class_report`.

    Each mean runs over the classes where its quantity is defined; `defined` tells over how many.
    """
    average: dict[str, Any] = {"class": "macro average"}
    defined = {}
    for key in AVERAGED:
        values = [row[key] for row in report if row[key] is not None]
        average[key] = math.fsum(values) / len(values) if values else None
        defined[key] = len(values)
    average["support"] = sum(row["support"] for row in report)
    return {**average, "classes": len(report), "defined": defined}


def text_report(confusion: Tensor, classes: Sequence[str]) -> str:
    """Return `class_report` and its macro average as a table for people."""
    report = class_report(confusion, classes)
    average = macro_average(report)
    rows = [_text_row(row) for row in [*report, average]]
    header = ("class", "precision", "recall", f"recall {CONFIDENCE:.0%}", "f1", "support")
    lines = [table(rows, header)]
    partial = {key: n for key, n in average["defined"].items() if n < len(report)}
    lines += [f"{key}: mean of the {n} classes that have one" for key, n in partial.items()]
    return "\n".join(lines)


def _text_row(row: Mapping[str, Any]) -> list[object]:
    low, high = row.get("recall_low"), row.get("recall_high")
    interval = "" if low is None or high is None else f"{low:.4f}–{high:.4f}"
    shares = ["–" if row[key] is None else f"{row[key]:.4f}" for key in AVERAGED]
    return [row["class"], *shares[:2], interval, shares[2], row["support"]]


def topk_accuracy(logits: Tensor, target: Tensor, k: int) -> Score:
    """Return the share of samples whose true class is among the `k` highest scores.

    Equal scores rank by class number, as argmax does, so k = 1 is the accuracy and a model that
    answers everything alike gains nothing. The baseline always answers the k commonest labels.

    Args:
        logits: (N, C) scores, raw or normalised.
        target: (N,) integer class numbers.
        k: 1 … C.

    Raises:
        DataError E506 for labels that do not fit, ConfigError E202 for k, Diverged E701 for
        rows without a finite highest score.
    """
    labels = check_scores(logits, target)
    num_classes = logits.shape[1]
    if not 1 <= k <= num_classes:
        raise _out_of_range("k", k, f"1 to {num_classes}")
    own = logits.gather(1, labels[:, None])
    earlier = torch.arange(num_classes, device=logits.device) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(1)
    commonest = torch.bincount(labels, minlength=num_classes).topk(k).values
    baseline = int(commonest.sum()) / len(labels)
    return Score.from_counts(int((rank < k).sum()), len(labels), baseline)


def negative_log_likelihood(logits: Tensor, target: Tensor) -> float:
    """Return the mean of -ln p(true class), in nats; an even guess over C classes gives ln C.

    It is infinite where a true class was given no probability at all.

    Args:
        logits: (N, C) raw scores or log-probabilities; the softmax is applied here, in float64.
        target: (N,) integer class numbers.

    Raises:
        DataError E506 for labels that do not fit, E503 for N = 0, Diverged E701 for rows without a
        finite highest score.
    """
    labels = check_scores(logits, target)
    scores = logits.detach().cpu().double()
    return float(torch.nn.functional.cross_entropy(scores, labels.cpu()))


def check_scores(scores: Tensor, target: Tensor) -> Tensor:
    """Return the labels as int64 on the device of the (N, C) scores.

    Raises:
        DataError E506 for labels that do not fit, E503 for N = 0, Diverged E701 for rows without a
        finite highest score.
    """
    if scores.dim() != 2 or scores.shape[1] == 0 or target.shape != scores.shape[:1]:
        raise DataError(
            "E506",
            "scores and labels do not pair up",
            received=f"shapes {tuple(scores.shape)} and {tuple(target.shape)}",
            expected="(N, C) and (N,)",
        )
    if len(scores) == 0:
        raise DataError("E503", "no sample was evaluated", received="0 samples")
    if not bool(scores.amax(1).isfinite().all()):
        raise Diverged("E701", "a score of the model is not finite", received="NaN or infinity")
    return _class_numbers(target, scores.shape[1], "label").to(scores.device)


@dataclass
class Mean:
    """Accumulate a mean over samples from means over batches of any size.

    The sum stays on the device of what is added, so adding never waits for the accelerator; `value`
    and `state` wait. Its type is float64 (float32 on MPS, which has no float64).
    """

    count: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, mean: Tensor | float, count: int) -> None:
        """Add a batch of `count` samples by its mean, a number or a tensor of one element."""
        if count < 0 or (isinstance(mean, Tensor) and mean.numel() != 1):
            raise ValueError(f"one mean over count ≥ 0 samples expected, got {mean!r}, {count}")
        if count == 0:
            return  # the mean of an empty batch is NaN and weighs nothing
        part: Tensor | float = mean
        if isinstance(mean, Tensor):
            self.total = self._sum_on(mean.device)
            part = mean.detach().reshape(()).to(self.total.dtype)
        # out of place: a sum that began under inference_mode can be continued outside
        self.total = self.total + part * count
        self.count += count

    def _sum_on(self, device: torch.device) -> Tensor:
        if self.total.device == device:
            return self.total
        dtype = torch.float32 if device.type == "mps" else torch.float64
        if self.count == 0:
            return torch.zeros((), dtype=dtype, device=device)  # a copy would wait for the device
        return self.total.to("cpu", dtype).to(device)

    @property
    def value(self) -> float:
        """The mean over all samples so far; DataError E503 before the first."""
        if self.count == 0:
            raise DataError("E503", "there is no sample to average", expected="at least one")
        return self.total.item() / self.count

    def state(self) -> dict[str, float | int]:
        """Return what `restore` needs to continue exactly here; fits into JSON."""
        return {"sum": self.total.item(), "count": self.count}

    def restore(self, state: Mapping[str, float | int]) -> None:
        """Continue from a `state`."""
        self.count = int(state["count"])
        self.total = torch.tensor(float(state["sum"]), dtype=torch.float64)
