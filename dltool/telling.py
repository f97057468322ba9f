"""Say now and then, while a training runs, how its loss stands."""

from __future__ import annotations

import time

from dltool.console import Console
from dltool.metrics import Mean

SECONDS = 0.5


class Teller:
    """Tell the loss beside the progress bar and as an event, twice a second at most."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last = time.monotonic()
        self.text = ""

    def is_due(self, now: float) -> bool:
        """Tell whether it is time."""
        return now - self.last >= SECONDS

    def tell(self, loss: Mean, step: int, epoch: int, now: float) -> None:
        """Write the event, and keep the text for the bar."""
        self.last = now
        self.console.event("step", step=step, epoch=epoch, train_loss=loss.value)
        self.text = f"loss {loss.value:.4f}"

    def words(self) -> str:
        """Return what is new since the last call."""
        text, self.text = self.text, ""
        return text
