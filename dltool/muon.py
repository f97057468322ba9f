"""Muon for matrices and kernels, AdamW for all else, as one optimizer.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) makes each update of a matrix
nearly orthogonal. torch's own `torch.optim.Muon` does the same for matrices and refuses kernels;
here a kernel (out, in, height, width) is the matrix (out, in * height * width), and one learning
rate serves both parts: an update has the mean square that AdamW's usually has (Liu et al., 2025,
https://arxiv.org/abs/2502.16982).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

# a quintic whose slope at zero is steep: five rounds bring singular values to 0.7 to 1.2
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
LIKE_ADAMW = 0.2


class Muon(Optimizer):
    """Update matrices and kernels by Muon with Nesterov momentum, other parameters by AdamW.

    Args:
        params: parameters or groups of them; each group has its rate and its weight decay.
        lr: learning rate.
        weight_decay: decoupled, as in AdamW.
        momentum: of the matrices' gradients.
        betas, eps: of AdamW.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # returns no loss: sessions give no closure
        """Make one update of every parameter that has a gradient."""
        if closure is not None:
            raise TypeError("Muon takes no closure")
        for group in self.param_groups:
            held = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in held:
                if is_matrix(parameter):
                    self._turn(parameter, group)
            self._adapt([parameter for parameter in held if not is_matrix(parameter)], group)

    def _turn(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        ahead = parameter.grad.lerp(state["momentum"], group["momentum"])
        update = orthogonal(ahead.flatten(1))  # (out, in * height * width)
        rate = group["lr"] * LIKE_ADAMW * math.sqrt(max(update.shape))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.reshape(parameter.shape).to(parameter.dtype), alpha=-rate)

    def _adapt(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        if not parameters:
            return
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def is_matrix(parameter: Tensor) -> bool:
    """Tell whether a parameter is a matrix or a kernel with more than one row and column."""
    if parameter.ndim not in (2, 4):
        return False
    return min(parameter.shape[0], parameter[0].numel()) > 1


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix with the same singular vectors and singular values near 1, in bfloat16.

    Newton and Schulz's iteration X <- a X + (b X X' + c (X X')^2) X, (rows, columns).
    """
    a, b, c = QUINTIC
    x = matrix.bfloat16()
    is_tall = len(x) > x.shape[1]
    x = x.T if is_tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.T if is_tall else x
    return result
