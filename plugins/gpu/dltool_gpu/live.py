"""Run a training step on tensors without content and count the bytes that are alive.

torch's fake tensors have shapes and formats but no memory; every operation runs as usual, so what
autograd keeps for the backward pass is kept, and counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Count the bytes of all tensors that are alive.

    Attributes:
        now, peak: bytes at this moment, and the most so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count what it made."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._known.pop(key)


@contextmanager
def counting() -> Iterator[LiveBytes]:
    """Make every tensor of the block one without content, and count its bytes."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        yield live


def emptied(model: nn.Module, device: str) -> nn.Module:
    """Give a model new, empty parameters and buffers on a device; shared ones stay shared."""
    known: dict[int, Tensor] = {}

    def blank(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            empty = torch.empty_like(tensor, device=device)
            if isinstance(tensor, nn.Parameter):
                empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
            known[id(tensor)] = empty
        return known[id(tensor)]

    for module in model.modules():
        parts: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for tensors in parts:
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = blank(tensor)
    return model
