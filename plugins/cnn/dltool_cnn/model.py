"""A classifier: a network with its preprocessing inside.

The networks themselves are in `models/`: `plain` without shortcuts, `residual` with, `lessons` the
small ones of courses and books, `zoo` torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltool_cnn.models import lessons, plain, residual, zoo
from dltool_cnn.models.spec import SMALL_IMAGE as SMALL_IMAGE
from dltool_cnn.models.spec import Spec as Spec

BUILDERS: dict[str, Callable[[Spec], nn.Module]] = {
    "linear": plain.linear,
    "mlp": plain.mlp,
    "resmlp": lessons.resmlp,
    "lenet": plain.lenet,
    "lenet-bn": plain.lenet_bn,
    "simple-cnn": plain.simple_cnn,
    "preact": residual.preact,
    "cnn-5x5": lessons.two_convolutions,
    "cnn16": lessons.cnn16,
    "cnn2": lessons.cnn2,
    "cnn2-bn": lessons.cnn2_bn,
    "cnn5": lessons.cnn5,
    "inception-small": lessons.inception_small,
    "resnet-small": lessons.resnet_small,
    "resnet20": residual.resnet20,
    "resnet18": residual.resnet18,
    "resnet34": residual.resnet34,
    "resnet18-d2l": residual.lesson_resnet18,
    "plain18": residual.plain18,
    "alexnet": plain.alexnet,
    "vgg11": plain.vgg11,
    "nin": plain.nin,
    "googlenet": plain.googlenet,
}


class Classifier(nn.Module):
    """Enlarge and normalise images and classify them.

    Mean and deviation are buffers of the model, so no one can use it with others.

    Args:
        side: images are enlarged to it first; 0: they are taken as they are.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], side: int = 0
    ) -> None:
        super().__init__()
        self.network, self.side = network, side
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))  # (1, C, 1, 1)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) for images (B, C, H, W) with values 0 to 255."""
        # channels last: oneDNN and cuDNN convolve it without reordering
        x = images.to(torch.float32, memory_format=torch.channels_last)
        if self.side:
            x = F.interpolate(x, (self.side, self.side), mode="bilinear", align_corners=False)
        # grey images meet a network for colour: three means make three channels of one
        logits: Tensor = self.network((x / 255 - self.mean) / self.std)
        return logits

    def normalisation(self) -> tuple[list[float], list[float]]:
        """Return mean and deviation of each channel, on the 0-to-1 scale."""
        return self.mean.flatten().tolist(), self.std.flatten().tolist()

    def train(self, mode: bool = True) -> Classifier:
        """Set the mode; a layer whose weights are all frozen stays in evaluation mode.

        Otherwise the statistics of frozen batch normalisation would drift away from its weights.
        """
        super().train(mode)
        for module in self.network.modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, NORMS) and own and not any(p.requires_grad for p in own):
                module.eval()
        return self


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def build(spec: Spec, mean: Sequence[float], std: Sequence[float]) -> Classifier:
    """Build a network with fresh weights.

    Raises:
        ConfigError: the images are too small for it, or torchvision has no model of that name.
    """
    if zoo.is_zoo(spec.name):
        network = zoo.build(spec)
        mean, std = zoo.three_channels(list(mean)), zoo.three_channels(list(std))
    else:
        network = BUILDERS[spec.name](spec)
    return Classifier(network, mean, std, spec.side).to(memory_format=torch.channels_last)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
