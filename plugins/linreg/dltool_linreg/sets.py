"""The sets that ship: seeded generators with known weights, and tables inside scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dltool.device import generator
from dltool_linreg.config import TrainConfig


@dataclass(frozen=True)
class Truth:
    """What made a synthetic set: weights (F,), bias, and the noise's standard deviation."""

    weights: tuple[float, ...]
    bias: float
    noise: float


@dataclass(frozen=True)
class BuiltIn:
    """A set in memory: x (N, F) float64, y (N,) float64 or class numbers."""

    x: Tensor
    y: Tensor
    names: tuple[str, ...]
    target: str
    classes: tuple[str, ...] = ()
    truth: Truth | None = None


def load(config: TrainConfig) -> BuiltIn:
    """Return the built-in set that the config names."""
    makers = {"synthetic": synthetic, "polynomial": polynomial, "hours": hours}
    if config.data in makers:
        return makers[config.data](config)
    return _from_sklearn(config.data)


def synthetic(config: TrainConfig) -> BuiltIn:
    """Draw x ~ N(0, feature_std²), y = x·w + b + N(0, noise²); every row has its own noise.

    For logistic and softmax the class is drawn from the probabilities of those logits; softmax
    takes weights of its own for three classes: w, 0 and -w.
    """
    weights = torch.tensor(config.true_weights, dtype=torch.float64)
    stream = generator(config.seed, "synthetic")
    x = config.feature_std * torch.randn(
        config.samples, len(weights), dtype=torch.float64, generator=stream
    )
    score = x @ weights + config.true_b  # (N,)
    names = tuple(f"x{place + 1}" for place in range(len(weights)))
    truth = Truth(config.true_weights, config.true_b, config.noise)
    if config.task == "regression":
        noise = config.noise * torch.randn(config.samples, dtype=torch.float64, generator=stream)
        return BuiltIn(x, score + noise, names, "y", truth=truth)
    if config.task == "logistic":
        chance = torch.rand(config.samples, dtype=torch.float64, generator=stream)
        labels = (chance < score.sigmoid()).long()
        return BuiltIn(x, labels, names, "y", ("no", "yes"), truth)
    shares = torch.stack([score, torch.zeros_like(score), -score], 1).softmax(1)  # (N, 3)
    labels = torch.multinomial(shares, 1, generator=stream).squeeze(1)
    return BuiltIn(x, labels, names, "y", ("plus", "zero", "minus"))


def polynomial(config: TrainConfig) -> BuiltIn:
    """Draw x uniform in [-3, 3) and y = (x + 1)² + N(0, noise²); the features are powers of x."""
    stream = generator(config.seed, "polynomial")
    x = 6 * torch.rand(config.samples, dtype=torch.float64, generator=stream) - 3
    noise = config.noise * torch.randn(config.samples, dtype=torch.float64, generator=stream)
    powers = torch.stack([x**power for power in range(1, config.degree + 1)], 1)
    names = tuple("x" if p == 1 else f"x^{p}" for p in range(1, config.degree + 1))
    known = (2.0, 1.0, *[0.0] * (config.degree - 2))
    truth = Truth(known, 1.0, config.noise) if config.degree >= 2 else None
    return BuiltIn(powers, (x + 1) ** 2 + noise, names, "y", truth=truth)


def hours(config: TrainConfig) -> BuiltIn:
    """Three students who studied 1, 2 and 3 hours; only the last passed."""
    x = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    return BuiltIn(x, torch.tensor([0, 0, 1]), ("hours",), "passed", ("failed", "passed"))


def _from_sklearn(name: str) -> BuiltIn:
    from sklearn import datasets

    if name == "diabetes":
        # as measured, not the copy that scikit-learn scaled over all rows at once
        found = datasets.load_diabetes(scaled=False)
        y = torch.tensor(found.target, dtype=torch.float64)
        columns = tuple(found.feature_names)
        return BuiltIn(torch.tensor(found.data, dtype=torch.float64), y, columns, "progression")
    found = datasets.load_iris() if name == "iris" else datasets.load_breast_cancer()
    return BuiltIn(
        torch.tensor(found.data, dtype=torch.float64),
        torch.tensor(found.target),
        tuple(str(column) for column in found.feature_names),
        "species" if name == "iris" else "tumour",
        tuple(str(label) for label in found.target_names),
    )
