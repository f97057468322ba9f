"""Checkpoints: safetensors and JSON, hashed, written atomically, verified before they are trusted.

A checkpoint is a folder:

    model.safetensors       the model's parameters and buffers
    optimizer.safetensors   tensors of the optimizer, schedule and scaler
    rng.safetensors         the states of the random streams
    state.json              position, best value and the shape of what the tensors belong to
    MANIFEST.json           size and SHA-256 of each file; written last

A checkpoint of the best weights holds only the model; a caller names further parts as it likes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as encode
from torch import Tensor, nn

from dltool import __version__, files
from dltool.errors import CheckpointError, Diverged, DltoolError

FORMAT = 1
MANIFEST = "MANIFEST.json"
MODEL = "model.safetensors"
STATE = "state.json"
DESCRIPTION = "model.json"
HASH_CHUNK = 1 << 22


@dataclass(frozen=True)
class Checkpoint:
    """What a verified checkpoint holds.

    Attributes:
        path: its folder.
        model: tensors by name, tied ones included.
        parts: nested training state by part, as it was given to `save`.
        state: plain values: position, best and the like.
    """

    path: Path
    model: dict[str, Tensor]
    parts: dict[str, Any]
    state: dict[str, Any]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module itself, out of `torch.compile` and DistributedDataParallel."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def save(
    folder: Path,
    model: nn.Module | Mapping[str, Tensor],
    parts: Mapping[str, Any],
    state: Mapping[str, Any],
) -> None:
    """Write a checkpoint folder; it appears whole or not at all.

    Args:
        model: a module, or tensors by name.
        parts: name of a file -> any nesting of dicts, lists, tuples, plain values and tensors.
        state: plain JSON values.

    Raises:
        Diverged: a weight is not finite; nothing is written.
        DltoolError: the disk is full or the folder cannot be written; the old one stays.
    """
    tensors = dict(unwrap(model).state_dict() if isinstance(model, nn.Module) else model)
    refuse_non_finite(tensors)
    unique, tied = _without_ties(tensors)
    contents = {MODEL: encode(unique, {"format": "pt"})}
    skeletons = {}
    for part, tree in parts.items():
        part_tensors: dict[str, Tensor] = {}
        skeletons[part] = flatten(tree, part_tensors)
        contents[f"{part}.safetensors"] = encode(part_tensors)
    contents[STATE] = files.json_bytes({"state": dict(state), "tied": tied, "parts": skeletons})
    _write_folder(folder, contents)


def save_model(folder: Path, model: nn.Module, description: Mapping[str, Any]) -> None:
    """Write a model folder that is used without its run: weights and `model.json`.

    Args:
        description: plain JSON values: what builds the model, its classes, its preprocessing.

    Raises:
        Diverged: a weight is not finite.
        DltoolError: the folder cannot be written.
    """
    tensors = dict(unwrap(model).state_dict())
    refuse_non_finite(tensors)
    unique, tied = _without_ties(tensors)
    document = {"format": FORMAT, "dltool": __version__, **description, "tied": tied}
    contents = {MODEL: encode(unique, {"format": "pt"}), DESCRIPTION: files.json_bytes(document)}
    _write_folder(folder, contents)


def load_model(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Verify a model folder and return its tensors and its description.

    Raises:
        CheckpointError: it is damaged, incomplete or of a newer format.
    """
    verify(folder)
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    tensors = read_tensors(folder / MODEL)
    for name, kept in description["tied"].items():
        tensors[name] = tensors[kept]
    return tensors, description


def _write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    with files.folder_written_atomically(folder) as temporary:
        entries = {name: _write(temporary / name, data) for name, data in contents.items()}
        head = {"format": FORMAT, "dltool": __version__, "files": entries}
        files.write_synced(temporary / MANIFEST, files.json_bytes(head))


def refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise when any floating-point tensor holds NaN or infinity.

    Raises:
        Diverged: naming the first such tensor.
    """
    floating = {name: value for name, value in tensors.items() if value.is_floating_point()}
    if not floating:
        return
    # one number a tensor and one transfer: a sum is non-finite when any part of it is, and the
    # exact test below decides when a sum merely overflowed
    sums = torch.stack(
        [value.detach().sum(dtype=torch.float64).cpu() for value in floating.values()]
    )
    for name, finite in zip(floating, sums.isfinite().tolist(), strict=True):
        if not finite and not bool(floating[name].isfinite().all()):
            raise Diverged(
                "E702",
                f"the weight {name!r} is no longer finite; it was not saved",
                cure="lower --lr, or look at the data for NaN",
            )


def _without_ties(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Keep one name of each storage; return the rest as other name -> kept name."""
    kept: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    owners: dict[tuple[Any, ...], str] = {}
    for name, value in tensors.items():
        key = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride(), value.device)
        if value.numel() and key in owners:
            tied[name] = owners[key]
            continue
        owners[key] = name
        # a view into a larger storage would drag the whole of it along
        kept[name] = value.detach().cpu().contiguous().clone()
    return kept, tied


def flatten(tree: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Move the tensors of a nested structure into `tensors`; return the rest as JSON values."""
    if isinstance(tree, Tensor):
        name = path or "value"
        tensors[name] = tree.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(tree, dict):
        items = [[key, flatten(value, tensors, f"{path}.{key}")] for key, value in tree.items()]
        return {"dict": items}
    if isinstance(tree, list | tuple):
        items = [flatten(value, tensors, f"{path}.{i}") for i, value in enumerate(tree)]
        return {"tuple" if isinstance(tree, tuple) else "list": items}
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"float": str(tree)}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"a checkpoint cannot hold {type(tree).__name__} at {path}")


def unflatten(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put a structure that `flatten` took apart together again."""
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "float":
        return float(content)
    if kind == "dict":
        return {key: unflatten(value, tensors) for key, value in content}
    items = [unflatten(value, tensors) for value in content]
    return tuple(items) if kind == "tuple" else items


def _write(path: Path, data: bytes) -> dict[str, Any]:
    files.write_synced(path, data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint or model folder.

    Raises:
        CheckpointError: it is missing, damaged or of a newer format.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise CheckpointError("E501", f"there is no checkpoint at {folder}", cure="check the path")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        entries = manifest["files"]
        whole = all(
            isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str)
            for entry in entries.values()
        )
        newer = int(manifest["format"]) > FORMAT
    except FileNotFoundError as error:
        cure = "use another checkpoint; this one was never finished or is none"
        raise CheckpointError("E512", f"{folder} has no {MANIFEST}", cure=cure) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, files.describe_damage(path)) from error
    if newer:
        raise CheckpointError(
            "E514", f"{folder} was written by a newer dltool", cure="pip install -U dltool"
        )
    if not whole or not entries:
        raise _damaged(path, "lists no files")
    return dict(manifest)


def verify(folder: Path) -> dict[str, Any]:
    """Check size and SHA-256 of every file of a checkpoint; return its manifest.

    Raises:
        CheckpointError: naming the first file that is missing, cut or changed.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise _damaged(path, "is missing")
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            raise _damaged(path, files.describe_damage(path, entry["bytes"]))
    return manifest


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        "E512", f"{path} {what}", cure="use an older checkpoint, or copy the file again"
    )


def load(folder: Path) -> Checkpoint:
    """Verify a checkpoint and read it.

    Raises:
        CheckpointError: it does not verify or cannot be read.
    """
    verify(folder)
    document = json.loads((folder / STATE).read_text(encoding="utf-8"))
    model = read_tensors(folder / MODEL)
    parts = {
        part: unflatten(skeleton, read_tensors(folder / f"{part}.safetensors"))
        for part, skeleton in document["parts"].items()
    }
    for name, kept in document["tied"].items():
        model[name] = model[kept]
    return Checkpoint(path=folder, model=model, parts=parts, state=document["state"])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: naming the file and what it really is.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _damaged(path, files.describe_damage(path)) from error


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Put tensors into a model, refusing any that is missing, left over or of another shape.

    Raises:
        CheckpointError: naming what does not fit.
    """
    target = unwrap(model)
    own = target.state_dict()
    missing = sorted(set(own) - set(tensors))
    extra = sorted(set(tensors) - set(own))
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if missing or extra or shapes:
        problems = [
            *shapes[:3],
            *(f"{name} is missing" for name in missing[:3]),
            *(f"{name} is left over" for name in extra[:3]),
        ]
        count = len(missing) + len(extra) + len(shapes)
        raise CheckpointError(
            "E513",
            f"{source} does not fit the model: {'; '.join(problems)} ({count} in all)",
            cure="use the model that the weights were trained with",
        )
    target.load_state_dict(dict(tensors))


def steps(root: Path) -> list[Path]:
    """Return the step checkpoints below `root`, newest first."""
    found = [path for path in root.glob("step-*") if path.name[5:].isdigit() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def newest(root: Path) -> tuple[Checkpoint, list[str]]:
    """Return the newest step checkpoint that verifies, and a note on each that does not.

    Raises:
        CheckpointError: none verifies.
    """
    notes: list[str] = []
    for path in steps(root):
        try:
            return load(path), notes
        except DltoolError as error:
            notes.append(f"passed over {path.name}: {error.message}")
    raise CheckpointError(
        "E511",
        f"{root} holds no usable checkpoint" + (f" ({'; '.join(notes)})" if notes else ""),
        cure="start the run anew",
    )


def point_last(root: Path, target: Path) -> None:
    """Let `last` point to the newest checkpoint, where the system has links; resume needs none."""
    link = root / "last"
    temporary = files.temporary_name(link)
    try:
        temporary.symlink_to(target.name, target_is_directory=True)
        temporary.replace(link)
    except OSError:
        temporary.unlink(missing_ok=True)
