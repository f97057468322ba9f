"""What a straight line could reach at best: the measure of everything without a hidden layer."""

from __future__ import annotations

import math

import torch

from dltool_mlp_xor.data import Split

DIRECTIONS = 360
MOST_POINTS = 20_000


def best_line(split: Split, most: int = MOST_POINTS) -> float:
    """Return the highest accuracy of a straight line on these points.

    Searched over 360 directions and every place between two points, on at most `most` points. A
    linear model cannot do better, however long it trains.
    """
    points = split.points[:most].double().cpu()
    labels = split.labels[:most].cpu()
    n, ones = len(labels), int(labels.sum())
    best = max(ones, n - ones)
    for number in range(DIRECTIONS):
        angle = math.pi * number / DIRECTIONS
        along, order = (points @ torch.tensor([math.cos(angle), math.sin(angle)]).double()).sort()
        sorted_labels = labels[order]
        # a cut after place i: zeros before it and ones behind it are right, or the reverse
        ones_before = sorted_labels.cumsum(0)
        zeros_before = torch.arange(1, n + 1) - ones_before
        right = zeros_before + ones - ones_before
        can_cut = along[1:] - along[:-1] > 1e-9
        right = right[:-1][can_cut]
        if len(right):
            best = max(best, int(right.max()), n - int(right.min()))
    return best / n
