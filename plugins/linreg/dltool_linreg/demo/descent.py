"""Gradient descent watched step by step: paths, the learning rate, the batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dltool.console import Console, table
from dltool.device import generator
from dltool.drawing import GREY, INK, RED, check_name, drawing, save
from dltool.errors import ConfigError
from dltool_linreg.pictures import COLORS, figure, log_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLAT = 1e-3  # a gradient below this share of the first one is taken for zero
VALLEY = 10.0


def numbers(text: str, option: str) -> list[float]:
    """Return comma-separated numbers.

    Raises:
        ConfigError: E202, there is none, or one is no finite number.
    """
    try:
        values = [float(word) for word in text.split(",") if word.strip()]
    except ValueError:
        values = []
    if not values or not all(math.isfinite(value) for value in values):
        raise ConfigError(
            "E202", f"{option} is not understood", received=text, expected="such as 0.01,0.1"
        )
    return values


@dataclass(frozen=True)
class Trail:
    """One descent: points (S + 1, D), values and gradient norms, and a word on how it went."""

    rate: float
    points: list[list[float]]
    values: list[float]
    gradients: list[float]

    @property
    def verdict(self) -> str:
        """Say whether the descent arrived; "it looks flat" is not asked."""
        if len(self.points) < 2:
            return "not moved"
        last, first = self.gradients[-1], self.gradients[0]
        if not math.isfinite(self.values[-1]) or max(map(abs, self.points[-1])) > 1e3:
            return "diverges"
        if last <= FLAT * max(first, 1.0):
            return "converged" + (", swinging to and fro" if self.turns > 0.5 else "")
        if self.values[-1] > self.values[0] and last > first:
            return "diverges"
        if self.turns > 0.5:
            return "oscillates: lower the rate"
        return "not converged: more steps, or a higher rate"

    @property
    def turns(self) -> float:
        """The share of steps that go back over the one before, where it swings most."""
        moves = np.diff(np.array(self.points), axis=0)
        if len(moves) < 2:
            return 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            return float((moves[1:] * moves[:-1] < 0).mean(0).max())


def descend(
    function: Callable[[Tensor], Tensor],
    start: Sequence[float],
    rate: float,
    steps: int,
    momentum: float = 0.0,
) -> Trail:
    """Step against the gradient: v ← momentum·v − rate·gradient, x ← x + v."""
    x = torch.tensor(start, dtype=torch.float64)
    velocity = torch.zeros_like(x)
    points, values, gradients = [], [], []
    for step in range(steps + 1):
        x = x.detach().requires_grad_()
        value = function(x)
        (slope,) = torch.autograd.grad(value, x)
        points.append(x.tolist())
        values.append(float(value.detach()))
        gradients.append(float(slope.norm()))
        if step == steps or not bool(slope.isfinite().all()):
            break
        velocity = momentum * velocity - rate * slope
        x = x + velocity
    return Trail(rate, points, values, gradients)


def wave(x: Tensor) -> Tensor:
    """x·cos(πx): a minimum in every wave, none of them the lowest of all."""
    return (x * torch.cos(math.pi * x)).sum()


def bowl(x: Tensor) -> Tensor:
    """(x² + 10y²)/2: rates above 2/10 diverge along y, and what suits y is slow along x."""
    return 0.5 * (x[0] ** 2 + VALLEY * x[1] ** 2)


FUNCTIONS = {"wave": (wave, "0.01,0.1,0.5"), "bowl": (bowl, "0.02,0.1,0.18,0.205")}


def run_descent(
    name: str,
    x0: float,
    rates: str,
    momentum: float,
    steps: int,
    path: Path,
    console: Console,
) -> None:
    """Descend at every rate, judge each path, draw them all."""
    if name not in FUNCTIONS:
        raise ConfigError("E206", f"--function {name!r} is not known", expected="wave or bowl")
    check_name(path)
    function, usual = FUNCTIONS[name]
    start = [x0] if name == "wave" else [x0, x0 / 2]
    trails = [
        descend(function, start, rate, steps, momentum) for rate in numbers(rates or usual, "--lr")
    ]
    _draw_descent(name, function, trails, path)
    rows = [_row(trail) for trail in trails]
    lines = [table([_cells(row) for row in rows], ("rate", "end", "value", "gradient", "verdict"))]
    if name == "bowl":
        lines.append(f"plain descent converges below 2 / largest curvature = {2 / VALLEY:g}")
    else:
        lines.append("each converged end is a local minimum: this function has no lowest one")
    result = {"function": name, "x0": start, "steps": steps, "paths": rows, "plot": str(path)}
    console.result(result, "\n".join([*lines, str(path)]))


def _row(trail: Trail) -> dict[str, Any]:
    return {
        "rate": trail.rate,
        "end": trail.points[-1],
        "value": trail.values[-1],
        "gradient": trail.gradients[-1],
        "verdict": trail.verdict,
        "points": trail.points,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    end = ", ".join(f"{value:.5g}" for value in row["end"])
    figures = [f"{row[key]:.4g}" for key in ("value", "gradient")]
    return [f"{row['rate']:g}", end, *figures, row["verdict"]]


def _draw_descent(
    name: str, function: Callable[[Tensor], Tensor], trails: Sequence[Trail], path: Path
) -> None:
    with drawing():
        title = "gradient descent on x·cos(πx)" if name == "wave" else "a valley: (x² + 10y²)/2"
        made, (left, right) = figure(9.6, 4.0, 2, title)
        (_draw_wave if name == "wave" else _draw_bowl)(left, function, trails)
        for trail, color in zip(trails, COLORS * len(trails), strict=False):
            label = f"{trail.rate:g}: {trail.verdict.split(':')[0]}"
            right.plot(trail.values, color=color, marker=".", markersize=4, label=label)
        right.set_xlabel("step")
        right.set_ylabel("value")
        finite = [v for trail in trails for v in trail.values if math.isfinite(v)]
        if max(finite) > 1e3 * max(abs(trails[0].values[0]), 1e-9):
            log_scale(right)
        right.legend(frameon=False, fontsize=9)
        save(made, path)


def _draw_wave(axes: Axes, function: Callable[[Tensor], Tensor], trails: Sequence[Trail]) -> None:
    inside = [p[0] for trail in trails for p in trail.points if abs(p[0]) < 10]
    grid = np.linspace(min(inside) - 0.5, max(inside) + 0.5, 500)
    axes.plot(grid, grid * np.cos(np.pi * grid), color=GREY, linewidth=1.2)
    low, high = axes.get_ylim()
    for trail, color in zip(trails, COLORS * len(trails), strict=False):
        xs = [point[0] for point in trail.points]
        axes.plot(xs, trail.values, color=color, marker="o", markersize=4, linewidth=0.8)
        axes.plot(xs[-1:], trail.values[-1:], "*", color=color, markersize=13)
    axes.set_xlim(grid[0], grid[-1])
    axes.set_ylim(low, high)
    axes.set_xlabel("x (stars: where each path ends)")


def _draw_bowl(axes: Axes, function: Callable[[Tensor], Tensor], trails: Sequence[Trail]) -> None:
    reach = 1.25 * max(abs(value) for value in trails[0].points[0]) or 1.0
    x, y = np.meshgrid(np.linspace(-reach, reach, 120), np.linspace(-reach, reach, 120))
    axes.contour(x, y, 0.5 * (x**2 + VALLEY * y**2), levels=12, colors=[GREY], linewidths=0.6)
    for trail, color in zip(trails, COLORS * len(trails), strict=False):
        xs, ys = zip(*trail.points, strict=True)
        axes.plot(xs, ys, color=color, marker=".", markersize=5, linewidth=0.9)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_xlabel("x")
    axes.set_ylabel("y")


def run_sweep(path: Path, console: Console) -> None:
    """Print and draw the loss of y = w·x for candidate weights on three points of y = 2x."""
    check_name(path)
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    candidates = [step / 10 for step in range(0, 41, 5)]
    losses = [float(((weight - 2) * x).square().mean()) for weight in candidates]
    with drawing():
        made, (axes,) = figure(5.2, 3.7, 1, "mean squared error of y = w·x on points of y = 2x")
        fine = np.linspace(0, 4, 200)
        axes.plot(fine, float(x.square().mean()) * (fine - 2) ** 2, color=GREY, linewidth=1)
        axes.plot(candidates, losses, "o", color=COLORS[0])
        axes.axvline(2, color=RED, linestyle=":", linewidth=1)
        axes.set_xlabel("weight w")
        axes.set_ylabel("loss")
        save(made, path)
    rows = [[f"{w:.1f}", f"{loss:.4f}"] for w, loss in zip(candidates, losses, strict=True)]
    best = candidates[losses.index(min(losses))]
    result = {"weights": candidates, "losses": losses, "best": best, "plot": str(path)}
    console.result(result, table(rows, ("w", "loss")) + f"\nbest: w = {best:g}\n{path}")


def run_batches(
    sizes: str, rate: float, epochs: int, seed: int, path: Path, console: Console
) -> None:
    """Descend on one regression with several batch sizes and draw the paths of the weights."""
    check_name(path)
    rows = 256
    stream = generator(seed, "batches")
    x = torch.randn(rows, 2, dtype=torch.float64, generator=stream)
    y = x @ torch.tensor([2.0, -3.4], dtype=torch.float64)
    y += torch.randn(rows, dtype=torch.float64, generator=stream)
    best = torch.linalg.lstsq(x, y[:, None]).solution.squeeze(1)
    found = []
    for word in sizes.split(","):
        text = word.strip()
        if text != "all" and not (text.isdigit() and 0 < int(text) <= rows):
            raise ConfigError(
                "E202", "--sizes is not understood", received=text, expected=f"1 to {rows}, or all"
            )
        size = rows if text == "all" else int(text)
        found.append(_one_size(x, y, best, text, size, rate, epochs, seed))
    _draw_batches(found, best, path)
    cells = [
        [row["batch"], str(row["steps"]), f"{row['distance']:.2e}", f"{row['wobble']:.2e}"]
        for row in found
    ]
    header = ("batch", "steps", "distance to minimum", "mean move in the last pass")
    text = f"{epochs} passes over {rows} rows at rate {rate:g}\n{table(cells, header)}\n{path}"
    shown = [{key: row[key] for key in row if key != "path"} for row in found]
    console.result({"rate": rate, "epochs": epochs, "sizes": shown, "plot": str(path)}, text)


def _one_size(
    x: Tensor, y: Tensor, best: Tensor, label: str, size: int, rate: float, epochs: int, seed: int
) -> dict[str, Any]:
    weight = torch.zeros(2, dtype=torch.float64)
    trail = [weight.tolist()]
    for epoch in range(epochs):
        order = torch.randperm(len(y), generator=generator(seed, "order", epoch))
        for rows in order.split(size):
            error = x[rows] @ weight - y[rows]
            weight = weight - rate * x[rows].T @ error / len(rows)
            trail.append(weight.tolist())
    in_pass = math.ceil(len(y) / size)
    last = np.diff(np.array(trail[-in_pass - 1 :]), axis=0)
    return {
        "batch": label,
        "steps": len(trail) - 1,
        "distance": float((weight - best).norm()),
        "wobble": float(np.linalg.norm(last, axis=1).mean()),
        "end": weight.tolist(),
        "path": trail,
    }


def _draw_batches(found: Sequence[dict[str, Any]], best: Tensor, path: Path) -> None:
    with drawing():
        made, (left, right) = figure(9.6, 4.0, 2, "the same rate, other batch sizes")
        for row, color in zip(found, COLORS * len(found), strict=False):
            points = np.array(row["path"])
            away = np.linalg.norm(points - best.numpy(), axis=1)
            left.plot(*points.T, color=color, linewidth=0.9, label=f"batch {row['batch']}")
            passes = np.linspace(0, 1, len(away))
            right.plot(passes, away, color=color, linewidth=0.9)
        left.plot(*best.tolist(), marker="*", color=INK, markersize=13, linestyle="")
        left.set_xlabel("first weight (star: the minimum)")
        left.set_ylabel("second weight")
        left.legend(frameon=False)
        log_scale(right)
        right.set_xlabel("share of the passes")
        right.set_ylabel("distance to the minimum")
        save(made, path)
