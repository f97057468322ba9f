"""Networks that a `cnn` run has trained, as the backbone of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models import resnet18

from dltool import checkpoint
from dltool.errors import CheckpointError

NETWORK = "network."
KINDS = ("resnet18", "resnet18-small")
# the classifier's last layer has no place in a detector
LEFT_OUT = ("fc.",)


class ResNet18(nn.Module):
    """torchvision's ResNet-18 without its classifier; gives the maps of its last three stages.

    Args:
        is_small: with the 3x3 stem without pooling that `cnn` uses for small images. The maps then
            have strides 8, 16 and 32 all the same: two poolings stand before the stem's stages.
    """

    def __init__(self, is_small: bool) -> None:
        super().__init__()
        whole = resnet18()
        if is_small:
            whole.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            # the stages learned on pictures where an object fills the frame: show them such
            self.before: nn.Module = nn.AvgPool2d(4)
            self.pool: nn.Module = nn.Identity()
        else:
            self.before, self.pool = nn.Identity(), whole.maxpool
        self.conv1, self.bn1, self.relu = whole.conv1, whole.bn1, whole.relu
        self.layer1, self.layer2 = whole.layer1, whole.layer2
        self.layer3, self.layer4 = whole.layer3, whole.layer4
        self.widths = [128, 256, 512]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return maps (B, 128, H/8, W/8), (B, 256, H/16, W/16), (B, 512, H/32, W/32)."""
        x = self.pool(self.relu(self.bn1(self.conv1(self.before(x)))))
        fine = self.layer2(self.layer1(x))
        middle = self.layer3(fine)
        return [fine, middle, self.layer4(middle)]


def build(kind: str) -> nn.Module:
    """Build a backbone of `KINDS` with random weights.

    Raises:
        KeyError: another kind.
    """
    if kind not in KINDS:
        raise KeyError(kind)
    return ResNet18(is_small=kind == "resnet18-small")


def read(run: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the kind and the weights of a finished `cnn` run's network.

    Raises:
        CheckpointError: it is no `cnn` model, is damaged, or is no network that gives maps.
    """
    folder = run / "model" if (run / "model").is_dir() else run
    tensors, description = checkpoint.load_model(folder)
    topic = description.get("topic")
    if topic != "cnn":
        raise CheckpointError(
            "E513",
            f"--backbone takes a run of cnn, and {run} is one of {topic}",
            cure="dltool cnn train --model resnet18 --image-size 64 --data FOLDER",
        )
    kind = _kind(description, tensors, run)
    own = {
        name.removeprefix(NETWORK): value
        for name, value in tensors.items()
        if name.startswith(NETWORK)
    }
    return kind, {name: value for name, value in own.items() if not name.startswith(LEFT_OUT)}


def _kind(description: Mapping[str, Any], tensors: Mapping[str, Tensor], run: Path) -> str:
    name = description.get("architecture", {}).get("name")
    stem = tensors.get(f"{NETWORK}conv1.weight")
    if name != "resnet18" or stem is None or stem.shape[1] != 3:
        raise CheckpointError(
            "E513",
            f"the network of {run} cannot be a backbone",
            received=name if name != "resnet18" else "resnet18 for grey pictures",
            expected="resnet18 trained on colour pictures",
            cure="dltool cnn train --model resnet18 --data FOLDER",
        )
    return "resnet18" if stem.shape[-1] == 7 else "resnet18-small"


def fill(backbone: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Put the weights of `read` into a backbone of the same kind.

    Raises:
        CheckpointError: they do not fit.
    """
    checkpoint.load_weights(backbone, weights, source)
