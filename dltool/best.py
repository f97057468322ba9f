"""The weights of the best epoch: kept in memory, written with the next checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dltool import checkpoint


@dataclass
class Best:
    """Remember the best monitored value and the weights that gave it.

    Attributes:
        monitor: name of the value; higher is better unless it ends with "loss".
        folder: the checkpoint folder that holds the weights on disk.
    """

    monitor: str
    folder: Path
    value: float | None = None
    epoch: int = 0
    weights: dict[str, Tensor] | None = None
    epoch_on_disk: int = 0

    def offer(self, value: float, epoch: int, model: nn.Module | Mapping[str, Tensor]) -> bool:
        """Take the model's weights unless an earlier value was better; NaN never is.

        The caller has made sure that the weights are finite.

        Equal values go to the later epoch: on a small validation set ties are common, and the
        later weights saw the lower learning rate.
        """
        if not math.isfinite(value):
            return False
        if self.value is not None:
            lower_is_better = self.monitor.endswith("loss")
            if not (value <= self.value if lower_is_better else value >= self.value):
                return False
        self.value, self.epoch = value, epoch
        tensors = checkpoint.unwrap(model).state_dict() if isinstance(model, nn.Module) else model
        self.weights = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        return True

    def save(self) -> None:
        """Write the weights unless they are on disk already."""
        if self.weights is None or self.epoch_on_disk == self.epoch:
            return
        state = {"epoch": self.epoch, "value": self.value}
        checkpoint.save(self.folder, self.weights, {}, state)
        self.epoch_on_disk = self.epoch

    def restore(self, value: float | None, epoch: int, *, exact: bool = True) -> None:
        """Read the weights back for a run that goes on, when there were any.

        Args:
            exact: whether the run goes the way it went before. The folder may hold a later epoch
                than the checkpoint; such a run finds it again, another one takes its value as well.
        """
        self.value, self.epoch = value, epoch
        if epoch:
            found = checkpoint.load(self.folder)
            self.weights, self.epoch_on_disk = found.model, int(found.state["epoch"])
            if not exact:
                self.value, self.epoch = float(found.state["value"]), self.epoch_on_disk

    def load_into(self, model: nn.Module) -> None:
        """Put the best weights into the model."""
        if self.weights is not None:
            checkpoint.load_weights(model, self.weights, self.folder)
