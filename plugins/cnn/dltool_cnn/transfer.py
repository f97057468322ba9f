"""Begin from weights that are there already, and say what of the network is trained at which rate.

dltool cnn train --data FOLDER --model tv:resnet18 --pretrained --freeze backbone
dltool cnn train --data FOLDER --model tv:vit_b_16 --weights vit_b_16.pth --lora-rank 16
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltool import convert, optim
from dltool.console import Console, table
from dltool.data.download import is_offline
from dltool.errors import CheckpointError, ConfigError, DataError
from dltool_cnn import lora
from dltool_cnn.config import TrainConfig
from dltool_cnn.model import Classifier, Spec
from dltool_cnn.models import zoo

# exits for training that the published files of two models hold, and that are not built here
SIDE_EXITS = ("aux1.", "aux2.", "AuxLogits.")
# with the statistics that torchvision's port of these was trained on, whatever its files say
HALF = [0.5, 0.5, 0.5]


@dataclass(frozen=True)
class Source:
    """Weights to begin from.

    Attributes:
        name: of the file, for messages.
        tensors: by the names of the network.
        mean, std: what they were trained with; empty where that is not known.
    """

    name: str
    tensors: Mapping[str, Tensor]
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)


def read(config: TrainConfig, console: Console) -> Source | None:
    """Read the weights that a config begins from, or nothing.

    Raises:
        DataError: E504, published weights are not here and cannot be fetched.
        CheckpointError: the file is missing, damaged, or holds no weights.
    """
    if config.weights:
        return _from_file(Path(config.weights), config.model)
    if not config.pretrained:
        return None
    entry = zoo.weights_entry(config.model)
    target = Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rsplit("/", 1)[-1]
    if not target.is_file():
        _download(config.model, entry, target, console)
    return _published(config.model, target)


def _from_file(path: Path, model: str) -> Source:
    if path.is_dir() and (path / "model").is_dir():
        path = path / "model"
    if path.is_dir():
        path = path / "model.safetensors"
    if zoo.is_zoo(model) and path.suffix != ".safetensors":
        return _published(model, path)
    tensors = dict(convert.load_foreign(path).tensors)
    mean, std = tensors.pop("mean", None), tensors.pop("std", None)
    tensors = {name.removeprefix("network."): value for name, value in tensors.items()}
    if mean is not None and std is not None:
        return Source(str(path), tensors, mean.flatten().tolist(), std.flatten().tolist())
    return Source(str(path), tensors)


def _published(model: str, path: Path) -> Source:
    """Read a file that torchvision publishes; its preprocessing is known by the model's name."""
    tensors = convert.load_foreign(path).tensors
    inside = {name: x for name, x in tensors.items() if not name.startswith(SIDE_EXITS)}
    if zoo.builder_name(model) in zoo.WITH_EXITS:
        return Source(str(path), inside, HALF, HALF)
    transforms = zoo.weights_entry(model).transforms()
    return Source(str(path), inside, list(transforms.mean), list(transforms.std))


def _download(model: str, entry: Any, target: Path, console: Console) -> None:
    cure = f"fetch {entry.url} elsewhere and give it as --weights {target.name}"
    if is_offline():
        raise DataError(
            "E504",
            f"the weights of {model} are not in {target.parent}, and DLTOOL_OFFLINE forbids to "
            "fetch them",
            cure=cure,
        )
    size = entry.meta["_file_size"]
    console.note(f"downloading {entry.url} ({size:.0f} MB) to {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        # the end of the file's name is the beginning of its SHA-256; torch compares them
        torch.hub.load_state_dict_from_url(
            entry.url,
            str(target.parent),
            map_location="cpu",
            check_hash=True,
            progress=False,
            weights_only=True,
        )
    except (OSError, RuntimeError) as error:
        message = f"the weights of {model} could not be fetched: {error}"
        raise DataError("E504", message, cure=cure) from error


def fill(model: Classifier, spec: Spec, source: Source, console: Console) -> None:
    """Put weights into a network; a head for other classes stays fresh, and that is said.

    Raises:
        CheckpointError: E513, they are of another network.
    """
    network = model.network
    own = network.state_dict()
    name, module = zoo.head(network)
    head = {f"{name}.{key}" for key, _ in module.named_parameters()}
    tensors = {key: _resized(key, value, own, network) for key, value in source.tensors.items()}
    have = {key: tuple(value.shape) for key, value in tensors.items()}
    want = {key: tuple(value.shape) for key, value in own.items()}
    is_replaced = any(have.get(key) != want[key] for key in head)
    ignored = head if is_replaced else set()
    counters = {key for key in own if key.endswith("num_batches_tracked") and key not in have}
    wrong = sorted(
        key
        for key in (want.keys() | have.keys()) - ignored - counters
        if have.get(key) != want.get(key)
    )
    if wrong:
        raise CheckpointError(
            "E513",
            f"{source.name} holds weights of another network than {spec.name}: "
            f"{', '.join(wrong[:3])} ({len(wrong)} in all)",
            cure="choose the --model of these weights; dltool checkpoint info shows the names",
        )
    network.load_state_dict(
        {key: value for key, value in tensors.items() if key not in ignored}, strict=False
    )
    if is_replaced:
        was = have.get(f"{name}.weight", ("no",))[0]
        console.note(f"head {name} replaced: {was} classes before, {spec.num_classes} now")
    else:
        console.note(f"head {name} kept: it has {spec.num_classes} classes already")


def _resized(key: str, value: Tensor, own: Mapping[str, Tensor], network: nn.Module) -> Tensor:
    """Stretch the positions of a vision transformer to another number of patches."""
    if not key.endswith("pos_embedding") or key not in own or value.shape == own[key].shape:
        return value
    from torchvision.models.vision_transformer import interpolate_embeddings

    sides: Any = network
    found = interpolate_embeddings(sides.image_size, sides.patch_size, {key: value})
    resized: Tensor = found[key]
    return resized


def freeze(model: Classifier, config: TrainConfig) -> None:
    """Freeze what the config says, and add low-rank changes where it asks for them.

    Raises:
        ConfigError: there are fewer blocks than are to be frozen, or no attention to change.
    """
    _, head = zoo.head(model.network)
    if config.lora_rank:
        lora.add(model.network, config.lora_modules, config.lora_rank, config.lora_scale)
    elif config.freeze == "backbone":
        for parameter in model.network.parameters():
            parameter.requires_grad_(False)
    elif config.freeze != "none":
        _freeze_first(model.network, head, int(config.freeze))
    for parameter in head.parameters():
        parameter.requires_grad_(True)


def _freeze_first(network: nn.Module, head: nn.Module, count: int) -> None:
    parts = [module for _, module in blocks(network) if module is not head]
    if count > len(parts):
        raise ConfigError(
            "E202",
            "--freeze counts more blocks than there are before the head",
            received=count,
            expected=f"0 to {len(parts)}",
            cure="use --freeze backbone for all of them",
        )
    # what stands beside the blocks, as a class token, belongs to the first
    inside = {id(p) for _, module in blocks(network) for p in module.parameters()}
    if count:
        for parameter in network.parameters():
            if id(parameter) not in inside:
                parameter.requires_grad_(False)
    for module in parts[:count]:
        for parameter in module.parameters():
            parameter.requires_grad_(False)


def blocks(network: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """Return the parts of a network that hold weights, in order; chains are opened."""
    found = []
    for name, module in network.named_children():
        if not any(True for _ in module.parameters()):
            continue
        full = f"{prefix}{name}"
        if isinstance(module, nn.Sequential) or type(module).__name__ == "Encoder":
            found += blocks(module, f"{full}.")
        else:
            found.append((full, module))
    return found


def groups(model: Classifier, config: TrainConfig) -> list[dict[str, Any]]:
    """Return parameter groups of head and backbone, each with and without weight decay."""
    _, head = zoo.head(model.network)
    in_head = {id(parameter) for parameter in head.parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    parts = {
        "head": ([p for p in trained if id(p) in in_head], config.head_lr),
        "backbone": ([p for p in trained if id(p) not in in_head], config.backbone_lr),
    }
    found: list[dict[str, Any]] = []
    for part, (parameters, rate) in parts.items():
        for group in optim.parameter_groups(nn.ParameterList(parameters), config.weight_decay):
            found.append({**group, "part": part, "lr": rate or config.learning_rate})
    return found


def tell(model: Classifier, found: list[dict[str, Any]], console: Console) -> list[dict[str, Any]]:
    """Print the groups as a table, with what is frozen; return its rows."""
    rows = [
        {
            "part": group["part"],
            "tensors": len(group["params"]),
            "parameters": sum(parameter.numel() for parameter in group["params"]),
            "learning_rate": group["lr"],
            "weight_decay": group["weight_decay"],
        }
        for group in found
    ]
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    if frozen:
        count = sum(parameter.numel() for parameter in frozen)
        rows.append({"part": "frozen", "tensors": len(frozen), "parameters": count,
                     "learning_rate": 0.0, "weight_decay": 0.0})  # fmt: skip
    header = ("part", "tensors", "parameters", "lr", "weight decay")
    console.note(table([tuple(row.values()) for row in rows], header))
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = total - sum(parameter.numel() for parameter in frozen)
    console.note(f"{trained:,} of {total:,} parameters are trained ({trained / total:.2%})")
    return rows
