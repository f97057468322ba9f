"""The exponential moving average of a model's weights (Polyak and Juditsky, 1992).

    average = decay_t * average + (1 - decay_t) * weights,  decay_t = min(decay, (1 + t) / (10 + t))

The rising decay lets the average forget the random start (Abadi et al., 2016, in TensorFlow's
`ExponentialMovingAverage`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dltool.checkpoint import unwrap
from dltool.errors import ConfigError
from dltool.signals import Watch


class Average:
    """Average the floating-point weights and buffers of a model; others are taken as they are.

    Args:
        decay: in (0, 1); 0.999 looks back about a thousand steps.

    Raises:
        ConfigError: E202, the decay lies elsewhere.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ConfigError(
                "E202", "--ema is out of range", received=decay, expected="0 (off), or (0, 1)"
            )
        self.decay = decay
        self.steps = 0
        state = unwrap(model).state_dict()
        # tied weights share one storage: averaged once, found under every name
        owners = {value.data_ptr(): name for name, value in reversed(state.items())}
        self._names = {
            name: owners[value.data_ptr()] if value.numel() else name
            for name, value in state.items()
        }
        self._live = {name: value for name, value in state.items() if self._names[name] == name}
        self._average = {name: value.detach().clone() for name, value in self._live.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return the averaged tensors by the model's names; they are not copies."""
        return {name: self._average[kept] for name, kept in self._names.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after one optimizer step."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        floating = [name for name, value in self._live.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self._average[name] for name in floating],
            [self._live[name] for name in floating],
            weight,
        )
        for name, value in self._live.items():
            if not value.is_floating_point():
                self._average[name].copy_(value)

    @contextmanager
    def swapped(self, watch: Watch) -> Iterator[None]:
        """Let the model hold the average meanwhile; afterwards its own weights, bit for bit."""
        with watch.hold():
            self._swap()
        try:
            yield
        finally:
            with watch.hold():
                self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._live.items():
            kept = value.clone()
            value.copy_(self._average[name])
            self._average[name].copy_(kept)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"steps": self.steps, "average": dict(self._average)}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.steps = state["steps"]
        for name, value in state["average"].items():
            self._average[name].copy_(value)
