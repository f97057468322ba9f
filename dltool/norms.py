"""Batch normalisation over the batch of all ranks, so that several train what one would train.

    mean = sum n_r mean_r / n,  variance = sum n_r (var_r + (mean_r - mean)^2) / n

after Chan, Golub and LeVeque (1979). On CUDA torch's own SyncBatchNorm does it; on the CPU, where
that is missing, the layer of this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dltool.checkpoint import unwrap
from dltool.team import Team


@contextmanager
def shared(model: nn.Module, team: Team, device: torch.device) -> Iterator[None]:
    """Let the model's batch normalisation see the samples of all ranks meanwhile.

    Weights and statistics stay the same tensors under the same names.
    """
    places = [] if team.is_alone else _places(unwrap(model))
    for parent, name, layer in places:
        if device.type == "cuda":
            setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(layer))
        else:
            setattr(parent, name, SharedNorm(layer, team))
    team.meets = team.meets or bool(places)
    try:
        yield
    finally:
        for parent, name, layer in places:
            layer.train(getattr(parent, name).training)
            setattr(parent, name, layer)


def _places(model: nn.Module) -> list[tuple[nn.Module, str, _BatchNorm]]:
    return [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm)
    ]


class SharedNorm(_BatchNorm):
    """Batch normalisation of (B, C, …) whose batch is that of all ranks.

    Args:
        layer: what it stands for; its weights and statistics are used, not copied.
    """

    def __init__(self, layer: _BatchNorm, team: Team) -> None:
        super().__init__(
            layer.num_features, layer.eps, layer.momentum, False, False, device=torch.device("cpu")
        )
        self.affine, self.track_running_stats = layer.affine, layer.track_running_stats
        self.weight, self.bias = layer.weight, layer.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(layer, name))
        self.training = layer.training
        self.team = team

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, …) by the batch, or by the running statistics outside of training."""
        if not self.training and self.running_mean is not None:
            return F.batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=False,
                eps=self.eps,
            )
        out: Tensor
        out, mean, variance, count = _Shared.apply(x, self.weight, self.bias, self.eps, self.team)
        if self.training and self.running_mean is not None:
            self._remember(mean, variance, float(count) / self.team.part.copies)
        return out

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running statistics towards those of a batch with `count` values a channel."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1 / float(self.num_batches_tracked)
        unbiased = variance * (count / max(count - 1, 1))
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(unbiased.to(self.running_var), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take (B, C) and more dimensions."""


class _Shared(torch.autograd.Function):
    """The normalisation itself: returns y, mean (C,), variance (C,) and the values a channel."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, team: Team
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        kept = [place for place in range(x.ndim) if place != 1]
        values = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        own, mean_of_own = torch.var_mean(values, kept, correction=0)  # (C,), (C,)
        count = torch.tensor([x.numel() / x.shape[1]], dtype=torch.float64)
        told = team.gathered(torch.cat([own.double(), mean_of_own.double(), count]))
        table = torch.stack(told)  # (ranks, 2 C + 1)
        variances, means = table[:, : len(own)], table[:, len(own) : -1]
        counts = table[:, -1:]
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean).square())).sum(0) / total
        form = [1, -1] + [1] * (x.ndim - 2)
        scale = (variance + eps).rsqrt().to(values.dtype)
        hat = (values - mean.to(values.dtype).view(form)) * scale.view(form)
        out = hat if weight is None else hat * weight.view(form)
        out = out if bias is None else out + bias.view(form)
        ctx.save_for_backward(hat, weight, scale)
        ctx.kept, ctx.form, ctx.team, ctx.total = kept, form, team, float(total)
        ctx.mark_non_differentiable(mean, variance, total)
        return out.to(x.dtype), mean, variance, total

    @staticmethod
    def backward(
        ctx: Any, dy: Tensor, *_: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        hat, weight, scale = ctx.saved_tensors
        dy = dy.to(hat.dtype)
        own = torch.stack([dy.sum(ctx.kept), (dy * hat).sum(ctx.kept)])  # (2, C)
        grad_bias, grad_weight = own
        # dx = w s (dy - mean(dy) - x^ mean(dy x^)), the means over all ranks
        means = ctx.team.summed(own) / ctx.total
        first, second = (row.view(ctx.form) for row in means)
        dx = (dy - first - hat * second) * scale.view(ctx.form)
        if weight is None:
            return dx, None, None, None, None
        return dx * weight.view(ctx.form), grad_weight, grad_bias, None, None
