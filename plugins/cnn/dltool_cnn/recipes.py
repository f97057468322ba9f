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
BY_OPTIMIZER: dict[str, dict[str, Any]] = {"sgd": {"learning_rate": 0.1, "weight_decay": 5e-4}}
# a network that knows pictures already needs small steps, and little of them
TORCHVISION_FRESH: dict[str, Any] = {"learning_rate": 0.001}
TORCHVISION_TRAINED: dict[str, Any] = {"learning_rate": 0.0003, "head_lr": 0.003, "epochs": 5}


def recipe(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that suit what was chosen by flag or file."""
    data = chosen.get("data", TrainConfig.data)
    usual = USUAL.get(data, FOLDER)
    model = chosen.get("model", usual.get("model", TrainConfig.model))
    found = {**usual, **BY_MODEL.get(model, {})}
    found |= BY_OPTIMIZER.get(chosen.get("optimizer", TrainConfig.optimizer), {})
    if str(model).startswith(TORCHVISION):
        trained = chosen.get("pretrained") or chosen.get("weights")
        found |= TORCHVISION_TRAINED if trained else TORCHVISION_FRESH
    return found
