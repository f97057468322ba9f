"""Low-rank changes of the linear layers of vision transformers (Hu et al., 2021, LoRA).

A weight W (out, in) becomes W + (alpha / rank) B A with A (rank, in) drawn at random and B (out,
rank) zero, and only A and B are trained. torchvision keeps the projections of query, key and value
as one matrix (3 * width, width); each of the three has a pair of its own here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dltool.errors import ConfigError

# the third of the joined projection that each target is
THIRDS = {"query": 0, "key": 1, "value": 2}


class LowRank(nn.Module):
    """Add low-rank products to a weight, one for each block of rows.

    Args:
        weight: (out, in).
        rows: first and last-but-one row of each block.
    """

    def __init__(
        self, weight: Tensor, rows: tuple[tuple[int, int], ...], rank: int, alpha: float
    ) -> None:
        super().__init__()
        self.rows, self.scale = rows, alpha / rank
        self.down = nn.ParameterList(weight.new_empty(rank, weight.shape[1]) for _ in rows)
        self.up = nn.ParameterList(weight.new_zeros(end - start, rank) for start, end in rows)
        for down in self.down:
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight (out, in)."""
        pieces, done = [], 0
        for (start, end), down, up in zip(self.rows, self.down, self.up, strict=True):
            pieces += [weight[done:start], weight[start:end] + self.scale * (up @ down)]
            done = end
        return torch.cat([*pieces, weight[done:]])


def add(network: nn.Module, targets: tuple[str, ...], rank: int, alpha: float) -> int:
    """Freeze a network and add trainable low-rank changes to its attention; return how many.

    Raises:
        ConfigError: E205, the network has no attention; E202, the rank is above a layer's width.
    """
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    count = 0
    for module, tensor, rows in _places(network, targets):
        weight = getattr(module, tensor)
        if rank >= min(weight.shape):
            raise ConfigError(
                "E202",
                "--lora-rank is not below the width of the layers it changes",
                received=rank,
                expected=f"1 to {min(weight.shape) - 1}",
            )
        change = LowRank(weight, rows, rank, alpha)
        parametrize.register_parametrization(module, tensor, change)
        count += len(rows)
    if not count:
        raise ConfigError(
            "E205",
            "--lora-rank changes attention layers, and this network has none",
            cure="use --model tv:vit_b_16 or tv:swin_t, or leave --lora-rank out",
        )
    return count


def _places(
    network: nn.Module, targets: tuple[str, ...]
) -> Iterator[tuple[nn.Module, str, tuple[tuple[int, int], ...]]]:
    """Yield module, tensor and blocks of rows of every weight to change."""
    thirds = sorted(THIRDS[target] for target in targets if target in THIRDS)
    for module in list(network.modules()):
        found = _projections(module)
        if found is None:
            continue
        joined, name, after = found
        width = getattr(joined, name).shape[0] // 3
        if thirds:
            yield joined, name, tuple((third * width, (third + 1) * width) for third in thirds)
        if "output" in targets:
            yield after, "weight", ((0, after.out_features),)


def _projections(module: nn.Module) -> tuple[nn.Module, str, nn.Linear] | None:
    """Return where an attention keeps the joined projection, and the layer after it."""
    if isinstance(module, nn.MultiheadAttention):
        return module, "in_proj_weight", module.out_proj
    if type(module).__name__.startswith("ShiftedWindowAttention"):
        swin: Any = module
        return swin.qkv, "weight", swin.proj
    return None


def merge(network: nn.Module) -> None:
    """Put the changes into the weights, so that nothing of them is left beside the network."""
    for module in list(network.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for name in list(module.parametrizations):  # type: ignore[arg-type]  # a ModuleDict
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
