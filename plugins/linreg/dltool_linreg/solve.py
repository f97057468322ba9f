"""Solutions without a learning rate: normal equations, coordinate descent, and L-BFGS.

They are what the iterative solvers are compared with. All work on the CPU in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dltool_linreg.model import bare_loss, penalty

CHOLESKY_LIMIT = 1e8  # above this condition number the normal equations lose too many digits
BLOCK = 65_536


@dataclass(frozen=True)
class Solution:
    """Weights (C, F) and biases (C,) on the features that were given, and how they were found.

    Attributes:
        condition: of the (penalised) matrix of second moments; infinite when columns repeat others.
        converged: whether the gradient vanishes; always so without iterations.
    """

    weight: Tensor
    bias: Tensor
    condition: float
    method: str
    converged: bool = True


def moments(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the means of z (F,) and y, and the centred sums ZᵀZ (F, F) and Zᵀy (F,).

    The sums run over blocks of rows, so that no centred copy of all rows is made.
    """
    z_mean, y_mean = z.mean(0), y.mean()
    gram = torch.zeros(z.shape[1], z.shape[1], dtype=z.dtype)
    cross = torch.zeros(z.shape[1], dtype=z.dtype)
    for start in range(0, len(z), BLOCK):
        block = z[start : start + BLOCK] - z_mean
        gram.addmm_(block.T, block)
        cross.addmv_(block.T, y[start : start + BLOCK] - y_mean)
    return z_mean, y_mean, gram, cross


def condition(gram: Tensor) -> float:
    """Return the condition number of a symmetric positive matrix."""
    values = torch.linalg.eigvalsh(gram)
    low, high = float(values[0]), float(values[-1])
    return high / low if low > high * 1e-15 else float("inf")


def least_squares(z: Tensor, y: Tensor, ridge: float = 0.0) -> Solution:
    """Minimise ‖y − zw − b‖² + ridge ‖w‖²; of several solutions the one with the smallest ‖w‖.

    Cholesky on the centred normal equations, or a singular value decomposition of the rows where
    those would lose digits.

    Args:
        z: (N, F) float64.
        y: (N,) float64.
    """
    z_mean, y_mean, gram, cross = moments(z, y)
    gram.diagonal().add_(ridge)
    number = condition(gram)
    if number < CHOLESKY_LIMIT:
        factor = torch.linalg.cholesky(gram)
        weight = torch.cholesky_solve(cross[:, None], factor).squeeze(1)
        method = "normal equations (Cholesky)"
    else:
        left, right = z - z_mean, y - y_mean
        if ridge:  # the penalty as rows of its own
            width = z.shape[1]
            left = torch.cat([left, ridge**0.5 * torch.eye(width, dtype=z.dtype)])
            right = torch.cat([right, torch.zeros(width, dtype=z.dtype)])
        weight = torch.linalg.lstsq(left, right[:, None], driver="gelsd").solution.squeeze(1)
        method = "singular value decomposition"
    return Solution(weight[None], (y_mean - z_mean @ weight)[None], number, method)


def lasso(
    z: Tensor,
    y: Tensor,
    strength: float,
    ridge: float = 0.0,
    sweeps: int = 10_000,
    tolerance: float = 1e-10,
) -> Solution:
    """Minimise ‖y − zw − b‖² / 2N + strength ‖w‖₁ + ridge/2N ‖w‖² by coordinate descent.

    Each weight in turn gets its exact minimum, the others held: a soft threshold. Source: J.
    Friedman, T. Hastie, R. Tibshirani, J. Stat. Software 33 (2010) 1.
    """
    z_mean, y_mean, gram, cross = moments(z, y)
    gram, cross = gram / len(z), cross / len(z)
    weight = torch.zeros_like(cross)
    curvature = (gram.diagonal() + ridge / len(z)).tolist()
    converged = False
    for _ in range(sweeps):
        largest = 0.0
        for place, own in enumerate(curvature):
            if own == 0:
                continue
            old = float(weight[place])
            pull = float(cross[place] - gram[place] @ weight) + float(gram[place, place]) * old
            new = max(abs(pull) - strength, 0.0) / own * (1 if pull > 0 else -1)
            weight[place] = new
            largest = max(largest, abs(new - old))
        if largest <= tolerance * max(float(weight.abs().max()), 1e-12):
            converged = True
            break
    bias = (y_mean - z_mean @ weight)[None]
    return Solution(weight[None], bias, condition(gram), "coordinate descent", converged)


def classify(z: Tensor, y: Tensor, task: str, outputs: int, ridge: float = 0.0) -> Solution:
    """Minimise the logistic or softmax objective with L-BFGS, until its gradient vanishes.

    Args:
        z: (N, F) float64; y: (N,) class numbers; outputs: 1 or the number of classes.
    """
    weight = torch.zeros(outputs, z.shape[1], dtype=z.dtype, requires_grad=True)
    bias = torch.zeros(outputs, dtype=z.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=2000,
        max_eval=4000,
        history_size=30,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = z @ weight.T + bias
        scores = scores.squeeze(1) if outputs == 1 else scores
        value = bare_loss(scores, y, task) + penalty(weight, ridge, len(z), task)
        value.backward()
        return value

    optimizer.step(closure)
    closure()
    assert weight.grad is not None
    steepest = float(weight.grad.abs().max())
    gram = moments(z, y.to(z.dtype))[2]
    return Solution(
        weight.detach(), bias.detach(), condition(gram), "L-BFGS", converged=steepest < 1e-6
    )


def curvature(z: Tensor, task: str, ridge: float, rows: int) -> float:
    """Return the largest curvature of the objective; a full-batch rate above 2/this diverges."""
    ones = torch.ones(len(z), 1, dtype=z.dtype, device=z.device)
    gram = torch.zeros(z.shape[1] + 1, z.shape[1] + 1, dtype=z.dtype, device=z.device)
    for start in range(0, len(z), BLOCK):
        block = torch.cat([z[start : start + BLOCK], ones[start : start + BLOCK]], 1)
        gram.addmm_(block.T, block)
    largest = float(torch.linalg.eigvalsh(gram / len(z))[-1])
    factor = {"regression": 2.0, "logistic": 0.25, "softmax": 0.5}[task]
    return factor * largest + (2 if task == "regression" else 1) * ridge / rows
