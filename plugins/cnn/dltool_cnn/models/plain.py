"""Networks without shortcuts, from softmax regression to GoogLeNet.

References: LeNet-5 (LeCun et al., 1998), AlexNet (Krizhevsky et al., 2012), network in network (Lin
et al., 2013), VGG (Simonyan and Zisserman, 2014), GoogLeNet (Szegedy et al., 2014), batch
normalisation (Ioffe and Szegedy, 2015). Widths and strides are those of "Dive into Deep Learning",
whose parameter counts the tests compare.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dltool_cnn.models.spec import Spec, at_least


def linear(spec: Spec) -> nn.Module:
    """Softmax regression: logits = W x + b."""
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels(spec), spec.num_classes))


def mlp(spec: Spec) -> nn.Module:
    """Fully connected layers with ReLU and dropout before the last."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = pixels(spec)
    for hidden in spec.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(spec.dropout)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, spec.num_classes))


def pixels(spec: Spec) -> int:
    """Return how many numbers an image is."""
    height, width = spec.seen
    return spec.channels * height * width


def lenet(spec: Spec) -> nn.Module:
    """LeNet-5 as it was: sigmoid, average pooling; 61,706 parameters for 1x28x28, 10 classes."""
    at_least(spec, 12)
    height, width = (((side // 2) - 4) // 2 for side in spec.seen)
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


def lenet_bn(spec: Spec) -> nn.Module:
    """LeNet with batch normalisation before each sigmoid; 44,878 parameters on 1x28x28.

    Without padding in front, as in the lesson it comes from: 16x4x4 features, not 16x5x5.
    """
    at_least(spec, 16)
    height, width = ((((side - 4) // 2) - 4) // 2 for side in spec.seen)
    return nn.Sequential(
        *(nn.Conv2d(spec.channels, 6, 5), nn.BatchNorm2d(6), nn.Sigmoid(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.Sigmoid(), nn.AvgPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(16 * height * width, 120), nn.BatchNorm1d(120), nn.Sigmoid()),
        *(nn.Linear(120, 84), nn.BatchNorm1d(84), nn.Sigmoid()),
        nn.Linear(84, spec.num_classes),
    )


def simple_cnn(spec: Spec) -> nn.Module:
    """Three 3x3 convolutions; pooling comes before the norm, which then costs a quarter."""
    at_least(spec, 4)
    width = spec.base_width or 16

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


def alexnet(spec: Spec) -> nn.Module:
    """AlexNet; 46,764,746 parameters and 938,146,176 multiply-adds on 1x224x224, 10 classes."""
    at_least(spec, 63)
    height, width = (_pooled(_pooled(_pooled((side - 9) // 4 + 1))) for side in spec.seen)
    return nn.Sequential(
        *(nn.Conv2d(spec.channels, 96, 11, stride=4, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        nn.Flatten(),
        *(nn.Linear(256 * height * width, 4096), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(4096, spec.num_classes),
    )


def _pooled(side: int) -> int:
    return (side - 3) // 2 + 1


def vgg11(spec: Spec) -> nn.Module:
    """VGG-11; 128,806,154 parameters on 1x224x224, 10 classes. `--width 16` is a quarter of it."""
    at_least(spec, 32)
    width = spec.base_width or 64
    layers: list[nn.Module] = []
    fan_in = spec.channels
    for convolutions, factor in ((1, 1), (1, 2), (2, 4), (2, 8), (2, 8)):
        for _ in range(convolutions):
            layers += [nn.Conv2d(fan_in, factor * width, 3, padding=1), nn.ReLU(inplace=True)]
            fan_in = factor * width
        layers.append(nn.MaxPool2d(2))
    height, breadth = (side // 32 for side in spec.seen)
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        *(nn.Linear(fan_in * height * breadth, 4096), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(4096, spec.num_classes),
    )


def nin(spec: Spec) -> nn.Module:
    """Network in network: 1x1 convolutions instead of fully connected layers; 1,992,166."""
    at_least(spec, 67)

    def block(fan_in: int, fan_out: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
        return nn.Sequential(
            *(nn.Conv2d(fan_in, fan_out, kernel, stride, padding), nn.ReLU()),
            *(nn.Conv2d(fan_out, fan_out, 1), nn.ReLU()),
            *(nn.Conv2d(fan_out, fan_out, 1), nn.ReLU()),
        )

    return nn.Sequential(
        *(block(spec.channels, 96, 11, 4, 0), nn.MaxPool2d(3, 2)),
        *(block(96, 256, 5, 1, 2), nn.MaxPool2d(3, 2)),
        *(block(256, 384, 3, 1, 1), nn.MaxPool2d(3, 2)),
        nn.Dropout(0.5),
        block(384, spec.num_classes, 3, 1, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class Inception(nn.Module):
    """Four ways side by side, joined along the channels: 1x1, 3x3, 5x5 and pooling."""

    def __init__(
        self,
        fan_in: int,
        one: int,
        three: tuple[int, int],
        five: tuple[int, int],
        pool: int,
    ) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(fan_in, one, 1), nn.ReLU())
        self.three = _narrow_then(fan_in, *three, kernel=3)
        self.five = _narrow_then(fan_in, *five, kernel=5)
        self.pool = nn.Sequential(
            nn.MaxPool2d(3, 1, padding=1), nn.Conv2d(fan_in, pool, 1), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, one + three + five + pool, H, W)."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def _narrow_then(fan_in: int, narrow: int, fan_out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(fan_in, narrow, 1), nn.ReLU()),
        *(nn.Conv2d(narrow, fan_out, kernel, padding=kernel // 2), nn.ReLU()),
    )


def googlenet(spec: Spec) -> nn.Module:
    """GoogLeNet with its nine Inception blocks, without the two side exits."""
    at_least(spec, 32)
    return nn.Sequential(
        *(nn.Conv2d(spec.channels, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        *(nn.Conv2d(64, 64, 1), nn.ReLU()),
        *(nn.Conv2d(64, 192, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        Inception(192, 64, (96, 128), (16, 32), 32),  # 256 channels
        Inception(256, 128, (128, 192), (32, 96), 64),  # 480
        nn.MaxPool2d(3, 2, 1),
        Inception(480, 192, (96, 208), (16, 48), 64),  # 512
        Inception(512, 160, (112, 224), (24, 64), 64),  # 512
        Inception(512, 128, (128, 256), (24, 64), 64),  # 512
        Inception(512, 112, (144, 288), (32, 64), 64),  # 528
        Inception(528, 256, (160, 320), (32, 128), 128),  # 832
        nn.MaxPool2d(3, 2, 1),
        Inception(832, 256, (160, 320), (32, 128), 128),  # 832
        Inception(832, 384, (192, 384), (48, 128), 128),  # 1024
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(1024, spec.num_classes),
    )
