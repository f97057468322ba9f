"""The networks of the `cnn` topic, each with its normalisation inside.

References: LeNet-5 (LeCun et al., 1998), batch normalisation (Ioffe and Szegedy, 2015), residual
networks (He et al., 2015, https://arxiv.org/abs/1512.03385).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltool.errors import ConfigError

SMALL_IMAGE = 64


@dataclass(frozen=True)
class Spec:
    """What builds a network: its name and its sizes."""

    name: str
    channels: int
    height: int
    width: int
    num_classes: int
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    base_width: int = 16

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spec:
        """Rebuild a spec from JSON values."""
        return cls(**{**values, "hidden": tuple(values.get("hidden", ()))})


class Classifier(nn.Module):
    """Normalise images and classify them.

    Mean and deviation are buffers of the model, so no one can use it with others.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))  # (1, C, 1, 1)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) for images (B, C, H, W) with values 0 to 255."""
        # channels last: oneDNN and cuDNN convolve it without reordering
        x = images.to(torch.float32, memory_format=torch.channels_last)
        logits: Tensor = self.network((x / 255 - self.mean) / self.std)
        return logits


def build(spec: Spec, mean: Sequence[float], std: Sequence[float]) -> Classifier:
    """Build a network with fresh weights.

    Raises:
        ConfigError: the images are too small for it.
    """
    network = BUILDERS[spec.name](spec)
    return Classifier(network, mean, std).to(memory_format=torch.channels_last)


def linear(spec: Spec) -> nn.Module:
    """Softmax regression: logits = W x + b."""
    pixels = spec.channels * spec.height * spec.width
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, spec.num_classes))


def mlp(spec: Spec) -> nn.Module:
    """Fully connected layers with ReLU and dropout before the last."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = spec.channels * spec.height * spec.width
    for hidden in spec.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(spec.dropout)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, spec.num_classes))


def lenet(spec: Spec) -> nn.Module:
    """LeNet-5 as it was: sigmoid, average pooling; 61,706 parameters for 1x28x28, 10 classes."""
    height, width = (((side // 2) - 4) // 2 for side in (spec.height, spec.width))
    if height < 1 or width < 1:
        raise ConfigError(
            "E202",
            "lenet needs images of at least 12x12 pixels",
            received=f"{spec.height}x{spec.width}",
            cure="add --image-size 28",
        )
    return nn.Sequential(
        nn.Conv2d(spec.channels, 6, 5, padding=2),  # (B, 6, H, W)
        nn.Sigmoid(),
        nn.AvgPool2d(2),  # (B, 6, H/2, W/2)
        nn.Conv2d(6, 16, 5),  # (B, 16, H/2 - 4, W/2 - 4)
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * height * width, 120),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        nn.Sigmoid(),
        nn.Linear(84, spec.num_classes),
    )


def simple_cnn(spec: Spec) -> nn.Module:
    """Three 3x3 convolutions; pooling comes before the norm, which then costs a quarter."""
    _at_least(spec, 4)
    width = spec.base_width

    def block(fan_in: int, fan_out: int, pool: nn.Module) -> list[nn.Module]:
        conv = nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False)  # the norm has the bias
        return [conv, pool, nn.BatchNorm2d(fan_out), nn.ReLU(inplace=True)]

    return nn.Sequential(
        *block(spec.channels, width, nn.MaxPool2d(2)),  # (B, w, H/2, W/2)
        *block(width, 2 * width, nn.MaxPool2d(2)),  # (B, 2w, H/4, W/4)
        *block(2 * width, 4 * width, nn.AdaptiveMaxPool2d(2)),  # (B, 4w, 2, 2)
        nn.Flatten(),
        nn.Dropout(spec.dropout),
        nn.Linear(16 * width, spec.num_classes),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside an identity: relu(F(x) + x).

    Where the size changes the identity is subsampled and padded with zero channels (option A of
    the paper), which costs no parameter.
    """

    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.stride, self.new_channels = stride, fan_out - fan_in

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, fan_out, H/stride, W/stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride != 1 or self.new_channels:
            half = self.new_channels // 2
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, half, self.new_channels - half))
        return F.relu(out + x)


class ResNet20(nn.Module):
    """ResNet-20 for 32x32 images: 6n + 2 layers with n = 3, 16-32-64 channels."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, stride=1)
        self.layer2 = _stage(16, 32, stride=2)
        self.layer3 = _stage(32, 64, stride=2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)))  # (B, 16, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))  # (B, 64, H/4, W/4)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(fan_in: int, fan_out: int, stride: int) -> nn.Sequential:
    first = BasicBlock(fan_in, fan_out, stride)
    return nn.Sequential(first, *(BasicBlock(fan_out, fan_out, 1) for _ in range(2)))


def resnet20(spec: Spec) -> nn.Module:
    """ResNet-20 of the CIFAR experiments; 0.27 M parameters."""
    _at_least(spec, 4)
    return ResNet20(spec.channels, spec.num_classes)


def resnet18(spec: Spec) -> nn.Module:
    """torchvision's ResNet-18; below 64 pixels a 3x3 stem without pooling replaces its own."""
    from torchvision.models import resnet18 as torchvision_resnet18

    network: nn.Module = torchvision_resnet18(num_classes=spec.num_classes)
    if min(spec.height, spec.width) < SMALL_IMAGE:
        _at_least(spec, 8)
        network.conv1 = nn.Conv2d(spec.channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif spec.channels != 3:
        network.conv1 = nn.Conv2d(spec.channels, 64, 7, stride=2, padding=3, bias=False)
    return network


def _at_least(spec: Spec, side: int) -> None:
    if min(spec.height, spec.width) < side:
        raise ConfigError(
            "E202",
            f"{spec.name} needs images of at least {side}x{side} pixels",
            received=f"{spec.height}x{spec.width}",
            cure=f"add --image-size {side} or more",
        )


BUILDERS: dict[str, Callable[[Spec], nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "lenet": lenet,
    "simple-cnn": simple_cnn,
    "resnet20": resnet20,
    "resnet18": resnet18,
}


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
