"""Early stopping: end a training that has not improved for a number of epochs (Prechelt, 1998)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Patience:
    """Count the epochs since the monitored value last became strictly better.

    Attributes:
        monitor: name of the value; higher is better unless it ends with "loss".
        epochs: how many epochs may pass without a better one; 0 never stops.
    """

    monitor: str
    epochs: int
    best: float | None = None
    waited: int = 0

    @property
    def is_over(self) -> bool:
        """Whether it is time to stop."""
        return 0 < self.epochs <= self.waited

    def offer(self, value: float) -> None:
        """Take the value of an epoch; one that is not finite is never better."""
        sign = -1 if self.monitor.endswith("loss") else 1
        if math.isfinite(value) and (self.best is None or sign * value > sign * self.best):
            self.best, self.waited = value, 0
        else:
            self.waited += 1

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.best, self.waited = state["best"], state["waited"]
