"""Optimizers, parameter groups and schedules by name: what topics must not do differently."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from dltool.errors import ConfigError
from dltool.muon import Muon

SGD_MOMENTUM = 0.9
# where `step` multiplies the rate by a tenth, as shares of all steps (He et al., 2015)
STEPS_AT = (0.5, 0.75)
PLATEAU_FACTOR = 0.3
PLATEAU_PATIENCE = 2


def build(name: str, groups: list[dict[str, Any]], learning_rate: float) -> Optimizer:
    """Build an optimizer by name: `adamw`, `sgd` with Nesterov momentum 0.9, or `muon`.

    Args:
        groups: parameter groups; one with an "lr" keeps it.

    Raises:
        ConfigError: E206, another name.
    """
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=SGD_MOMENTUM, nesterov=True)
    if name == "muon":
        return Muon(groups, lr=learning_rate)
    raise ConfigError("E206", f"unknown optimizer {name!r}", expected="adamw, sgd or muon")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Put matrices and kernels into a group with weight decay, biases and norms in one without."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in trained if parameter.ndim > 1]
    others = [parameter for parameter in trained if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def rate_factor(kind: str, step: int, total: int, warmup: float = 0.3) -> float:
    """Return the learning rate at `step` of `total` as a share of its peak.

    `one-cycle` rises along a cosine from 1/25 over the first `warmup` share and falls along one
    to 1/250,000 (Smith and Topin, 2018, in torch's `OneCycleLR` form); `cosine` falls from 1 to 0
    (Loshchilov and Hutter, 2017); `step` falls to a tenth after half and again after three quarters
    of the steps; `constant` stays.

    Raises:
        ConfigError: another kind.
    """
    if kind == "constant":
        return 1.0
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0)))
    if kind == "step":
        return float(0.1 ** sum(step >= share * total for share in STEPS_AT))
    if kind != "one-cycle":
        raise ConfigError(
            "E206",
            f"unknown schedule {kind!r}",
            expected="one-cycle, cosine, step, plateau or constant",
        )
    low, end, peak = 1 / 25, 1 / 250_000, max(warmup * total - 1, 1e-9)
    if step <= peak:
        return _cosine(low, 1.0, step / peak)
    return _cosine(1.0, end, min((step - peak) / max(total - 1 - peak, 1e-9), 1.0))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def schedule(
    optimizer: Optimizer, kind: str, total: int, mode: str = "max"
) -> LambdaLR | ReduceLROnPlateau:
    """Return a scheduler that follows `rate_factor` over `total` optimizer steps.

    `plateau` looks at the monitored value instead and multiplies the rate by 0.3 after two epochs
    that were not better; `mode` says whether better is "max" or "min".

    Raises:
        ConfigError: E206, another kind.
    """
    if kind == "plateau":
        return ReduceLROnPlateau(
            optimizer,
            mode=mode,  # type: ignore[arg-type]  # "min" or "max"
            factor=PLATEAU_FACTOR,
            patience=PLATEAU_PATIENCE,
        )
    rate_factor(kind, 0, 1)
    return LambdaLR(optimizer, lambda step: rate_factor(kind, step, total))


def refuse_closures(optimizer: Optimizer) -> None:
    """Refuse an optimizer that evaluates the loss itself, as LBFGS does.

    Raises:
        ConfigError: E206, naming it.
    """
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        name = type(optimizer).__name__
        raise ConfigError(
            "E206",
            f"{name} evaluates the loss several times a step and cannot train batch by batch",
            cure="use AdamW or SGD",
        )


def step_scaled(optimizer: Optimizer, scaler: torch.amp.GradScaler, factor: float) -> None:
    """Make the optimizer's step with every learning rate multiplied by `factor`.

    The rates themselves stay as the scheduler left them.
    """
    if factor == 1.0:
        scaler.step(optimizer)
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    try:
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor
        scaler.step(optimizer)
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


@contextmanager
def without_order_warning() -> Iterator[None]:
    """Keep torch from warning that a scheduler moved before the optimizer: its step was skipped."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        yield
