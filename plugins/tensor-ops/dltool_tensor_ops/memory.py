"""Measure the memory that a function needs at its peak."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU_METHOD = "bytes of tensors alive, seen operator by operator; scratch inside one is not counted"
CUDA_METHOD = "torch's own count of allocated bytes"


class Watch(TorchDispatchMode):
    """Count the bytes of the tensors that operators create, until they are gone.

    Every operator, also those of the backward pass, comes by here. Memory that existed before is
    not counted, and neither is what an operator allocates and frees inside itself.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operator and count what it made."""
        named = dict(kwargs or {})
        self._meet((args, named), counted=False)  # else a view of old memory would count as new
        result = func(*args, **named)
        self._meet(result, counted=True)
        return result

    def _meet(self, tensors: Any, *, counted: bool) -> None:
        for tensor in tree_leaves(tensors):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if id(storage) not in self.known:
                self._remember(storage, storage.nbytes() if counted else 0)

    def _remember(self, storage: torch.UntypedStorage, size: int) -> None:
        name = id(storage)

        def forget(_: object) -> None:
            self.live -= size
            self.known.pop(name, None)

        self.known[name] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


def peak_bytes(function: Callable[[], object], device: torch.device) -> int:
    """Return how many bytes above the start `function` held at its worst moment.

    On CUDA this is the allocator's own figure, elsewhere that of `Watch`. The function runs once
    before, so that lasting buffers are not charged to it.
    """
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = function()
        torch.cuda.synchronize(device)
        del result
        return int(torch.cuda.max_memory_allocated(device) - before)
    watch = Watch()
    with watch:
        result = function()
    del result
    return watch.peak


def method(device: torch.device) -> str:
    """Say what `peak_bytes` counts on this device."""
    return CUDA_METHOD if device.type == "cuda" else CPU_METHOD
