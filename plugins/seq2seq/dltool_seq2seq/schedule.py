"""Learning rates that rise first: a Transformer's early steps are too wild for the full rate."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def rate_factor(kind: str, step: int, total: int, warmup: float) -> float:
    """Return the learning rate at `step` (from 0) of `total` as a share of its peak.

    All kinds rise in a line over the first `warmup` share of the steps. `cosine` and `linear` fall
    to 0 at the end, `inverse-sqrt` falls with 1/√step (Vaswani et al., 2017, section 5.3),
    `constant` stays.
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    share = min((step - rising) / max(total - rising, 1), 1.0)
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    if kind == "linear":
        return 1 - share
    return math.sqrt(max(rising, 1) / (step + 1)) if kind == "inverse-sqrt" else 1.0


def schedule(optimizer: Optimizer, kind: str, total: int, warmup: float) -> LambdaLR:
    """Return a scheduler that follows `rate_factor`."""
    return LambdaLR(optimizer, lambda step: rate_factor(kind, step, total, warmup))
