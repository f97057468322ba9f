"""How far a classifier's confidence can be believed: bins of confidence, and the error over them.

Source: C. Guo et al., On Calibration of Modern Neural Networks (2017),
https://arxiv.org/abs/1706.04599.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from dltool.errors import ConfigError
from dltool.metrics import check_scores

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The samples whose highest probability lies in (low, high].

    `confidence` is the mean of that probability, `accuracy` the share of right answers; both are
    None without a sample.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def reliability(probabilities: Tensor, target: Tensor, bins: int = BINS) -> list[Bin]:
    """Sort answers by their confidence into `bins` bins of equal width, closed above.

    Args:
        probabilities: (N, C), rows that sum to 1.
        target: (N,) integer class numbers.

    Raises:
        DataError E506, ConfigError E202 (no probabilities, or bins < 1), DataError E503 for N = 0.
    """
    labels = check_scores(probabilities, target).cpu()
    if bins < 1:
        raise _out_of_range("the number of bins", bins, "at least 1")
    shares = probabilities.detach().cpu().double()
    # 0.02 leaves room for rows that were normalised in bfloat16
    if bool((shares < 0).any()) or bool(((shares.sum(1) - 1).abs() > 0.02).any()):
        largest = float(shares.sum(1).max())
        raise _out_of_range("a row of probabilities", f"sums up to {largest:.4g}", "≥ 0, sums of 1")
    confidence, answer = shares.max(1)
    index = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
    counts = torch.bincount(index, minlength=bins).tolist()
    empty = torch.zeros(bins, dtype=torch.float64)
    sure = empty.index_add(0, index, confidence).tolist()
    right = empty.index_add(0, index, (answer == labels).double()).tolist()
    return [
        Bin(
            place / bins,
            (place + 1) / bins,
            count,
            sure[place] / count if count else None,
            right[place] / count if count else None,
        )
        for place, count in enumerate(counts)
    ]


def expected_calibration_error(probabilities: Tensor, target: Tensor, bins: int = BINS) -> float:
    """Return how far confidence and accuracy are apart, 0 … 1, averaged over samples (eq. 3).

    The result depends on the number of bins. Arguments and errors are those of `reliability`.
    """
    return error_of(reliability(probabilities, target, bins))


def error_of(bins: list[Bin]) -> float:
    """Return the expected calibration error of bins: Σ count · |accuracy − confidence| / N."""
    total = sum(each.count for each in bins)
    return sum(
        each.count * abs(each.accuracy - each.confidence)
        for each in bins
        if each.accuracy is not None and each.confidence is not None
    ) / max(total, 1)


def _out_of_range(what: str, received: object, expected: str) -> ConfigError:
    return ConfigError("E202", f"{what} is out of range", received=received, expected=expected)
