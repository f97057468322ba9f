"""Settings that suit a data set and a model; what is given by flag or file comes before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dltool_cnn.config import TORCHVISION, TrainConfig

USUAL: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 25, "batch_size": 64, "width": 32},
    "mnist": {"epochs": 2, "batch_size": 256, "val_fraction": 1 / 12},
    "fashion-mnist": {"epochs": 12, "batch_size": 256, "augment": "flip", "val_fraction": 1 / 12},
    "cifar10": {"epochs": 20, "batch_size": 256, "augment": "flip,crop", "val_fraction": 0.1},
}
FOLDER: dict[str, Any] = {"epochs": 20, "augment": "flip,crop"}
BY_MODEL: dict[str, dict[str, Any]] = {
    "mlp": {"learning_rate": 0.003},
    "resmlp": {"learning_rate": 0.003, "hidden": "32"},
    "lenet": {"learning_rate": 0.005},
    "resnet18": {"learning_rate": 0.003},
    "resnet34": {"learning_rate": 0.003},
    "resnet18-d2l": {"learning_rate": 0.003},
    "alexnet": {"learning_rate": 0.0003},
    "vgg11": {"learning_rate": 0.0003},
    "nin": {"learning_rate": 0.001},
    "googlenet": {"learning_rate": 0.001},
}
BY_OPTIMIZER: dict[str, dict[str, Any]] = {
    "sgd": {"learning_rate": 0.1, "weight_decay": 5e-4},
    "muon": {"learning_rate": 0.02},
}
# a network that knows pictures already needs small steps, and few of them
TORCHVISION_FRESH: dict[str, Any] = {"learning_rate": 0.001}
TORCHVISION_TRAINED: dict[str, Any] = {"learning_rate": 0.0003, "head_lr": 0.003, "epochs": 5}

# what `--recipe fast` and `--recipe best` have in common
STRONG: dict[str, Any] = {
    "model": "preact",
    "width": 32,
    "optimizer": "muon",
    "learning_rate": 0.02,
    "batch_size": 256,
    "label_smoothing": 0.1,
}
FAST: dict[str, dict[str, Any]] = {
    "digits": {"width": 16, "epochs": 10, "batch_size": 64, "augment": "none"},
    "mnist": {"width": 16, "epochs": 4, "augment": "crop", "val_fraction": 1 / 12},
    "fashion-mnist": {"epochs": 12, "augment": "flip,crop", "val_fraction": 1 / 12},
    "cifar10": {"width": 40, "epochs": 12, "augment": "alternating-flip,crop"},
}
BEST: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 40, "batch_size": 64, "augment": "crop", "ema": 0.99},
    "mnist": {"epochs": 16, "augment": "crop,rotate", "val_fraction": 1 / 12, "ema": 0.999},
    "fashion-mnist": {
        "width": 48,
        "epochs": 16,
        "augment": "flip,crop,erase",
        "val_fraction": 1 / 12,
        "ema": 0.999,
    },
    "cifar10": {
        "width": 64,
        "epochs": 40,
        "augment": "alternating-flip,crop,cutout",
        "ema": 0.999,
    },
}
STRONG_FOLDER: dict[str, dict[str, Any]] = {
    "fast": {"epochs": 12, "augment": "alternating-flip,crop"},
    "best": {"epochs": 40, "width": 64, "augment": "alternating-flip,crop,erase", "ema": 0.99},
}


def recipe(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that suit what was chosen by flag or file.

    `fast` and `best` name a network and an optimizer too; with another `--model` their width, with
    another `--optimizer` their rate stays away. torchvision's models keep to the usual settings.
    """
    data = chosen.get("data", TrainConfig.data)
    kind = chosen.get("recipe", TrainConfig.recipe)
    model = str(chosen.get("model", ""))
    if kind not in STRONG_FOLDER or model.startswith(TORCHVISION):
        return _usual(data, model or TrainConfig.model, chosen)
    by_data = FAST if kind == "fast" else BEST
    found = {**STRONG, **by_data.get(data, STRONG_FOLDER[kind])}
    if model not in ("", found["model"]):
        del found["width"]
    optimizer = chosen.get("optimizer", found["optimizer"])
    if optimizer != found["optimizer"]:
        del found["learning_rate"]
        found |= BY_OPTIMIZER.get(optimizer, {})
    return found


def _usual(data: str, model: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    found = {**USUAL.get(data, FOLDER), **BY_MODEL.get(model, {})}
    if model.startswith(TORCHVISION):
        trained = chosen.get("pretrained") or chosen.get("weights")
        found |= TORCHVISION_TRAINED if trained else TORCHVISION_FRESH
    return found | BY_OPTIMIZER.get(chosen.get("optimizer", TrainConfig.optimizer), {})
