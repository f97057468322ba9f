"""The pictures of a run: curves, confusions, worst mistakes, calibration, first-layer filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from dltool import calibration, plots
from dltool.picture_grid import image_grid
from dltool_cnn.mistakes import Answers
from dltool_cnn.model import Classifier

FOLDER = "pictures"
MOST_FILTERS = 64


def draw_training(
    folder: Path, records: Sequence[Mapping[str, Any]], title: str, best_epoch: int | None
) -> dict[str, str]:
    """Draw a run's curves; return what is where."""
    path = folder / FOLDER / "curves.png"
    plots.curves(records, path, title, best_epoch=best_epoch)
    return {"curves": str(path)}


def draw_confusions(
    folder: Path, split: str, matrix: Tensor, classes: Sequence[str], path: Path | None = None
) -> Path:
    """Draw the confusion matrix (C, C), row = true class; return where, by default in the run."""
    place = path or folder / FOLDER / f"confusion-{split}.png"
    plots.confusion_matrix(matrix, classes, place, f"Confusions, {split}")
    return place


def draw_answers(
    folder: Path,
    split: str,
    answers: Answers,
    classes: Sequence[str],
    model: Classifier,
    size: tuple[int, int],
) -> dict[str, str]:
    """Draw how honest a model is on a split, where it fails, and what its first layer looks for.

    Args:
        folder: run or model folder; the pictures go into its `pictures/`.
        size: height and width of the model's images.

    Returns:
        Path by kind of picture; without a mistake there is no picture of the worst.
    """
    place = folder / FOLDER
    found = {"calibration": place / f"calibration-{split}.png"}
    bins = answers.reliability()
    plots.reliability_diagram(
        bins, found["calibration"], f"Calibration, {split}", error=calibration.error_of(bins)
    )
    if answers.worst:
        found["worst mistakes"] = place / f"worst-{split}.png"
        draw_worst(answers, classes, found["worst mistakes"], split)
    if draw_filters(model, classes, size, place / "filters.png"):
        found["first-layer filters"] = place / "filters.png"
    return {kind: str(path) for kind, path in found.items()}


def draw_worst(answers: Answers, classes: Sequence[str], path: Path, split: str) -> None:
    """Draw the wrong answers that the model was surest of."""
    titles = [
        f"{classes[each.said]} {each.probability:.3f}\n"
        f"is {classes[each.true]} {each.true_probability:.3f}"
        for each in answers.worst
    ]
    image_grid(
        [each.pixels for each in answers.worst],
        titles,
        path,
        title=f"Worst mistakes, {split}",
        description="The wrong answers with the highest probability, and that of the true class.",
    )


def draw_filters(
    model: Classifier, classes: Sequence[str], size: tuple[int, int], path: Path
) -> bool:
    """Draw the weights of the first layer as pictures; tell whether it has any that show one.

    Grey is 0, and each picture is scaled by its own largest weight.
    """
    weights = first_weights(model, size)
    if weights is None:
        return False
    names = list(map(str, range(len(weights))))
    if isinstance(first_layer(model), nn.Linear) and len(weights) == len(classes):
        names = list(classes)  # softmax regression: one picture a class
    image_grid(
        list(map(_shades, weights[:MOST_FILTERS])),
        names[:MOST_FILTERS],
        path,
        title="First-layer filters",
        description="The weights of the first layer, one picture a filter; grey is zero.",
    )
    return True


def first_layer(model: Classifier) -> nn.Module | None:
    """Return the first convolution or linear layer in the order of its making."""
    kinds = (nn.Conv2d, nn.Linear)
    return next((layer for layer in model.network.modules() if isinstance(layer, kinds)), None)


def first_weights(model: Classifier, size: tuple[int, int]) -> npt.NDArray[np.float32] | None:
    """Return the first layer's weights as (filters, H, W, C), C = 1 or 3, or None."""
    layer = first_layer(model)
    channels = model.mean.numel()
    if isinstance(layer, nn.Conv2d):
        weights = layer.weight  # (filters, C, kernel, kernel)
        if weights.shape[1] != channels or min(weights.shape[2:]) < 2:
            return None
    elif isinstance(layer, nn.Linear):
        if layer.in_features != channels * size[0] * size[1]:
            return None
        weights = layer.weight.view(-1, channels, *size)
    else:
        return None
    shown: npt.NDArray[np.float32] = weights.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    return shown


def _shades(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    scale = float(np.abs(weights).max()) or 1.0
    shades: npt.NDArray[np.uint8] = np.rint(127.5 + 127.5 * weights / scale).astype(np.uint8)
    return shades
