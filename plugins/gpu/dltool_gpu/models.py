"""Find the model that `dltool gpu budget` is asked about."""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dltool import headers, stored
from dltool.errors import ConfigError, DataError, closest

EDGES = {"inception_v3": 299}
CLIPS = {
    "r3d_18": (3, 16, 112, 112),
    "mc3_18": (3, 16, 112, 112),
    "r2plus1d_18": (3, 16, 112, 112),
}
CLIP = (3, 16, 224, 224)
# families of torchvision that need more than a batch of pictures to be trained, or cannot be
UNFIT = {
    "detection": "its training step depends on boxes",
    "optical_flow": "it takes pairs of pictures",
    "quantization": "quantized models are not trained",
}


@dataclass(frozen=True)
class Input:
    """One input of a model, for one sample: its shape, and whether it holds whole numbers."""

    shape: tuple[int, ...]
    is_integer: bool = False

    def batch(self, size: int, device: torch.device | str = "cpu") -> Tensor:
        """Return a batch of such inputs, (size, *shape)."""
        if self.is_integer:
            return torch.zeros(size, *self.shape, dtype=torch.int64, device=device)
        return torch.randn(size, *self.shape, device=device)


@dataclass(frozen=True)
class Source:
    """A model by name: how to build it, or only the shapes of its stored weights.

    Attributes:
        build: makes the model; None where only weights are known.
        weights: bytes and number of stored weights, by number format.
    """

    name: str
    build: Callable[[], nn.Module] | None
    inputs: tuple[Input, ...] = ()
    weights: tuple[tuple[str, int, int], ...] = ()


def find(name: str, shapes: list[str]) -> Source:
    """Return the model that a user names.

    Raises:
        ConfigError: E206, nothing has this name; E201, its input must be given; E202, --input.
        DataError, CheckpointError: E502, E511, E512, a path holds no readable weights.
    """
    inputs = tuple(parse_input(text) for text in shapes)
    if Path(name).exists():
        if inputs:
            raise ConfigError(
                "E205", "stored weights take no --input: how they compute is not stored with them"
            )
        return _of_path(Path(name))
    if re.fullmatch(r"[\w.]+:\w+", name):
        return _of_function(name, inputs)
    return _of_torchvision(name, inputs)


def parse_input(text: str) -> Input:
    """Read `3x224x224`, or `128:int`.

    Raises:
        ConfigError: E202, it is written otherwise.
    """
    match = re.fullmatch(r"([1-9]\d*(?:[x×][1-9]\d*)*)(:int)?", text)
    shape = tuple(int(part) for part in re.split("[x×]", match[1])) if match else ()
    if match is None or math.prod(shape) > 1 << 40:
        raise ConfigError(
            "E202",
            "--input is no shape",
            received=text,
            expected="sizes with x between them, :int behind them for whole numbers",
            cure="write it like --input 3x224x224 or --input 128:int",
        )
    return Input(shape, match[2] is not None)


def _of_path(path: Path) -> Source:
    folder = stored.one_of(path)
    file = folder if folder.is_file() else folder / "model.safetensors"
    if not file.exists() or file.suffix != ".safetensors":
        raise DataError(
            "E502",
            f"{file} is no safetensors file",
            cure=f"dltool checkpoint convert {path} converted",
        )
    sums: dict[str, tuple[int, int]] = {}
    for entry in headers.read(file):
        count, size = sums.get(entry.dtype, (0, 0))
        sums[entry.dtype] = count + entry.values, size + entry.bytes
    rows = tuple((dtype, count, size) for dtype, (count, size) in sorted(sums.items()))
    return Source(str(path), None, weights=rows)


def _of_function(name: str, inputs: tuple[Input, ...]) -> Source:
    module_name, _, function_name = name.partition(":")
    if not inputs:
        raise ConfigError(
            "E201", f"the input of {name} is not known", cure="add --input, such as 3x224x224"
        )
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as python -m does
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except AttributeError as error:
        raise ConfigError("E206", f"{module_name} has no {function_name}") from error
    except Exception as error:
        text = f"{module_name} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError("E206", text, cure="run it where the module is found") from error
    return Source(name, lambda: _called(name, function), inputs)


def _called(name: str, function: Callable[[], object]) -> nn.Module:
    try:
        model = function()
    except Exception as error:
        text = f"{name}() raised {type(error).__name__}: {error}"
        raise ConfigError("E202", text, cure="it must build the model without arguments") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            "E202", f"{name}() returned {type(model).__name__}", expected="a torch.nn.Module"
        )
    return model


def _of_torchvision(name: str, inputs: tuple[Input, ...]) -> Source:
    from torchvision import models

    known = models.list_models()
    if name not in known:
        near = closest(name, known)
        raise ConfigError(
            "E206",
            f"there is no model, module or path {name!r}",
            expected="a name of torchvision, MODULE:FUNCTION, or a path",
            cure=f"did you mean {near}?"
            if near
            else "python -c 'import torchvision; "
            "print(torchvision.models.list_models())' lists them",
        )
    family = models.get_model_builder(name).__module__.split(".")[2]
    if family in UNFIT:
        raise ConfigError(
            "E206",
            f"{name} cannot be predicted: {UNFIT[family]}",
            cure="give MODULE:FUNCTION that returns the part of it that takes tensors alone",
        )
    usual: tuple[int, ...] = (3, EDGES.get(name, 224), EDGES.get(name, 224))
    if family == "video":
        usual = CLIPS.get(name, CLIP)
    return Source(name, lambda: _torchvision_model(name), inputs or (Input(usual),))


def _torchvision_model(name: str) -> nn.Module:
    from torchvision import models

    # warns about its own start values and downloads a backbone unless told otherwise
    extra: dict[str, object] = (
        {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    )
    module = models.get_model_builder(name).__module__
    if ".segmentation" in module:
        extra = {"weights_backbone": None}
    model: nn.Module = models.get_model(name, weights=None, **extra)
    return model
