"""What linear models do not show: dropout, and signals that vanish or explode with depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltool.console import Console, table
from dltool.device import derive_seed, generator
from dltool.drawing import BLUE, GREY, INK, RED, check_name, drawing, save
from dltool.errors import ConfigError
from dltool_linreg.demo.descent import numbers
from dltool_linreg.pictures import COLORS, figure, log_scale

POINTS, NOISE, UNITS = 40, 0.4, 128
EVERY = 25


def _sine(count: int, seed: int, part: str) -> tuple[Tensor, Tensor]:
    stream = generator(seed, "dropout", part)
    x = 6 * torch.rand(count, 1, generator=stream) - 3
    return x, torch.sin(2 * x) + NOISE * torch.randn(count, 1, generator=stream)


def run_dropout(shares: str, steps: int, seed: int, path: Path, console: Console) -> None:
    """Train the same network with each share; print and draw errors and fitted curves."""
    check_name(path)
    values = numbers(shares, "--dropout")
    if min(values) < 0 or max(values) > 0.95:
        raise ConfigError(
            "E202", "--dropout is out of range", received=shares, expected="0 to 0.95"
        )
    with torch.random.fork_rng(devices=[]):
        rows = [train_dropped(share, steps, seed) for share in values]
    _draw_dropout(rows, seed, path)
    cells = [
        [f"{row['dropout']:g}", f"{row['train']:.4f}", f"{row['new']:.4f}", f"{row['gap']:.2f}"]
        for row in rows
    ]
    header = ("dropout", f"MSE on {POINTS} points", "on 1,000 new ones", "ratio")
    text = (
        f"sin 2x with noise (mean square {NOISE**2:.2f}, the floor), a network of {UNITS} and "
        f"{UNITS} units, {steps} steps\n{table(cells, header)}\n"
        "errors are measured with dropout switched off (evaluation mode)\n"
        f"{path}"
    )
    shown = [{key: row[key] for key in ("dropout", "train", "new", "gap")} for row in rows]
    console.result({"steps": steps, "floor": NOISE**2, "runs": shown, "plot": str(path)}, text)


def train_dropped(share: float, steps: int, seed: int) -> dict[str, Any]:
    """Train one network with Adam; return errors on its points and on new ones, and its curve."""
    x, y = _sine(POINTS, seed, "train")
    new_x, new_y = _sine(1000, seed, "new")
    torch.manual_seed(derive_seed(seed, "network"))
    model = nn.Sequential(
        nn.Linear(1, UNITS),
        nn.ReLU(),
        nn.Dropout(share),
        nn.Linear(UNITS, UNITS),
        nn.ReLU(),
        nn.Dropout(share),
        nn.Linear(UNITS, 1),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    train, new = [], []
    for step in range(steps):
        model.train()
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        if step % EVERY == EVERY - 1 or step == steps - 1:
            model.eval()
            with torch.no_grad():
                train.append(float((model(x) - y).square().mean()))
                new.append(float((model(new_x) - new_y).square().mean()))
    model.eval()
    grid = torch.linspace(-3, 3, 300)[:, None]
    with torch.no_grad():
        curve = model(grid).squeeze(1).tolist()
    return {
        "dropout": share,
        "train": train[-1],
        "new": new[-1],
        "gap": new[-1] / max(train[-1], 1e-12),
        "train_curve": train,
        "new_curve": new,
        "grid": grid.squeeze(1).tolist(),
        "curve": curve,
    }


def _draw_dropout(rows: Sequence[Mapping[str, Any]], seed: int, path: Path) -> None:
    x, y = _sine(POINTS, seed, "train")
    with drawing():
        made, (left, right) = figure(9.6, 4.0, 2, "a network that is too large for its points")
        left.plot(x.squeeze(1), y.squeeze(1), "o", color=INK, markersize=4)
        for row, color in zip(rows, COLORS * len(rows), strict=False):
            label = f"dropout {row['dropout']:g}"
            left.plot(row["grid"], row["curve"], color=color, label=label)
            steps = [EVERY * (place + 1) for place in range(len(row["new_curve"]))]
            right.plot(steps, row["new_curve"], color=color)
            right.plot(steps, row["train_curve"], "--", color=color, linewidth=1)
        left.set_xlabel("x")
        left.legend(frameon=False, fontsize=9)
        right.axhline(NOISE**2, color=GREY, linestyle=":", linewidth=1)
        right.set_xlabel("step (dashed: on the points; dotted: noise)")
        right.set_ylabel("mean squared error")
        save(made, path)


# ---- initialisation --------------------------------------------------------------------------

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
}
# the deviation of a weight, from the width of the layer (n in, n out)
STARTS: dict[str, tuple[str, Callable[[int], float]]] = {
    "small": ("N(0, 0.01²)", lambda n: 0.01),
    "unit": ("N(0, 1)", lambda n: 1.0),
    "torch": ("torch's nn.Linear: 1/√(3n)", lambda n: 1 / math.sqrt(3 * n)),
    "Xavier": ("Xavier (2010): 1/√n", lambda n: 1 / math.sqrt(n)),
    "He": ("He (2015): √(2/n)", lambda n: math.sqrt(2 / n)),
}
ALIVE = (1e-3, 1e3)


def run_initialisation(
    activation: str, depth: int, width: int, seed: int, path: Path, console: Console
) -> None:
    """Send one batch forward and a gradient back; print and draw their size layer by layer."""
    check_name(path)
    if activation not in ACTIVATIONS:
        raise ConfigError(
            "E206",
            f"--activation {activation!r} is not known",
            expected=", ".join(ACTIVATIONS),
        )
    rows = [
        {"start": name, "rule": rule, **signals(activation, deviation(width), depth, width, seed)}
        for name, (rule, deviation) in STARTS.items()
    ]
    _draw_signals(rows, activation, path)
    cells = [
        [row["rule"], f"{row['forward'][-1]:.2e}", f"{row['backward'][0]:.2e}", row["verdict"]]
        for row in rows
    ]
    header = ("weights", f"signal after {depth} layers", "gradient at the first", "verdict")
    text = (
        f"{activation}, {depth} layers of {width} units; deviations, the input's and the last "
        f"gradient's are 1\n{table(cells, header)}\n{path}"
    )
    console.result({"activation": activation, "starts": rows, "plot": str(path)}, text)


def signals(activation: str, deviation: float, depth: int, width: int, seed: int) -> dict[str, Any]:
    """Return the root mean square of the signal after, and of the gradient before, each layer."""
    stream = generator(seed, "signals")
    x = torch.randn(128, width, dtype=torch.float64, generator=stream).requires_grad_()
    layers = [x]
    for _ in range(depth):
        weight = deviation * torch.randn(width, width, dtype=torch.float64, generator=stream)
        layers.append(ACTIVATIONS[activation](layers[-1] @ weight))
    back = torch.randn(128, width, dtype=torch.float64, generator=stream)
    gradients = torch.autograd.grad(layers[-1], layers, back)
    forward = [_size(layer.detach()) for layer in layers[1:]]
    backward = [_size(gradient) for gradient in gradients[:-1]]
    return {"forward": forward, "backward": backward, "verdict": _verdict(forward, backward)}


def _size(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _verdict(forward: Sequence[float], backward: Sequence[float]) -> str:
    low, high = ALIVE
    signal, gradient = forward[-1], backward[0]
    if not math.isfinite(signal) or not math.isfinite(gradient) or max(signal, gradient) > high:
        return "explodes"
    if signal < low:
        return "vanishes"
    if gradient < low:
        return "the gradient vanishes"
    return "lives"


def _draw_signals(rows: Sequence[Mapping[str, Any]], activation: str, path: Path) -> None:
    with drawing():
        title = f"size of signal and gradient, layer by layer ({activation})"
        made, (left, right) = figure(9.6, 4.0, 2, title)
        for row, color in zip(rows, COLORS, strict=False):
            places = range(1, len(row["forward"]) + 1)
            tiny = 1e-30
            left.plot(
                places, [max(v, tiny) for v in row["forward"]], color=color, label=row["start"]
            )
            right.plot(places, [max(v, tiny) for v in row["backward"]], color=color)
        for axes in (left, right):
            axes.axhspan(*ALIVE, color=BLUE, alpha=0.06)
            axes.axhline(1, color=RED, linewidth=0.8, linestyle=":")
            log_scale(axes)
            axes.set_ylim(1e-22, 1e22)
            axes.set_xlabel("layer")
        left.set_ylabel("signal after the layer")
        right.set_ylabel("gradient before the layer")
        left.legend(frameon=False, fontsize=9)
        save(made, path)
