"""Let the blocks of a model forget their activations and compute them again when needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

LEAST_LAYERS = 4  # of a row of layers that is worth dividing


def checkpoint_blocks(model: nn.Module) -> int:
    """Make every block of a repeated structure recompute itself; return how many there are.

    Blocks are the outermost parts with parts of their own in a row (`Sequential`, `ModuleList`),
    such as the residual blocks of a ResNet. A row of plain layers is cut into about √n pieces
    (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    """
    blocks = _blocks(model)
    for block in blocks:
        _replace_forward(block, _recomputed(block.forward))
    if blocks:
        return len(blocks)
    rows = [
        module
        for module in model.modules()
        if isinstance(module, nn.Sequential) and len(module) >= LEAST_LAYERS
    ]
    for row in rows:
        _replace_forward(row, _in_pieces(row))
    return len(rows)


def _blocks(module: nn.Module) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in module.children():
        is_row = isinstance(module, nn.Sequential | nn.ModuleList)
        has_parts = any(True for _ in child.children())
        is_list = isinstance(child, nn.ModuleList | nn.ModuleDict)
        if is_row and has_parts and not is_list and not isinstance(child, nn.Sequential):
            found.append(child)
        else:
            found += _blocks(child)
    return found


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*values: Any, **named: Any) -> Any:
        # the random streams are left alone: dropout's mask differs, its memory does not
        return checkpoint(forward, *values, use_reentrant=False, preserve_rng_state=False, **named)

    return run


def _in_pieces(row: nn.Sequential) -> Callable[..., Any]:
    """Cut a row of layers into pieces that recompute themselves; the last one is kept as it is.

    No piece begins with a layer that works in place: it would change the input that its
    predecessor's end is recomputed from.
    """
    layers = list(row.children())
    length = math.ceil(math.sqrt(len(layers)))
    pieces: list[list[nn.Module]] = [[]]
    for layer in layers:
        if len(pieces[-1]) >= length and not getattr(layer, "inplace", False):
            pieces.append([])
        pieces[-1].append(layer)

    def run(value: Any) -> Any:
        for piece in pieces[:-1]:
            value = checkpoint(
                _through, piece, value, use_reentrant=False, preserve_rng_state=False
            )
        return _through(pieces[-1], value)

    return run


def _through(layers: Sequence[nn.Module], value: Any) -> Any:
    for layer in layers:
        value = layer(value)
    return value


def _replace_forward(module: nn.Module, forward: Callable[..., Any]) -> None:
    module.forward = forward
