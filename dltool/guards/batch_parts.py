"""Take batches of any form apart: tensors by their path, what they mean, and noise in their place.

A batch is a tensor, or tuples, lists and mappings of them; its target is the last part of a tuple,
or the entry of a mapping that is called `labels`, `label`, `targets`, `target` or `y`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TARGETS = ("labels", "label", "targets", "target", "y")
Path = tuple[Any, ...]


@dataclass(frozen=True)
class Part:
    """One tensor of a batch.

    Attributes:
        path: keys and places that lead to it.
        role: `content`, `mask`, `lengths` or `target`.
    """

    path: Path
    tensor: Tensor
    role: str

    @property
    def name(self) -> str:
        """The path as text."""
        return ".".join(map(str, self.path)) or "input"

    @property
    def is_tokens(self) -> bool:
        """Whether it holds ids, (B, T) or (T, B)."""
        return self.tensor.dtype in (torch.int64, torch.int32) and self.tensor.dim() == 2


def target_path(batch: Any) -> Path | None:
    """Return where the target is; None for a batch without one."""
    if isinstance(batch, Mapping):
        return next(((name,) for name in TARGETS if name in batch), None)
    if isinstance(batch, Sequence) and len(batch) > 1:
        last = len(batch) - 1
        inner = target_path(batch[last]) if isinstance(batch[last], Mapping) else None
        return (last, *(inner or ()))
    return None


def at(batch: Any, path: Path) -> Any:
    """Return what is at a path."""
    for key in path:
        batch = batch[key]
    return batch


def parts(batch: Any) -> list[Part]:
    """Return the tensors of a batch with what they mean."""
    goal = target_path(batch)
    found = list(_tensors(batch, ()))
    is_target = [goal is not None and path[: len(goal)] == goal for path, _ in found]
    inputs = [each for each, target in zip(found, is_target, strict=True) if not target]
    return [
        Part(path, tensor, "target" if target else _role(path, tensor, inputs))
        for (path, tensor), target in zip(found, is_target, strict=True)
    ]


def _tensors(batch: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(batch, Tensor):
        yield path, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _tensors(value, (*path, key))
    elif isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        for place, value in enumerate(batch):
            yield from _tensors(value, (*path, place))


def _role(path: Path, tensor: Tensor, inputs: list[tuple[Path, Tensor]]) -> str:
    name = str(path[-1]).lower() if path else ""
    others = [other for where, other in inputs if where != path]
    if not others:
        return "content"
    is_integer = not tensor.is_floating_point()
    if "mask" in name or tensor.dtype == torch.bool:
        return "mask"
    same = [other for other in others if other.shape[:2] == tensor.shape[:2] and other.dim() >= 2]
    if is_integer and tensor.dim() == 2 and same and _is_binary(tensor):
        return "mask" if not all(_is_binary(other) for other in same) else "content"
    beside = [other for other in others if other.dim() >= 2 and len(tensor) in other.shape[:2]]
    if is_integer and tensor.dim() == 1 and beside:
        longest = max(max(other.shape[:2]) for other in beside)
        if int(tensor.min()) >= 0 and int(tensor.max()) <= longest:
            return "lengths"
    return "content"


def _is_binary(tensor: Tensor) -> bool:
    return bool(((tensor == 0) | (tensor == 1)).all())


def replaced(batch: Any, path: Path, value: Any) -> Any:
    """Return the batch with another value at a path; the batch itself stays."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(batch, Mapping):
        return {**batch, key: replaced(batch[key], rest, value)}
    items = [replaced(each, rest, value) if i == key else each for i, each in enumerate(batch)]
    if hasattr(batch, "_fields"):
        return type(batch)(*items)
    return items if isinstance(batch, list) else tuple(items)


def cut(batch: Any, count: int) -> Any:
    """Return the first samples of a batch, where every tensor has the samples on its first axis."""
    found = parts(batch)
    sizes = {each.tensor.shape[0] for each in found if each.tensor.dim()}
    if len(sizes) != 1 or not all(each.tensor.dim() for each in found) or sizes.pop() <= count:
        return batch
    for each in found:
        batch = replaced(batch, each.path, each.tensor[:count])
    return batch


def on_device(batch: Any, device: torch.device) -> Any:
    """Return the batch with every tensor on a device."""
    for each in parts(batch):
        if each.tensor.device != device:
            batch = replaced(batch, each.path, each.tensor.to(device))
    return batch


def noise(tensor: Tensor, stream: torch.Generator, keep: int | None = None) -> Tensor:
    """Return values of the same shape that the tensor might have held, and that differ from it.

    Args:
        keep: an id that neither appears nor is replaced: the padding.
    """
    if tensor.is_floating_point():
        spread = tensor.detach().float()
        size = float(spread.std()) if spread.numel() > 1 else 1.0
        draw = torch.randn(tensor.shape, generator=stream) * (size or 1.0) + float(spread.mean())
        return draw.to(tensor)
    if tensor.dtype == torch.bool:
        return tensor.clone()
    if tensor.dtype == torch.uint8:
        return torch.randint(0, 256, tensor.shape, generator=stream).to(tensor)
    known = tensor.unique().cpu()
    if keep is not None:
        known = known[known != keep]
    if len(known) < 2:
        return tensor.clone()
    place = torch.searchsorted(known, tensor.cpu().clamp(int(known[0]), int(known[-1])))
    move = torch.randint(1, len(known), tensor.shape, generator=stream)
    drawn = known[(place + move) % len(known)].to(tensor)
    return drawn if keep is None else torch.where(tensor == keep, tensor, drawn)
