"""The numbers of a run: what its result measured, and whether a high or a low one is good."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dltool.errors import ConfigError

HIGH = re.compile(
    "accuracy|acc|f1|fbeta|auc|auroc|ap|ap50|ap75|map|precision|recall|sensitivity|specificity|"
    "mcc|kappa|iou|miou|dice|bleu|chrf|rouge|meteor|r2|score|reward|return|correlation|pearson|"
    "spearman|similarity|purity|psnr|ssim|top1|top5|exact|hits|mrr|ndcg|likelihood"
)
LOW = re.compile(
    "loss|error|err|rmse|mse|mae|mape|nll|perplexity|ppl|bpc|bpb|cer|wer|ter|edits|distance|"
    "divergence|kl|fid|energy|seconds|time|latency|bytes|objective|crossentropy|entropy|logloss|"
    "brier|ece|regret"
)
DEEPEST = 3


@dataclass(frozen=True)
class Measured:
    """One number of a result, with what makes it honest where the topic gave it.

    Attributes:
        low, high: ends of its confidence interval.
        n: samples that it was measured on.
        baseline: what needs no learning.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    baseline: float | None = None

    def text(self) -> str:
        """Return the number with its interval, sample size and baseline."""
        details = []
        if self.low is not None and self.high is not None:
            details.append(f"95 % interval {short(self.low)} to {short(self.high)}")
        if self.n is not None:
            details.append(f"n = {self.n:,}")
        if self.baseline is not None:
            details.append(f"baseline {short(self.baseline)}")
        return short(self.value) + (f" ({', '.join(details)})" if details else "")


def flat(result: Any, path: str = "", depth: int = 0) -> dict[str, Measured]:
    """Return the numbers of a nested result by dotted name; texts and lists are left out."""
    found: dict[str, Measured] = {}
    if not isinstance(result, Mapping):
        return found
    for key, value in result.items():
        name = f"{path}.{key}" if path else str(key)
        if (number := _number(value)) is not None:
            found[name] = Measured(number)
        elif isinstance(value, Mapping) and (number := _number(value.get("value"))) is not None:
            # some topics tell them once, beside several numbers
            count = _number(value.get("n", result.get("n")))
            baseline = _number(value.get("baseline", result.get(f"baseline_{key}")))
            low, high = _number(value.get("low")), _number(value.get("high"))
            n = None if count is None else int(count)
            found[name] = Measured(number, low, high, n, baseline)
        elif depth < DEEPEST:
            found |= flat(value, name, depth + 1)
    return found


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def named(scores: Mapping[str, Measured], name: str) -> Measured | None:
    """Return the number of this name, or the only one whose dotted name ends with it."""
    if name in scores:
        return scores[name]
    ends = [key for key in scores if key.endswith(f".{name}")]
    return scores[ends[0]] if len(ends) == 1 else None


def higher_is_better(name: str) -> bool | None:
    """Tell from a metric's name whether a high value is good; None when it does not say."""
    if name.endswith("per_second"):
        return True
    for word in reversed(re.split(r"[^a-z0-9]+", name.lower())):
        if LOW.fullmatch(word):
            return False
        if HIGH.fullmatch(word):
            return True
    return None


def direction(name: str, *, minimise: bool = False, maximise: bool = False) -> bool:
    """Return whether a high value of the metric is good, from the options or its name.

    Raises:
        ConfigError: both were given, or the name does not say.
    """
    if minimise and maximise:
        raise ConfigError("E205", "--minimise and --maximise exclude each other")
    known = higher_is_better(name) if not minimise and not maximise else maximise
    if known is None:
        raise ConfigError(
            "E201",
            f"the name {name!r} does not tell whether a high or a low value is good",
            cure="add --maximise or --minimise",
        )
    return known


def default_metric(names: Iterable[str]) -> str | None:
    """Return the validation metric that chooses a model: one that is no loss, if there is one."""
    known = sorted(
        name for name in names if name.startswith("val_") and higher_is_better(name) is not None
    )
    first = ("val_accuracy", "val_exact_accuracy", "val_ap")
    good = [name for name in (*first, *known) if name in known and higher_is_better(name)]
    losses = [name for name in ("val_loss", *known) if name in known]
    return next(iter([*good, *losses]), None)


def summary(scores: Mapping[str, Measured]) -> str:
    """Return a result in a few words: what has an interval, or else what is clearly a score."""
    shown = [name for name, score in scores.items() if score.low is not None]
    shown = shown or [name for name, score in scores.items() if score.n is not None]
    shown = shown or [name for name in scores if higher_is_better(name) and "per_" not in name]
    told = {name.rpartition(".")[2]: scores[name].value for name in reversed(shown)}
    words = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in told.items()]
    return ", ".join(words[::-1][:3])


def short(value: Any) -> str:
    """Return a value for a table: numbers in at most five digits."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float) and value.is_integer() and abs(value) >= 10:
        return str(int(value))  # a count
    if isinstance(value, float):
        return f"{value:.4f}" if 0.001 <= abs(value) < 10 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
