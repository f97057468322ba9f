"""What a model said of every image of a split: probabilities, and the mistakes it was surest of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dltool import calibration

MOST_KEPT = 24


@dataclass(frozen=True)
class Mistake:
    """An image that was named wrong.

    `index` counts the images of the split in order; `pixels` are (H, W, C) bytes.
    """

    index: int
    said: int
    true: int
    probability: float
    true_probability: float
    pixels: npt.NDArray[np.uint8]

    def as_dict(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "index": self.index,
            "said": classes[self.said],
            "probability": round(self.probability, 6),
            "true": classes[self.true],
            "true_probability": round(self.true_probability, 6),
        }


@dataclass
class Answers:
    """Gather a model's answers batch by batch; of the images only the worst mistakes are kept."""

    parts: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    worst: list[Mistake] = field(default_factory=list)
    count: int = 0

    def add(self, images: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Take a batch: images (B, C, H, W) uint8, logits (B, num_classes), labels (B,)."""
        shares = logits.float().softmax(1).cpu()
        self.parts.append(shares)
        self.targets.append(labels.cpu())
        confidence, said = shares.max(1)
        confidence = confidence.where(said != labels.cpu(), torch.tensor(-1.0))
        for place in confidence.argsort(descending=True, stable=True)[:MOST_KEPT].tolist():
            if confidence[place] < 0:
                break
            true = int(labels[place])
            self.worst.append(
                Mistake(
                    index=self.count + place,
                    said=int(said[place]),
                    true=true,
                    probability=float(confidence[place]),
                    true_probability=float(shares[place, true]),
                    pixels=images[place].permute(1, 2, 0).cpu().numpy().copy(),
                )
            )
        self.worst = sorted(self.worst, key=lambda each: -each.probability)[:MOST_KEPT]
        self.count += len(labels)

    @property
    def probabilities(self) -> Tensor:
        """Probabilities (N, num_classes) of all images so far."""
        return torch.cat(self.parts)

    def reliability(self) -> list[calibration.Bin]:
        """Return the bins of confidence over all images so far."""
        return calibration.reliability(self.probabilities, torch.cat(self.targets))

    def calibration(self) -> dict[str, Any]:
        """Return the calibration error with its bins, for JSON."""
        bins = self.reliability()
        return {
            "error": calibration.error_of(bins),
            "bins": [each.as_dict() for each in bins],
        }
