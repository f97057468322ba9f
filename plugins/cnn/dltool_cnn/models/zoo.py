"""torchvision's classification models by name: `tv:resnet50`, `tv:vit_b_16`, …"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from dltool.errors import ConfigError, closest
from dltool_cnn.models.spec import Spec

PREFIX = "tv:"
USUAL_SIDE = 224
# the side exits of these two are of use only where gradients vanish; batch normalisation cures that
WITH_EXITS = ("googlenet", "inception_v3")


@functools.cache
def names() -> tuple[str, ...]:
    """Return torchvision's classification models, without the prefix."""
    from torchvision import models

    return tuple(models.list_models(module=models))


def builder_name(name: str) -> str:
    """Return the name behind `tv:`.

    Raises:
        ConfigError: E206, torchvision has no such model.
    """
    short = name.removeprefix(PREFIX)
    if short not in names():
        near = closest(short, names())
        raise ConfigError(
            "E206",
            f"torchvision has no classification model {short!r}",
            expected="a name that dltool cnn models shows",
            cure=f"did you mean {PREFIX}{near}?" if near else "dltool cnn models",
        )
    return short


def weights_entry(name: str) -> Any:
    """Return torchvision's default weights for a model: address, preprocessing, categories."""
    from torchvision import models

    return models.get_model_weights(builder_name(name)).DEFAULT


def usual_side(name: str) -> int:
    """Return the side of the images that the published weights were trained on."""
    crop = weights_entry(name).transforms().crop_size
    return int(crop[0] if isinstance(crop, list | tuple) else crop)


def build(spec: Spec, num_classes: int | None = None) -> nn.Module:
    """Build a model of torchvision with fresh weights; grey images come as three equal channels.

    Raises:
        ConfigError: E202, it does not take images of this size; E206, there is no such model.
    """
    from torchvision import models

    short = builder_name(spec.name)
    height, width = spec.seen
    options: dict[str, Any] = {"num_classes": num_classes or spec.num_classes}
    if short in WITH_EXITS:
        options |= {"aux_logits": False, "init_weights": True}
    if short.startswith("vit_"):
        options["image_size"] = height
    if short.startswith("maxvit"):
        options["input_size"] = (height, width)
    if spec.dropout:
        options["dropout"] = spec.dropout
    network = _made(models.get_model, short, options, spec)
    _refuse_small(network, spec)
    return network


def _made(make: Any, short: str, options: dict[str, Any], spec: Spec) -> nn.Module:
    try:
        network: nn.Module = make(short, weights=None, **options)
    except TypeError as error:
        if "dropout" not in str(error):
            raise
        raise ConfigError(
            "E205", f"{spec.name} has no --dropout of its own", cure="leave --dropout out"
        ) from error
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _wrong_size(spec, error) from error
    return network


def _refuse_small(network: nn.Module, spec: Spec) -> None:
    """Show it one empty picture, so that a wrong size is told before the data is read."""
    was_training = network.training
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, *spec.seen, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _wrong_size(spec, error) from error
    finally:
        network.train(was_training)


def _wrong_size(spec: Spec, error: Exception) -> ConfigError:
    height, width = spec.seen
    reason = str(error).strip().splitlines()
    side = usual_side(spec.name)
    return ConfigError(
        "E202",
        f"{spec.name} cannot take images of {height}x{width}"
        + (f": {reason[0][:120].rstrip('.!')}" if reason else ""),
        cure=f"add --image-size {side} (to summary: --input 3x{side}x{side})",
    )


def head(network: nn.Module) -> tuple[str, nn.Module]:
    """Return name and module of the layer that gives the logits: the last that has weights.

    SqueezeNet's is a convolution, all others' a linear layer.
    """
    found = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        or (isinstance(module, nn.Conv2d) and name.startswith("classifier."))
    ]
    return found[-1]


def three_channels(values: list[float]) -> list[float]:
    """Return a mean or deviation for three channels from one for grey images."""
    return values * 3 if len(values) == 1 else values


def is_zoo(name: str) -> bool:
    """Tell whether a model's name is one of torchvision's."""
    return name.startswith(PREFIX)
