"""Grad-CAM: where on an image a convolutional network found what made it answer.

R. R. Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization (2017), https://arxiv.org/abs/1610.02391; with the gradients left at their places as in
R. L. Draelos and L. Carin, Use HiResCAM instead of Grad-CAM (2020), https://arxiv.org/abs/2011.08891.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltool.errors import ConfigError
from dltool.picture_grid import image_grid
from dltool_cnn.model import Classifier

SIDE = 224  # small images grow by whole factors to about this side
STRENGTH = 0.55  # of the colours over the image
SMALLEST = 2  # a map of one place points nowhere

Pixels = npt.NDArray[np.uint8]


def target_layer(model: Classifier, images: Tensor) -> str:
    """Return the name of the layer whose output holds the last map of features.

    It is the last to finish among the layers that give a map of the size which the last
    convolution gives (of those with more than one place): behind it pooling forgets the places.
    For a residual network that is the output of its last stage. A convolution that is pooled before
    any activation gives way to what it looks at.

    Raises:
        ConfigError: E205, the network has no such map: it is none of convolutions.
    """
    finished: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def note(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                finished.append((name, module, tuple(output.shape[2:])))

        return hook

    with (
        torch.no_grad(),
        _hooks(
            [(module, note(name, module)) for name, module in model.network.named_modules() if name]
        ),
    ):
        model(images[:1])
    convolutions = [
        row for row in finished if isinstance(row[1], nn.Conv2d) and min(row[2]) >= SMALLEST
    ]
    attends = any("attention" in type(module).__name__.lower() for module in model.modules())
    if not convolutions or attends:
        raise ConfigError(
            "E205",
            "--explain shows where convolutions look, and this network ends in no map",
            expected="a convolutional network, whose maps have 2x2 places or more",
            cure="leave --explain out, or train a model such as simple-cnn or resnet18",
        )
    last = finished.index(convolutions[-1])
    size = convolutions[-1][2]
    chosen = max(place for place in range(last, len(finished)) if finished[place][2] == size)
    if chosen == last and last and min(finished[last - 1][2]) >= SMALLEST:
        # nothing but pooling follows: the convolution's own sums have no activation yet, and what
        # speaks against a class would cancel what speaks for it
        chosen = last - 1
    return finished[chosen][0]


@contextmanager
def _hooks(pairs: Sequence[tuple[nn.Module, Any]]) -> Iterator[None]:
    """Hang hooks on layers, and take them off whatever happens."""
    handles = [module.register_forward_hook(hook) for module, hook in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def maps(model: Classifier, images: Tensor, chosen: Tensor, layer: str) -> Tensor:
    """Return what spoke for a class at each place (B, h, w), from 0 up to 1 on each image.

    The map is ReLU(Σₖ ∂(logit of the class)/∂Aₖ ⊙ Aₖ). Grad-CAM averages the gradient over the
    places first, which changes nothing in a network that averages its last map (residual networks
    and most others do), and elsewhere points to places that had no say. All 0: nothing spoke for
    the class.

    Args:
        images: (B, C, H, W) uint8, on the model's device; the model is in evaluation mode.
        chosen: (B,) class numbers.
        layer: name of a layer of the network, from `target_layer`.
    """
    held: list[Tensor] = []

    def keep(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        # cut off from what comes before, whose gradients nobody needs; the copy is for layers
        # that write in place
        held.append(output.detach().requires_grad_())
        return held[-1].clone()

    with torch.enable_grad(), _hooks([(model.network.get_submodule(layer), keep)]):
        logits = model(images)  # (B, num_classes)
        score = logits.gather(1, chosen.view(-1, 1).to(logits.device)).sum()
        (gradient,) = torch.autograd.grad(score, held[-1])  # (B, K, h, w)
    heat = (gradient * held[-1].detach()).sum(1).relu()  # (B, h, w)
    most = heat.amax((1, 2), keepdim=True)
    return heat / most.where(most > 0, torch.ones_like(most))


def draw_explained(
    pictures: Sequence[Pixels], heats: Tensor, titles: Sequence[str], path: Path
) -> None:
    """Draw images, each beside itself under the colours of its map.

    Args:
        pictures: (H, W, C) bytes each.
        heats: (N, h, w), 0 to 1.
    """
    tiles: list[Pixels] = []
    texts: list[str] = []
    for pixels, heat, title in zip(pictures, heats, titles, strict=True):
        grown = _grown(pixels)
        tiles += [grown, overlaid(grown, heat)]
        texts += [title, "" if bool(heat.any()) else "nothing spoke for it"]
    image_grid(
        tiles,
        texts,
        path,
        columns=min(6, 2 * len(pictures)),
        title="Grad-CAM",
        description="Each image, and where the network found what made it answer: red spoke most.",
    )


def _grown(pixels: Pixels) -> Pixels:
    factor = max(1, SIDE // max(pixels.shape[:2]))
    colour = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return np.ascontiguousarray(colour.repeat(factor, 0).repeat(factor, 1))


def overlaid(pixels: Pixels, heat: Tensor) -> Pixels:
    """Return an image (H, W, 3) under the colours of a map (h, w); a map of zeros adds none."""
    from matplotlib import colormaps

    size = pixels.shape[:2]
    smooth = F.interpolate(heat[None, None].float().cpu(), size, mode="bilinear")[0, 0].numpy()
    colours = 255 * colormaps["jet"](smooth)[..., :3]
    share = STRENGTH if smooth.any() else 0.0
    mixed: Pixels = np.rint((1 - share) * pixels + share * colours).astype(np.uint8)
    return mixed
