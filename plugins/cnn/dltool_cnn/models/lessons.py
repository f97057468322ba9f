"""Small networks that courses and books begin with, as they print them.

They are here to be compared with: each has the parameter count of its source. What a source got
wrong (a softmax before the cross-entropy, branches without an activation) is not repeated.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltool_cnn.models.plain import pixels
from dltool_cnn.models.spec import Spec, at_least


def two_convolutions(spec: Spec) -> nn.Module:
    """Two 5x5 convolutions, 10 and 20 channels, and one layer; 8,490 parameters on 1x28x28."""
    at_least(spec, 16)
    height, width = (((side - 4) // 2 - 4) // 2 for side in spec.seen)
    return nn.Sequential(
        *(nn.Conv2d(spec.channels, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(20 * height * width, spec.num_classes),
    )


def cnn16(spec: Spec) -> nn.Module:
    """3x3 convolutions with 16 and 32 channels, a layer of 128; 206,922 parameters on 1x28x28."""
    return _two_and_dense(spec, 16, has_norm=False)


def cnn2(spec: Spec) -> nn.Module:
    """The same with 32 and 64 channels; 421,642 parameters on 1x28x28."""
    return _two_and_dense(spec, 32, has_norm=False)


def cnn2_bn(spec: Spec) -> nn.Module:
    """cnn2 with batch normalisation; 421,834 parameters on 1x28x28."""
    return _two_and_dense(spec, 32, has_norm=True)


def _two_and_dense(spec: Spec, width: int, *, has_norm: bool) -> nn.Module:
    at_least(spec, 4)
    height, breadth = (side // 4 for side in spec.seen)
    layers: list[nn.Module] = []
    for fan_in, fan_out in ((spec.channels, width), (width, 2 * width)):
        layers.append(nn.Conv2d(fan_in, fan_out, 3, padding=1))
        layers += [nn.BatchNorm2d(fan_out)] if has_norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        *(nn.Linear(2 * width * height * breadth, 128), nn.ReLU(), nn.Dropout(spec.dropout)),
        nn.Linear(128, spec.num_classes),
    )


def cnn5(spec: Spec) -> nn.Module:
    """Five 3x3 convolutions up to 256 channels and three layers; 1,772,490 parameters."""
    at_least(spec, 8)
    layers: list[nn.Module] = []
    channels = (spec.channels, 32, 64, 128, 256, 256)
    for number, (fan_in, fan_out) in enumerate(pairwise(channels)):
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.BatchNorm2d(fan_out), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if number in (0, 1, 4) else []
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        *(nn.Dropout(0.5), nn.Linear(256, 1024), nn.ReLU()),
        *(nn.Dropout(0.5), nn.Linear(1024, 512), nn.ReLU()),
        nn.Linear(512, spec.num_classes),
    )


class SmallInception(nn.Module):
    """Four ways side by side, 88 channels together."""

    def __init__(self, fan_in: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(fan_in, 16, 1)
        self.five = nn.Sequential(nn.Conv2d(fan_in, 16, 1), nn.ReLU(), nn.Conv2d(16, 24, 5, 1, 2))
        self.three = nn.Sequential(
            *(nn.Conv2d(fan_in, 16, 1), nn.ReLU()),
            *(nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU()),
            nn.Conv2d(24, 24, 3, 1, 1),
        )
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(fan_in, 24, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 88, H, W)."""
        return F.relu(torch.cat([self.one(x), self.five(x), self.three(x), self.pool(x)], 1))


def inception_small(spec: Spec) -> nn.Module:
    """Two 5x5 convolutions, each followed by a small Inception block; 97,298 on 1x28x28."""
    at_least(spec, 16)
    height, width = (((side - 4) // 2 - 4) // 2 for side in spec.seen)
    return nn.Sequential(
        *(nn.Conv2d(spec.channels, 10, 5), nn.MaxPool2d(2), nn.ReLU(), SmallInception(10)),
        *(nn.Conv2d(88, 20, 5), nn.MaxPool2d(2), nn.ReLU(), SmallInception(20)),
        nn.Flatten(),
        nn.Linear(88 * height * width, spec.num_classes),
    )


class ShortBlock(nn.Module):
    """relu(x + F(x)) of two 3x3 convolutions without norms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W); added first, then activated."""
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


def resnet_small(spec: Spec) -> nn.Module:
    """Two 5x5 convolutions, each followed by a residual block; 41,514 parameters on 1x28x28."""
    at_least(spec, 16)
    height, width = (((side - 4) // 2 - 4) // 2 for side in spec.seen)
    return nn.Sequential(
        *(nn.Conv2d(spec.channels, 16, 5), nn.ReLU(), nn.MaxPool2d(2), ShortBlock(16)),
        *(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2), ShortBlock(32)),
        nn.Flatten(),
        nn.Linear(32 * height * width, spec.num_classes),
    )


class SharedLayers(nn.Module):
    """One fully connected layer used twice, each time beside an identity.

    The two uses share the layer and have norms of their own: statistics of two depths do not mix.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width, affine=False) for _ in range(2))
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width)."""
        for norm in self.norms:
            x = x + self.dropout(F.relu(norm(self.layer(x)) * self.scale + self.shift))
        return x


def resmlp(spec: Spec) -> nn.Module:
    """A residual multilayer perceptron with shared weights; 26,570 parameters with --hidden 32."""
    width = spec.hidden[0]
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels(spec), width),
        SharedLayers(width, spec.dropout),
        nn.Linear(width, spec.num_classes),
    )
