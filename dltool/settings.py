"""What a training session is told, and what it is fed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch


class Batches(Protocol):
    """A source of training batches whose content depends only on (seed, epoch, position)."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield the batches of an epoch from number `start` on."""
        ...


@dataclass(frozen=True)
class Settings:
    """How a session trains; the topic fills it from its config.

    Attributes:
        accumulate: batches whose gradients are added up for one optimizer step.
        clip: largest gradient norm; 0 leaves gradients alone.
        save_every: interval between checkpoints: `10m`, `30s`, `500steps` or a number of seconds.
        keep: step checkpoints to keep, at least 2.
        monitor: the reported value that chooses the best weights; higher is better unless
            it ends with "loss".
        check_every: steps between tests of the loss on an accelerator (on the CPU: every step).
        max_time: when to stop and save, counted from the command's start, as `2h`; empty: never.
        patience: epochs without a better value after which to stop; 0: never.
        ema: decay of the averaged weights that are evaluated and kept as the best; 0: none.
        on_nan: `stop`, `skip` or `rollback`, see `nonfinite`; with `skip` every step waits for
            the accelerator.
        guards: `off` leaves the monitors out, see `dltool.guards.findings`.
        without: guards that do not count, as for `--without`.
        chance: the loss of guessing, as ln C; 0 where it is not known.
        schedule_by_epoch: step the scheduler after each epoch, not after each optimizer step.
    """

    device: torch.device
    precision: str = "fp32"
    accumulate: int = 1
    clip: float = 0.0
    save_every: float | str = 60.0
    keep: int = 2
    monitor: str = "val_accuracy"
    check_every: int = 50
    max_time: str = ""
    patience: int = 0
    ema: float = 0.0
    on_nan: str = "stop"
    schedule_by_epoch: bool = False
    guards: str = "preflight"
    without: tuple[str, ...] = ()
    chance: float = 0.0

    @classmethod
    def of(cls, config: object, device: torch.device, **others: Any) -> Settings:
        """Take from a topic's config every field that it has by the same name.

        Args:
            others: fields that the config lacks, or means otherwise, as `monitor`.
        """
        taken = {field.name for field in fields(cls)} - {"device", *others}
        known = {name: getattr(config, name) for name in taken if hasattr(config, name)}
        return cls(device=device, **known, **others)
