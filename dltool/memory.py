"""Out of memory: recognise it, divide batches into pieces, and let go of what a failure holds."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import pairwise
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dltool.errors import OutOfMemory

# what torch says in a plain RuntimeError where it has no type for it
MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that memory ran out: by type, on the CPU by torch's words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in MESSAGES)


def batch_length(batch: Any) -> int:
    """Return the number of samples in a batch.

    A batch is a tensor, or a tuple, list or dict of tensors and lists with one entry a sample.

    Raises:
        OutOfMemory: it is built otherwise, so that it cannot be divided.
    """
    if isinstance(batch, Tensor) and batch.ndim:
        return len(batch)
    parts = list(batch.values()) if isinstance(batch, dict) else batch
    if isinstance(parts, tuple | list) and parts:
        sized = all(isinstance(part, list) or _has_rows(part) for part in parts)
        lengths = {len(part) for part in parts} if sized else set()
        if len(lengths) == 1:
            return lengths.pop()
    raise OutOfMemory(
        "E801",
        "memory ran out, and the batch cannot be divided: its parts are not all of one length",
        cure="use a smaller --batch-size and a larger --accumulate",
    )


def _has_rows(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim > 0


class Piece(NamedTuple):
    """A part of a batch, its share of the batch's samples, and whether it is the last one."""

    content: Any
    share: float
    is_last: bool


def smallest_piece(model: nn.Module) -> int:
    """Return the fewest samples that a model can train on: 2 with batch normalisation."""
    kind = nn.modules.batchnorm._BatchNorm
    return 2 if any(isinstance(module, kind) for module in model.modules()) else 1


def pieces(batch: Any, count: int, smallest: int = 1) -> Iterator[Piece]:
    """Divide a batch in order into `count` pieces of nearly one size, or fewer.

    Args:
        smallest: fewest samples of a piece, unless the batch itself holds fewer.

    Raises:
        OutOfMemory: the batch cannot be divided.
    """
    if count == 1:
        yield Piece(batch, 1.0, True)
        return
    length = batch_length(batch)
    count = max(1, min(count, length // smallest))
    ends = [length * number // count for number in range(count + 1)]
    for start, stop in pairwise(ends):
        content = cut(batch, slice(start, stop))
        yield Piece(content, (stop - start) / length, stop == length)


def cut(batch: Any, place: slice) -> Any:
    """Return the samples of a batch that lie in a slice, in the batch's own form."""
    if isinstance(batch, Tensor):
        return batch[place]
    if isinstance(batch, dict):
        return {key: part[place] for key, part in batch.items()}
    parts = [part[place] for part in batch]
    if hasattr(batch, "_fields"):
        return type(batch)(*parts)
    return type(batch)(parts)


def let_go(traceback: TracebackType | None) -> None:
    """Free the graphs that the failed step still holds in variables of its frames.

    A loop's `loss` or `logits` would keep the activations of the failed attempt alive through the
    next one, which then had less memory than the first.
    """
    while traceback is not None:
        for value in list(traceback.tb_frame.f_locals.values()):
            if isinstance(value, Tensor) and value.grad_fn is not None and not value._is_view():
                value.detach_()
        traceback = traceback.tb_next


def release(device: torch.device) -> None:
    """Give freed memory back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
