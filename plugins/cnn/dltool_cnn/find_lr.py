"""The learning-rate range test (Smith, 2015, https://arxiv.org/abs/1506.01186).

The rate grows by a constant factor from step to step while the loss is watched. A good peak is
where the loss falls steeply, well before it is lowest; afterwards everything is put back.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from dltool.data.resident import Resident, Streamed
from dltool.drawing import BLUE, DPI, INK, PALE, RED, drawing, heading, save
from dltool.errors import DataError
from dltool.guards.classifier import untouched
from dltool_cnn.model import Classifier

LOWEST, HIGHEST = 1e-6, 10.0
STEPS = 120
SMOOTHING = 0.9
# beyond this many times the lowest loss the training has left its valley
BLOWN_UP = 3.0
# the loss is lowest where the rate is about to be too high: a peak lies a good deal below
BELOW_LOWEST = 5.0


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw.

    Attributes:
        rates: one a step, rising.
        losses: smoothed, one a step.
        suggested: a peak rate for the whole training.
    """

    rates: list[float]
    losses: list[float]
    suggested: float


def range_test(
    model: Classifier,
    optimizer: Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Resident | Streamed,
) -> RangeTest:
    """Train for some steps with a rising rate, and leave everything as it was.

    Args:
        loss: takes images and labels of a batch, returns the scalar that is trained on.

    Raises:
        DataError: E503, the loss was not finite from the first step on.
    """
    kept = copy.deepcopy(optimizer.state_dict())
    with untouched(model):
        model.train()
        try:
            rates, losses = _climb(model, optimizer, loss, batches)
        finally:
            optimizer.load_state_dict(kept)
            optimizer.zero_grad(set_to_none=True)
    if len(losses) < 2:
        raise DataError("E503", "the loss is not finite, whatever the learning rate")
    lowest = min(range(len(losses)), key=losses.__getitem__)
    return RangeTest(rates, losses, _round(rates[lowest] / BELOW_LOWEST))


def _climb(
    model: Classifier,
    optimizer: Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Resident | Streamed,
) -> tuple[list[float], list[float]]:
    # groups keep their proportions; the first is measured
    shares = [group["lr"] / optimizer.param_groups[0]["lr"] for group in optimizer.param_groups]
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for step, (images, labels) in enumerate(itertools.islice(_endless(batches), STEPS)):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = rate * share
        value = loss(images, labels)
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value.item()
        smooth = mean / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(smooth) or (losses and smooth > BLOWN_UP * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
    return rates, losses


def _endless(batches: Resident | Streamed) -> Iterator[Any]:
    for epoch in itertools.count():
        yield from batches.batches(epoch)


def _round(rate: float) -> float:
    """Keep two digits: more would claim what the test cannot tell."""
    return float(f"{rate:.1e}")


def draw(found: RangeTest, used: float, path: Path) -> None:
    """Draw the loss over the rate, with the suggested rate and the one that is used."""
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(6.4, 3.9), dpi=DPI, layout="constrained")
        figure.suptitle(heading("learning-rate range test", 6.4), fontsize=12.5, color=INK)
        axes = figure.subplots()
        axes.grid(True, color=PALE, linewidth=0.8)
        axes.plot(found.rates, found.losses, color=BLUE)
        axes.set_xscale("log")
        axes.set_xticks([10.0**power for power in range(-6, 2)])
        axes.set_xticklabels([f"{10.0**power:g}" for power in range(-6, 2)])
        axes.axvline(found.suggested, color=RED, label=f"suggested {found.suggested:g}")
        if used != found.suggested:
            axes.axvline(used, color=INK, linestyle=":", label=f"used {used:g}")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss, smoothed")
        axes.legend(frameon=False)
        save(
            figure,
            path,
            title="learning-rate range test",
            description="The training loss while the learning rate grew from step to step.",
        )
