"""The state at the last step boundary: what a step changes before its update, to go back to.

A forward pass changes buffers (the running statistics of batch normalisation) and torch's random
stream; the weights change only at the end of a step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dltool.checkpoint import unwrap


class Boundary:
    """Keep the model's buffers and the random stream as they were when a step began.

    Attributes:
        is_open: a step was begun and its update not made.
        extra: what `mark` was given.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device = device
        self.is_open = False
        self._buffers: list[Tensor] = list(unwrap(model).buffers())
        self._kept = [buffer.detach().clone() for buffer in self._buffers]
        self._streams: list[Tensor] = []
        self.extra: tuple[Any, ...] = ()

    @torch.no_grad()
    def mark(self, *extra: Any) -> None:
        """Remember this moment; `extra` comes back from `rewind`."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)
        self._streams = [torch.get_rng_state()]
        if self.device.type == "cuda":
            self._streams.append(torch.cuda.get_rng_state(self.device))
        self.extra = extra
        self.is_open = True

    def close(self) -> None:
        """Say that the update has been made: there is no way back."""
        self.is_open = False

    @torch.no_grad()
    def rewind_buffers(self) -> None:
        """Put the buffers back."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)

    def rewind(self) -> tuple[Any, ...]:
        """Put everything back and return what `mark` was given."""
        self.rewind_buffers()
        torch.set_rng_state(self._streams[0])
        if len(self._streams) > 1:
            torch.cuda.set_rng_state(self._streams[1], self.device)
        self.is_open = False
        return self.extra
