"""A multilayer perceptron from the plane to one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
}


@dataclass(frozen=True)
class Spec:
    """What builds a network.

    Attributes:
        hidden: widths of the hidden layers; none makes the model linear.
        loss: what it is trained with; it decides what the output means.
    """

    hidden: tuple[int, ...] = (4,)
    activation: str = "tanh"
    loss: str = "cross-entropy"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spec:
        """Rebuild a spec from JSON values."""
        return cls(**{**values, "hidden": tuple(values["hidden"])})

    @property
    def name(self) -> str:
        """The network in the usual notation, such as 2-9-5-1."""
        return "-".join(str(width) for width in (2, *self.hidden, 1))


class Mlp(nn.Module):
    """Standardise a point and send it through the layers.

    Mean and deviation of the training points are buffers, so no one can use the model with others.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Spec, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", mean.clone())  # (2,)
        self.register_buffer("std", std.clone())
        widths = (2, *spec.hidden, 1)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.activation = ACTIVATIONS[spec.activation]()

    def forward(self, points: Tensor) -> Tensor:
        """Return the output (B,) for points (B, 2): class 1 where it is above 0."""
        x = (points - self.mean) / self.std
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))  # (B, width)
        output: Tensor = self.layers[-1](x).squeeze(1)
        return output

    def hidden_units(self, points: Tensor) -> list[Tensor]:
        """Return what every hidden layer gives, (B, width) each."""
        x = (points - self.mean) / self.std
        found = []
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
            found.append(x)
        return found


class TwoLogits(nn.Module):
    """Show a network of one output as a classifier of two classes.

    The softmax over (0, z) is the logistic function of z, so the cross-entropy is the same.
    """

    def __init__(self, network: Mlp) -> None:
        super().__init__()
        self.network = network

    def forward(self, points: Tensor) -> Tensor:
        """Return logits (B, 2)."""
        z = self.network(points)
        return torch.stack([torch.zeros_like(z), z], 1)


def build(spec: Spec, init: str, stream: torch.Generator, points: Tensor | None = None) -> Mlp:
    """Build a network with fresh weights.

    Args:
        init: a name of `config.INITS`.
        stream: draws the weights, on the CPU.
        points: (N, 2) training points, whose mean and deviation the network takes; without them
            it takes points as they are.
    """
    if points is None:
        network = Mlp(spec, torch.zeros(2), torch.ones(2))
    else:
        # a coordinate that never changes is left alone
        std = points.std(0, correction=0)
        network = Mlp(spec, points.mean(0), torch.where(std > 0, std, 1.0))
    for layer in network.layers:
        assert isinstance(layer, nn.Linear)
        _initialise(layer, spec.activation, init, stream)
    return network


def _initialise(layer: nn.Linear, activation: str, init: str, stream: torch.Generator) -> None:
    rectified = activation in ("relu", "gelu")
    kind = ("kaiming" if rectified else "xavier") if init == "auto" else init
    deviation = {
        "xavier": (2 / (layer.in_features + layer.out_features)) ** 0.5,
        "kaiming": (2 / layer.in_features) ** 0.5,
        "normal": 1.0,
        "small": 0.01,
        "constant": 0.0,
    }[kind]
    with torch.no_grad():
        layer.weight.normal_(0.5 if kind == "constant" else 0.0, deviation, generator=stream)
        layer.bias.zero_()


def loss_of(kind: str, output: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Return the loss of outputs (B,) for labels (B,) of 0 and 1.

    `cross-entropy` takes the output as the logit of class 1. `mse` compares it with -1 and 1.

    Raises:
        ValueError: the shapes differ; (B, 1) against (B,) would silently compare all with all.
    """
    if output.shape != labels.shape:
        raise ValueError(f"output {tuple(output.shape)} and labels {tuple(labels.shape)} differ")
    target = labels.to(output.dtype)
    if kind == "mse":
        return F.mse_loss(output, 2 * target - 1, reduction=reduction)
    return F.binary_cross_entropy_with_logits(output, target, reduction=reduction)


def values_of(kind: str, output: Tensor) -> Tensor:
    """Return outputs (B,) on the scale where the classes are -1 and 1.

    A logit z becomes 2p - 1 = tanh(z / 2), with p the probability of class 1.
    """
    return output if kind == "mse" else torch.tanh(output / 2)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
