"""Torch's optimizers side by side on one least-squares problem whose minimum is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dltool.console import Console, table
from dltool.device import generator
from dltool.drawing import check_name, drawing, save
from dltool.errors import ConfigError, closest
from dltool_linreg.pictures import COLORS, figure, log_scale

ROWS, WEIGHTS, SPREAD = 400, 20, 10.0
FLOOR = 1e-12
Maker = Callable[[list[Tensor]], Optimizer]

# a rate for each that suits this problem; momentum is told beside its share
MAKERS: dict[str, Maker] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "SGD momentum 0.5": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.5),
    "SGD momentum 0.9": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "SGD momentum 0.99": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.99),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.01, t0=10),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=1.0),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.05),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.3),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.3, weight_decay=0.0),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.3),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
    "LBFGS": lambda p: torch.optim.LBFGS(p, max_iter=1, max_eval=25, line_search_fn="strong_wolfe"),
}


def problem(seed: int) -> tuple[Tensor, Tensor, float]:
    """Return x (400, 20) with deviations from 1/√10 to √10, y (400,), and the least loss."""
    stream = generator(seed, "optimizers")
    scale = torch.logspace(-0.5, 0.5, WEIGHTS, base=SPREAD, dtype=torch.float64)
    x = scale * torch.randn(ROWS, WEIGHTS, dtype=torch.float64, generator=stream)
    y = x @ torch.randn(WEIGHTS, dtype=torch.float64, generator=stream)
    y += 0.1 * torch.randn(ROWS, dtype=torch.float64, generator=stream)
    best = torch.linalg.lstsq(x, y[:, None]).solution.squeeze(1)
    return x, y, float((x @ best - y).square().mean() / 2)


def follow(make: Maker, x: Tensor, y: Tensor, steps: int) -> list[float]:
    """Return the loss ½ mean error² before every step and after the last."""
    weight = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
    optimizer = make([weight])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (x @ weight - y).square().mean() / 2
        loss.backward()
        return loss

    losses = [float(closure().detach())]
    for _ in range(steps):
        optimizer.step(closure)  # type: ignore[arg-type]  # LBFGS asks for it several times
        losses.append(float(closure().detach()))
        if isinstance(optimizer, torch.optim.ASGD):  # what it learns is the average of its path
            averaged = optimizer.state[weight]["ax"]
            losses[-1] = float((x @ averaged - y).square().mean() / 2)
    return losses


def chosen(names: str, known: Mapping[str, Any], option: str) -> list[str]:
    """Return the known names that a comma-separated text asks for; all for an empty one.

    Raises:
        ConfigError: E206, a name is not known.
    """
    lower = {name.lower(): name for name in known}
    wanted = [word.strip().lower() for word in names.split(",") if word.strip()]
    for word in wanted:
        if word not in lower:
            near = closest(word, lower)
            raise ConfigError(
                "E206",
                f"{option} {word!r} is not known",
                expected=", ".join(known),
                cure=f"did you mean {lower[near]!r}?" if near else "choose one of these",
            )
    return [lower[word] for word in wanted] or list(known)


def run_optimizers(names: str, steps: int, seed: int, path: Path, console: Console) -> None:
    """Run each optimizer from the same start; print and draw the distance to the least loss."""
    check_name(path)
    x, y, least = problem(seed)
    followed = {
        name: [max(loss - least, FLOOR) for loss in follow(MAKERS[name], x, y, steps)]
        for name in chosen(names, MAKERS, "--names")
    }
    rows = sorted(followed.items(), key=lambda item: item[1][-1])
    cells = [[name, f"{above[-1]:.2e}", _first_below(above)] for name, above in rows]
    _draw(followed, path)
    first = next(iter(followed.values()))[0]
    text = (
        f"loss above its minimum {least:.5g} after {steps} steps, from {first:.4g}\n"
        f"{table(cells, ('optimizer', 'above', 'steps to 1e-6 of the start'))}\n"
        "LBFGS looks along its direction: one of its steps costs several evaluations\n"
        f"{path}"
    )
    result = {"least": least, "steps": steps, "above": followed, "plot": str(path)}
    console.result(result, text)


def _first_below(above: Sequence[float]) -> str:
    found = [step for step, value in enumerate(above) if value <= 1e-6 * above[0]]
    return str(found[0]) if found else "not reached"


def _draw(followed: Mapping[str, Sequence[float]], path: Path) -> None:
    with drawing():
        made, (axes,) = figure(7.6, 4.6, 1, "the same problem, the same start")
        for number, (name, above) in enumerate(followed.items()):
            dashes = ("-", "--", ":")[number // len(COLORS) % 3]
            axes.plot(above, dashes, color=COLORS[number % len(COLORS)], label=name)
        log_scale(axes)
        axes.set_xlabel("step")
        axes.set_ylabel("loss − least loss")
        axes.legend(frameon=False, fontsize=9, ncols=1, loc="center left", bbox_to_anchor=(1, 0.5))
        save(made, path, cut=True)
