"""Over- and under-fitting: the degree of a polynomial, and what weight decay is for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltool.console import Console, table
from dltool.device import generator
from dltool.drawing import BLUE, GREY, INK, RED, check_name, drawing, save
from dltool.errors import ConfigError
from dltool_linreg import solve
from dltool_linreg.demo.descent import numbers
from dltool_linreg.pictures import COLORS, figure, log_scale

REACH = 3.0
TEST_ROWS = 500


@dataclass(frozen=True)
class Powers:
    """A polynomial fitted to standardised powers of x; raw ones would be ill-conditioned."""

    degree: int
    mean: Tensor
    scale: Tensor
    solution: solve.Solution

    def __call__(self, x: Tensor) -> Tensor:
        """Return values (N,) at x (N,)."""
        z = (_powers(x, self.degree) - self.mean) / self.scale
        return z @ self.solution.weight[0] + self.solution.bias[0]


def _powers(x: Tensor, degree: int) -> Tensor:
    return torch.stack([x**power for power in range(1, degree + 1)], 1)


def fit_powers(x: Tensor, y: Tensor, degree: int, ridge: float) -> Powers:
    """Fit a polynomial by least squares, with a ridge on the standardised powers."""
    raw = _powers(x, degree)
    mean, scale = raw.mean(0), raw.std(0, correction=0)
    solution = solve.least_squares((raw - mean) / scale, y, ridge)
    return Powers(degree, mean, scale, solution)


def _points(count: int, noise: float, seed: int, part: str) -> tuple[Tensor, Tensor]:
    stream = generator(seed, "polynomial demo", part)
    x = REACH * (2 * torch.rand(count, dtype=torch.float64, generator=stream) - 1)
    y = (x + 1) ** 2 + noise * torch.randn(count, dtype=torch.float64, generator=stream)
    return x, y


def run_polynomial(
    degrees: str,
    samples: int,
    noise: float,
    ridge: float,
    seed: int,
    path: Path,
    console: Console,
) -> None:
    """Fit every degree; print and draw the errors on the points and on new ones."""
    check_name(path)
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", degrees.strip())
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= low <= high <= 30:
        raise ConfigError(
            "E202", "--degrees is not understood", received=degrees, expected="such as 1-12"
        )
    x, y = _points(samples, noise, seed, "train")
    new_x, new_y = _points(TEST_ROWS, noise, seed, "new")
    fits = [fit_powers(x, y, degree, ridge) for degree in range(low, high + 1)]
    rows: list[dict[str, Any]] = [
        {"degree": fit.degree, "train": _rmse(fit(x), y), "new": _rmse(fit(new_x), new_y)}
        for fit in fits
    ]
    best = min(rows, key=lambda row: row["new"])["degree"]
    for row in rows:
        row["verdict"] = _judge(row, best, rows)
    _draw_polynomial(fits, rows, int(best), (x, y), noise, path)
    cells = [
        [str(row["degree"]), f"{row['train']:.4g}", f"{row['new']:.4g}", row["verdict"]]
        for row in rows
    ]
    header = ("degree", "RMSE on the points", f"on {TEST_ROWS} new ones", "")
    text = (
        f"y = (x + 1)² with noise {noise:g} (no model can do better), {samples} points\n"
        f"{table(cells, header)}\n{path}"
    )
    result = {"samples": samples, "noise": noise, "degrees": rows, "best": best, "plot": str(path)}
    console.result(result, text)


def _rmse(predicted: Tensor, y: Tensor) -> float:
    return math.sqrt(float((predicted - y).square().mean()))


def _judge(row: dict[str, Any], best: float, rows: Sequence[dict[str, Any]]) -> str:
    if row["degree"] == best:
        return "best on new points"
    least = min(other["new"] for other in rows)
    if row["new"] <= 1.1 * least:
        return "as good, within a tenth"
    return "under-fits" if row["degree"] < best else "over-fits"


def _draw_polynomial(
    fits: Sequence[Powers],
    rows: Sequence[dict[str, Any]],
    best: int,
    points: tuple[Tensor, Tensor],
    noise: float,
    path: Path,
) -> None:
    shown = {fits[0].degree: fits[0], fits[-1].degree: fits[-1]}
    shown[best] = next(fit for fit in fits if fit.degree == best)
    grid = torch.linspace(-REACH, REACH, 400, dtype=torch.float64)
    with drawing():
        made, (left, right) = figure(9.6, 4.0, 2, "too stiff, right, and too free")
        left.plot(*points, "o", color=INK, markersize=5)
        for (degree, fit), color in zip(sorted(shown.items()), COLORS, strict=False):
            left.plot(grid, fit(grid), color=color, label=f"degree {degree}")
        low, high = float(points[1].min()), float(points[1].max())
        left.set_ylim(low - 0.3 * (high - low), high + 0.3 * (high - low))
        left.set_xlabel("x")
        left.legend(frameon=False)
        degrees = [row["degree"] for row in rows]
        train = [max(row["train"], 1e-12) for row in rows]
        right.plot(degrees, train, "--", color=RED, marker="o", label="on the points")
        right.plot(
            degrees, [row["new"] for row in rows], color=BLUE, marker="o", label="new points"
        )
        if noise:
            right.axhline(noise, color=GREY, linestyle=":", label="noise")
        log_scale(right)
        right.set_xlabel("degree")
        right.set_ylabel("RMSE")
        right.legend(frameon=False)
        save(made, path)


# ---- weight decay ----------------------------------------------------------------------------

INPUTS, FEW, BATCH, RATE = 200, 20, 5, 0.003


def run_weight_decay(strengths: str, epochs: int, seed: int, path: Path, console: Console) -> None:
    """Train 200 weights on 20 rows with each penalty; print and draw both errors."""
    check_name(path)
    values = numbers(strengths, "--lambda")
    if min(values) < 0 or max(values) > 100:
        raise ConfigError(
            "E202", "--lambda is out of range", received=strengths, expected="0 to 100"
        )
    rows = [train_decayed(strength, epochs, seed) for strength in values]
    _draw_decay(rows, path)
    cells = [
        [f"{row['lambda']:g}", *(f"{row[key]:.4g}" for key in ("train", "test", "norm"))]
        for row in rows
    ]
    header = ("λ", "½ MSE on 20 rows", "on 100 new rows", "‖w‖")
    text = (
        "y = 0.05 + 0.01 Σ x + noise 0.01; the weights start at N(0, 1), ‖w‖ near 14\n"
        f"{table(cells, header)}\n"
        "loss = ½ mean error² + λ/2 ‖w‖²; without the ½ the same λ is half as strong\n"
        f"{path}"
    )
    console.result({"epochs": epochs, "runs": rows, "plot": str(path)}, text)


def train_decayed(strength: float, epochs: int, seed: int) -> dict[str, Any]:
    """Descend with weight decay on the weights, not on the bias."""
    stream = generator(seed, "weight decay")
    x = torch.randn(FEW + 100, INPUTS, dtype=torch.float64, generator=stream)
    y = 0.05 + 0.01 * x.sum(1)
    y += 0.01 * torch.randn(len(y), dtype=torch.float64, generator=stream)
    weight = torch.randn(INPUTS, dtype=torch.float64, generator=stream)
    bias = torch.zeros((), dtype=torch.float64)
    train, test = [], []
    for epoch in range(epochs):
        order = torch.randperm(FEW, generator=generator(seed, "order", epoch))
        for rows in order.split(BATCH):
            error = x[rows] @ weight + bias - y[rows]
            weight = weight - RATE * (x[rows].T @ error / len(rows) + strength * weight)
            bias = bias - RATE * error.mean()
        losses = (x @ weight + bias - y).square() / 2
        train.append(float(losses[:FEW].mean()))
        test.append(float(losses[FEW:].mean()))
    return {
        "lambda": strength,
        "train": train[-1],
        "test": test[-1],
        "norm": float(weight.norm()),
        "train_curve": train,
        "test_curve": test,
    }


def _draw_decay(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with drawing():
        made, panels = figure(3.4 * len(rows) + 1, 3.6, len(rows), "200 weights, 20 rows")
        lows = [min(*row["train_curve"], *row["test_curve"]) for row in rows]
        highs = [max(*row["train_curve"], *row["test_curve"]) for row in rows]
        for axes, row in zip(panels, rows, strict=True):
            epochs = np.arange(1, len(row["train_curve"]) + 1)
            axes.plot(epochs, row["train_curve"], "--", color=RED, label="training rows")
            axes.plot(epochs, row["test_curve"], color=BLUE, label="new rows")
            log_scale(axes)
            axes.set_ylim(max(min(lows), 1e-10) / 2, 2 * max(highs))
            axes.set_title(f"λ = {row['lambda']:g}", fontsize=11, color=INK)
            axes.set_xlabel("epoch")
        panels[0].set_ylabel("½ mean squared error")
        panels[0].legend(frameon=False, fontsize=9)
        save(made, path)
