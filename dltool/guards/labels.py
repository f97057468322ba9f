"""Guards on the labels and splits of a classification data set."""

from __future__ import annotations

import torch
from torch import Tensor

from dltool.guards.findings import Finding

LEAK_WARN, LEAK_FAIL = 0.01, 0.05


def check_split(labels: Tensor, num_classes: int, name: str) -> list[Finding]:
    """Check one split's labels: integral, in range, more than one class.

    Args:
        labels: (N,) integers.
    """
    found = []
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        found.append(
            Finding(
                "G-D01",
                "fail",
                f"labels of the {name} split run from {int(labels.min())} to "
                f"{int(labels.max())}, but there are {num_classes} classes",
                "number the classes from 0",
            )
        )
        return found
    counts = torch.bincount(labels.cpu(), minlength=num_classes)
    largest = int(counts.max()) / max(int(counts.sum()), 1)
    if largest > 0.995:
        found.append(
            Finding(
                "G-D08",
                "fail",
                f"{largest:.1%} of the {name} split is one class (limit 99.5 %): "
                "any accuracy on it means nothing",
                "shuffle before splitting, or gather the other classes",
            )
        )
    elif name != "train" and bool((counts == 0).any()):
        missing = int((counts == 0).sum())
        found.append(
            Finding(
                "G-D08",
                "warn",
                f"the {name} split holds no sample of {missing} of {num_classes} classes",
                "use a larger or stratified split",
            )
        )
    return found


def check_leak(overlap: int, size: int, name: str) -> list[Finding]:
    """Judge how many items of a split are also in the training split.

    Args:
        overlap: items of the split found verbatim in the training data.
        size: items in the split.
    """
    share = overlap / max(size, 1)
    if share < LEAK_WARN:
        return []
    return [
        Finding(
            "G-D04",
            "fail" if share >= LEAK_FAIL else "warn",
            f"{overlap} of {size} items of the {name} split ({share:.1%}, limit {LEAK_WARN:.0%}) "
            "are also in the training split, byte for byte",
            "remove the duplicates before splitting",
        )
    ]
