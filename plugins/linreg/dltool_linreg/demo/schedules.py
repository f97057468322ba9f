"""Every scheduler of torch, drawn by running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler

from dltool import optim
from dltool.console import Console, table
from dltool.drawing import BLUE, DPI, INK, PALE, check_name, drawing, save
from dltool_linreg.demo.optimizers import chosen

STALLS = 30  # the epoch after which the loss that Plateau watches falls no more
COLUMNS = 4

# every base rate is 1, so that the picture shows factors
MAKERS: dict[str, Callable[[Optimizer, int], Any]] = {
    "Step": lambda o, n: lr_scheduler.StepLR(o, step_size=30, gamma=0.1),
    "MultiStep": lambda o, n: lr_scheduler.MultiStepLR(o, milestones=[30, 80], gamma=0.1),
    "Exponential": lambda o, n: lr_scheduler.ExponentialLR(o, gamma=0.9),
    "Lambda": lambda o, n: lr_scheduler.LambdaLR(o, lambda epoch: 0.65**epoch),
    "CosineAnnealing": lambda o, n: lr_scheduler.CosineAnnealingLR(o, T_max=50),
    "CosineWarmRestarts": lambda o, n: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=25),
    "Plateau": lambda o, n: lr_scheduler.ReduceLROnPlateau(o, factor=0.1, patience=10),
    "Linear": lambda o, n: lr_scheduler.LinearLR(o, 0.1, 1.0, total_iters=20),
    "Polynomial": lambda o, n: lr_scheduler.PolynomialLR(o, total_iters=n, power=2.0),
    "Cyclic": lambda o, n: lr_scheduler.CyclicLR(o, 0.1, 1.0, step_size_up=12, mode="triangular2"),
    "OneCycle": lambda o, n: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=n),
    "dltool one-cycle": lambda o, n: optim.schedule(o, "one-cycle", n),
}


def follow(make: Callable[[Optimizer, int], Any], epochs: int) -> list[float]:
    """Return the learning rate in every epoch, of an optimizer that starts at 1."""
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    scheduler = make(optimizer, epochs)
    rates = []
    for epoch in range(epochs):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        weight.grad = torch.zeros(1)
        optimizer.step()
        if epoch == epochs - 1:
            break  # some schedules refuse a step beyond their last
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(1 / (1 + min(epoch, STALLS)))
        else:
            scheduler.step()
    return rates


def run_schedules(names: str, epochs: int, path: Path, console: Console) -> None:
    """Run every schedule, print some of its rates and draw them all."""
    check_name(path)
    wanted = chosen(names, MAKERS, "--names")
    followed = {name: follow(MAKERS[name], epochs) for name in wanted}
    marks = sorted({0, epochs // 4, epochs // 2, 3 * epochs // 4, epochs - 1})
    cells = [[name, *(f"{rates[mark]:.3g}" for mark in marks)] for name, rates in followed.items()]
    _draw(followed, path)
    text = table(cells, ("schedule", *(f"epoch {mark}" for mark in marks)))
    if "Plateau" in followed:
        text += f"\nPlateau watches a loss that stalls after epoch {STALLS}"
    console.result({"rates": followed, "plot": str(path)}, f"{text}\n{path}")


def _draw(followed: Mapping[str, Sequence[float]], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(COLUMNS, len(followed))
    rows = -(-len(followed) // columns)
    with drawing():
        layout = ConstrainedLayoutEngine()
        made = Figure(figsize=(2.6 * columns, 1.7 * rows + 0.3), dpi=DPI, layout=layout)
        panels = made.subplots(rows, columns, squeeze=False, sharex=True).ravel()
        for axes, (name, rates) in zip(panels, followed.items(), strict=False):
            axes.plot(rates, color=BLUE)
            axes.set_title(name, fontsize=10, color=INK)
            axes.set_ylim(-0.05, 1.08)
            axes.grid(True, color=PALE, linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
        for axes in panels[len(followed) :]:
            axes.set_visible(False)
        made.supxlabel("epoch", fontsize=10)
        made.supylabel("learning rate", fontsize=10)
        save(made, path)
