"""Networks with shortcuts (He et al., 2015, https://arxiv.org/abs/1512.03385; 2016, 1603.05027)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dltool_cnn.models.spec import SMALL_IMAGE, Spec, at_least


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
    at_least(spec, 4)
    return ResNet20(spec.channels, spec.num_classes)


def resnet18(spec: Spec) -> nn.Module:
    """torchvision's ResNet-18; below 64 pixels a 3x3 stem without pooling replaces its own."""
    return _torchvision("resnet18", spec)


def resnet34(spec: Spec) -> nn.Module:
    """torchvision's ResNet-34, with the same stem for small images."""
    return _torchvision("resnet34", spec)


def _torchvision(name: str, spec: Spec) -> nn.Module:
    from torchvision import models

    network: nn.Module = getattr(models, name)(num_classes=spec.num_classes)
    if min(spec.seen) < SMALL_IMAGE:
        at_least(spec, 8)
        network.conv1 = nn.Conv2d(spec.channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif spec.channels != 3:
        network.conv1 = nn.Conv2d(spec.channels, 64, 7, stride=2, padding=3, bias=False)
    return network


class LessonBlock(nn.Module):
    """The residual block of "Dive into Deep Learning": biases, and no norm in the shortcut."""

    def __init__(self, fan_in: int, fan_out: int, *, has_shortcut: bool) -> None:
        super().__init__()
        stride = 1 if fan_in == fan_out else 2
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1)
        self.bn1 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.has_shortcut = has_shortcut
        self.shortcut: nn.Module = nn.Identity()
        if has_shortcut and stride == 2:
            self.shortcut = nn.Conv2d(fan_in, fan_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + x), or relu(F(x)) without a shortcut."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x) if self.has_shortcut else out)


def lesson_resnet18(spec: Spec) -> nn.Module:
    """ResNet-18 as lessons build it; 11,178,378 parameters for 1 channel and 10 classes."""
    return _lesson(spec, has_shortcut=True)


def plain18(spec: Spec) -> nn.Module:
    """The same eighteen layers without shortcuts, to see what those do."""
    return _lesson(spec, has_shortcut=False)


def _lesson(spec: Spec, *, has_shortcut: bool) -> nn.Module:
    at_least(spec, 28)
    blocks = [
        LessonBlock(fan_in, fan_out, has_shortcut=has_shortcut)
        for fan_in, fan_out in (
            *((64, 64), (64, 64), (64, 128), (128, 128)),
            *((128, 256), (256, 256), (256, 512), (512, 512)),
        )
    ]
    stem = (nn.Conv2d(spec.channels, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU())
    return nn.Sequential(
        *stem,
        nn.MaxPool2d(3, 2, 1),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, spec.num_classes),
    )


class PreActivation(nn.Module):
    """A pre-activation block: x + conv(relu(norm(conv(relu(norm(x))))))."""

    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(fan_in)
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or fan_in != fan_out:
            self.shortcut = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, fan_out, H/stride, W/stride)."""
        active = F.relu(self.bn1(x))
        kept: Tensor = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = kept + self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out


def preact(spec: Spec) -> nn.Module:
    """A small pre-activation net: a strided stem and three stages of one block.

    The stem halves the image at once, so that most of the work is done on a quarter of the pixels.
    """
    at_least(spec, 8)
    width = spec.base_width or 48
    return nn.Sequential(
        nn.Conv2d(spec.channels, width, 3, padding=1, bias=False),
        nn.MaxPool2d(2),  # (B, w, H/2, W/2)
        PreActivation(width, width, 1),
        PreActivation(width, 2 * width, 2),  # (B, 2w, H/4, W/4)
        PreActivation(2 * width, 4 * width, 2),  # (B, 4w, H/8, W/8)
        nn.BatchNorm2d(4 * width),
        nn.ReLU(inplace=True),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Dropout(spec.dropout),
        nn.Linear(4 * width, spec.num_classes),
    )
