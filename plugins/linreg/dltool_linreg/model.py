"""The linear model with its scales inside, and the `scratch` solver: every formula by hand.

Losses, for N training rows and standardised x and y:

    regression   mean (xw + b - y)²            + ridge / N · ‖w‖²
    logistic     mean ln(1 + e^s) - t·s        + ridge / 2N · ‖w‖²      s = xw + b, t in {0, 1}
    softmax      mean -ln softmax(s)[class]    + ridge / 2N · ‖W‖²

There is no ½ before the square: at equal rates its steps are twice those of the ½-form. With these
factors `ridge` is scikit-learn's `Ridge(alpha)` and the inverse of `LogisticRegression(C)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from dltool.errors import DataError


class LinearModel(nn.Module):
    """A linear layer between two scales: raw features in, predictions or logits out.

    Args:
        num_features: F.
        num_outputs: 1, or the number of classes for softmax.

    The buffers hold what the training rows gave: centre and scale of the features (F,), and of the
    target (a regression's only). Weights start at zero: the losses are convex.
    """

    center: Tensor
    scale: Tensor
    target_center: Tensor
    target_scale: Tensor

    def __init__(self, num_features: int, num_outputs: int = 1) -> None:
        super().__init__()
        self.head = nn.Linear(num_features, num_outputs, dtype=torch.float64)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("center", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(num_features, dtype=torch.float64))
        self.register_buffer("target_center", torch.zeros((), dtype=torch.float64))
        self.register_buffer("target_scale", torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Take raw features (N, F); return values (N,), logits (N,), or logits (N, C)."""
        return self.scores((x - self.center) / self.scale) * self.target_scale + self.target_center

    def scores(self, z: Tensor) -> Tensor:
        """Take standardised features (N, F); return (N,), or (N, C) for softmax."""
        scores: Tensor = self.head(z)
        return scores.squeeze(1) if self.head.out_features == 1 else scores

    def raw(self) -> tuple[Tensor, Tensor]:
        """Return weights (C, F) and biases (C,) for features and target in their own units."""
        weight = self.head.weight.detach() * self.target_scale / self.scale
        bias = self.head.bias.detach() * self.target_scale + self.target_center
        return weight, bias - weight @ self.center


def paired(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the predictions after checking that each has its target.

    (N, 1) against (N,) would broadcast to N × N and fit nothing, without an error.

    Raises:
        DataError: E506, the shapes differ.
    """
    if predicted.shape != target.shape:
        raise DataError(
            "E506",
            "predictions and targets do not pair up",
            received=f"{tuple(predicted.shape)} and {tuple(target.shape)}",
            expected="equal shapes",
        )
    return predicted


def bare_loss(scores: Tensor, y: Tensor, task: str) -> Tensor:
    """Return the mean loss of scores (N,) or (N, C) without the penalty."""
    if task == "regression":
        return F.mse_loss(paired(scores, y), y)
    if task == "logistic":
        target = y.to(scores.dtype)
        return F.binary_cross_entropy_with_logits(paired(scores, target), target)
    return F.cross_entropy(scores, y)


def penalty(weight: Tensor, ridge: float, rows: int, task: str) -> Tensor:
    """Return the penalty of the weights; `rows` are all training rows. The bias has none."""
    factor = ridge / rows if task == "regression" else ridge / (2 * rows)
    return factor * weight.square().sum()


def objective(
    model: LinearModel, z: Tensor, y: Tensor, task: str, ridge: float, rows: int
) -> Tensor:
    """Return loss and penalty of standardised rows, for torch's own gradients."""
    loss = bare_loss(model.scores(z), y, task)
    return loss + penalty(model.head.weight, ridge, rows, task) if ridge else loss


class ByHand(torch.autograd.Function):
    """The same objective with its gradient written out: the `scratch` solver."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, z: Tensor, y: Tensor, task: str, share: float
    ) -> Tensor:
        """Return the objective of a batch.

        Args:
            weight, bias: (C, F) and (C,).
            z, y: (B, F) and (B,).
            share: ridge divided by the number of training rows.
        """
        scores = z @ weight.T + bias  # (B, C)
        if task == "regression":
            error = scores - y[:, None]  # (B, 1)
            loss = (error * error).mean()
            error, share = 2 * error, 2 * share
            cost = share / 2
        elif task == "logistic":
            target = y[:, None].to(scores.dtype)
            loss = (scores.clamp(min=0) - target * scores + (-scores.abs()).exp().log1p()).mean()
            error = 1 / (1 + (-scores).exp()) - target  # p - t
            cost = share / 2
        else:
            shifted = scores - scores.amax(1, keepdim=True)  # the exponential cannot overflow
            logs = shifted - shifted.exp().sum(1, keepdim=True).log()
            loss = -logs.gather(1, y[:, None]).mean()
            error = logs.exp()
            error[torch.arange(len(y)), y] -= 1  # p - one-hot
            cost = share / 2
        ctx.save_for_backward(weight, z, error)
        ctx.share = share
        return loss + cost * (weight * weight).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of weight and bias: means over the rows that are really there."""
        weight, z, error = ctx.saved_tensors
        rows = len(z)  # the last batch may be short: its own count divides
        d_weight = error.T @ z / rows + ctx.share * weight
        d_bias = error.sum(0) / rows
        return grads[0] * d_weight, grads[0] * d_bias, None, None, None, None


class Descent(Optimizer):
    """Gradient descent with momentum, by hand: v ← momentum·v + gradient, w ← w − lr·v."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter in place; a new tensor would no longer be the model's."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(parameter)
                velocity = state["velocity"]
                velocity *= group["momentum"]
                velocity += parameter.grad
                parameter -= group["lr"] * velocity
