"""What a `cnn` run can be told, and the recipes that fill what it is not told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltool import ranges
from dltool.errors import ConfigError
from dltool.training_config import TrainingConfig

MODELS = {
    "linear": "softmax regression: one linear layer",
    "mlp": "fully connected layers with ReLU (--hidden, --dropout)",
    "lenet": "LeNet-5 of 1998: sigmoid and average pooling; 61,706 parameters on 28x28",
    "simple-cnn": "three convolutions with batch normalisation (--width)",
    "resnet20": "ResNet-20 for small images (He et al., 2015); 0.27 M parameters",
    "resnet18": "ResNet-18 from torchvision, with a small stem below 64 pixels",
}
SCHEDULES = ("one-cycle", "cosine", "constant")
LOADERS = ("auto", "resident", "stream")
AUGMENTATIONS = ("flip", "crop")


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Everything that shapes a `cnn` training run.

    Attributes:
        data: a named set, an image folder or a zip of one.
        data_root: folder that holds named sets already; empty for the download cache.
        image_size: side in pixels that images are brought to; 0 keeps or chooses.
        learning_rate: peak of the schedule.
        augment: comma-separated names, or `none`.
        hidden: widths of the hidden layers of `mlp`, comma-separated.
        width: channels of the first convolution of `simple-cnn`.
        val_fraction, test_fraction: shares split off where the data has no such split.
        loader: `resident` holds all images on the device, `stream` reads them from disk.
    """

    data: str = "digits"
    data_root: str = ""
    model: str = "simple-cnn"
    epochs: int = 12
    schedule: str = "one-cycle"
    label_smoothing: float = 0.05
    augment: str = "none"
    image_size: int = 0
    hidden: str = "256"
    dropout: float = 0.0
    width: int = 16
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    loader: str = "auto"
    workers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.one_of("--model", self.model, tuple(MODELS))
        ranges.one_of("--schedule", self.schedule, SCHEDULES)
        ranges.one_of("--loader", self.loader, LOADERS)
        ranges.at_least("--width", self.width, 1)
        ranges.at_least("--image-size", self.image_size, 0)
        ranges.inside("--label-smoothing", self.label_smoothing, 0.0, 0.9)
        ranges.inside("--dropout", self.dropout, 0.0, 0.95)
        ranges.inside("--val-fraction", self.val_fraction, 0.0, 0.5, open_low=True)
        ranges.inside("--test-fraction", self.test_fraction, 0.0, 0.5, open_low=True)
        for name in self.augmentations:
            ranges.one_of("--augment", name, AUGMENTATIONS)
        if not all(width > 0 for width in self.hidden_widths):
            raise ConfigError(
                "E202",
                "--hidden needs positive widths",
                received=self.hidden,
                cure="use --hidden 256",
            )

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names in `augment`."""
        names = [name.strip() for name in self.augment.split(",")]
        return tuple(name for name in names if name not in ("", "none"))

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """The numbers in `hidden`."""
        try:
            return tuple(int(width) for width in self.hidden.split(",") if width.strip())
        except ValueError as error:
            raise ConfigError(
                "E202",
                "--hidden is not understood",
                received=self.hidden,
                expected="whole numbers",
                cure="use --hidden 512,256,128",
            ) from error


# What a data set wants; flags and --config come before it.
DATA_RECIPES: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 25, "batch_size": 64, "width": 32},
    "mnist": {"epochs": 2, "batch_size": 256, "val_fraction": 1 / 12},
    "fashion-mnist": {"epochs": 12, "batch_size": 256, "augment": "flip", "val_fraction": 1 / 12},
    "cifar10": {"epochs": 20, "batch_size": 256, "augment": "flip,crop", "val_fraction": 0.1},
}
FOLDER_RECIPE: dict[str, Any] = {"epochs": 20, "augment": "flip,crop"}
MODEL_RECIPES: dict[str, dict[str, Any]] = {
    "mlp": {"learning_rate": 0.003},
    "lenet": {"learning_rate": 0.005},
    "resnet18": {"learning_rate": 0.003},
}


def recipe(data: str, model: str) -> dict[str, Any]:
    """Return the settings that suit a data set and a model."""
    return {**MODEL_RECIPES.get(model, {}), **DATA_RECIPES.get(data, FOLDER_RECIPE)}


def class_names(text: str) -> tuple[str, ...]:
    """Return names given with commas between them, or in a text file, one a line.

    Raises:
        ConfigError: fewer than two, or one twice.
    """
    path = Path(text)
    if "," not in text and path.is_file():
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise ConfigError("E203", f"cannot read the class names in {text}: {error}") from error
    else:
        lines = text.split(",")
    names = tuple(name.strip() for name in lines if name.strip())
    if len(names) < 2 or len(set(names)) != len(names):
        raise ConfigError(
            "E202",
            "--classes needs two or more different names",
            received=text[:80],
            cure="use --classes cat,dog or a file with one name a line",
        )
    return names


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Return numbers that are given with commas between them: 1 for grey, 3 for colour.

    Raises:
        ConfigError: they are no finite numbers, or not 1 or 3.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise ConfigError(
            "E202",
            f"{option} is not understood",
            received=text,
            expected="1 or 3 numbers",
            cure=f"use {option} 0.485,0.456,0.406",
        )
    return values
