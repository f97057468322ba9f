"""Checkpoints: safetensors and JSON, hashed, written atomically, verified before they are trusted.

A checkpoint is a folder:

    model.safetensors       the model's parameters and buffers
    optimizer.safetensors   tensors of the optimizer, schedule and scaler
    rng.safetensors         the states of the random streams
    state.json              position, best value and the shape of what the tensors belong to
    MANIFEST.json           size and SHA-256 of each file and of itself; written last

A checkpoint of the best weights holds only the model; a caller names further parts as it likes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dltool import __version__, files
from dltool import tensors as tensor_files
from dltool.errors import CheckpointError, DltoolError
from dltool.headers import damaged
from dltool.manifests import (
    FORMAT,
    JSON_ERRORS,
    MANIFEST,
    MODEL,
    NO_DIGEST,
    STATE,
    manifest_bytes,
    read_manifest,
    signed,
    steps,
    verify,
)
from dltool.tensors import flatten, refuse_non_finite, unflatten

DESCRIPTION = "model.json"

__all__ = [
    "FORMAT",
    "MANIFEST",
    "NO_DIGEST",
    "Checkpoint",
    "flatten",
    "load",
    "load_model",
    "load_weights",
    "manifest_bytes",
    "newest",
    "point_last",
    "read_manifest",
    "refuse_non_finite",
    "save",
    "save_model",
    "signed",
    "steps",
    "superfluous",
    "unflatten",
    "unwrap",
    "verify",
]


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
    *,
    check_finite: bool = True,
) -> None:
    """Write a checkpoint folder; it appears whole or not at all.

    Args:
        model: a module, or tensors by name.
        parts: name of a file -> any nesting of dicts, lists, tuples, plain values and tensors.
        state: plain JSON values.
        check_finite: whether weights that are not finite are refused.

    Raises:
        Diverged: a weight is not finite; nothing is written.
        DltoolError: the disk is full or the folder cannot be written; the old one stays.
    """
    tensors = dict(unwrap(model).state_dict() if isinstance(model, nn.Module) else model)
    if check_finite:
        refuse_non_finite(tensors)
    contents, tied = tensor_files.without_ties(tensors)
    stored, skeletons = {MODEL: contents}, {}
    for part, tree in parts.items():
        part_tensors: dict[str, Tensor] = {}
        skeletons[part] = flatten(tree, part_tensors)
        stored[f"{part}.safetensors"] = part_tensors
    document = {"state": dict(state), "tied": tied, "parts": skeletons}
    _write_folder(folder, stored, STATE, document)


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
    contents, tied = tensor_files.without_ties(tensors)
    document = {"format": FORMAT, "dltool": __version__, **description, "tied": tied}
    _write_folder(folder, {MODEL: contents}, DESCRIPTION, document)


def load_model(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Verify a model folder and return its tensors and its description.

    Raises:
        CheckpointError: it is damaged, incomplete or of a newer format.
    """
    manifest = verify(folder)
    description = _document(folder, DESCRIPTION, manifest)
    return _tied(folder, tensor_files.read(folder / MODEL), description), description


def _write_folder(
    folder: Path, stored: Mapping[str, Mapping[str, Tensor]], name: str, document: Any
) -> None:
    """Write the tensors of each file, the document `name`, and the manifest last."""
    text = files.json_bytes(document)
    with files.folder_written_atomically(folder) as temporary:
        entries = {
            file: tensor_files.write(temporary / file, tensors) for file, tensors in stored.items()
        }
        entries[name] = files.write_hashed(temporary / name, [text])
        files.write_synced(temporary / MANIFEST, manifest_bytes(entries))


def load(folder: Path) -> Checkpoint:
    """Verify a checkpoint and read it.

    Raises:
        CheckpointError: it does not verify or cannot be read.
    """
    manifest = verify(folder)
    document = _document(folder, STATE, manifest)
    model = _tied(folder, tensor_files.read(folder / MODEL), document)
    try:
        parts = {
            part: unflatten(skeleton, tensor_files.read(_listed(folder, part, manifest)))
            for part, skeleton in document["parts"].items()
        }
        return Checkpoint(path=folder, model=model, parts=parts, state=document["state"])
    except (*JSON_ERRORS, RecursionError) as error:
        raise damaged(folder / STATE, "does not fit the tensors beside it") from error


def _document(folder: Path, name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Read the JSON object of a verified folder."""
    for needed in (MODEL, name):
        if needed not in manifest["files"]:
            raise damaged(folder / MANIFEST, f"does not list {needed}")
    try:
        document = json.loads(files.read_limited(folder / name))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(folder / name, f"is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise damaged(folder / name, "holds no JSON object")
    return document


def _listed(folder: Path, part: str, manifest: Mapping[str, Any]) -> Path:
    name = f"{part}.safetensors"
    if name not in manifest["files"]:
        raise damaged(folder / MANIFEST, f"does not list {name}")
    return folder / name


def _tied(
    folder: Path, tensors: dict[str, Tensor], document: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Give tied tensors their second name."""
    try:
        return tensors | {name: tensors[kept] for name, kept in document["tied"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(folder, "names tied weights that are not there") from error


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


def superfluous(root: Path, keep: int, run_id: str | None = None) -> tuple[list[Path], list[str]]:
    """Return the step checkpoints that are older than the `keep` newest that verify, and notes.

    What does not verify is never counted as kept, and while nothing verifies nothing is
    superfluous. Links, and folders that name another run than `run_id`, are never listed.
    """
    kept, notes = 0, []
    old: list[Path] = []
    for path in steps(root):
        if path.is_symlink() or not _is_ours(path, run_id):
            notes.append(f"{path.name} is left alone: this run did not write it")
        elif kept >= max(keep, 1):
            old.append(path)
        else:
            try:
                verify(path)
                kept += 1
            except DltoolError as error:
                notes.append(f"{path.name} is left for you to look at: {error.message}")
    return old, notes


def _is_ours(folder: Path, run_id: str | None) -> bool:
    """Tell whether a checkpoint names this run; one that cannot be read may be ours."""
    try:
        document = json.loads(files.read_limited(folder / STATE))
        written_by = document["state"].get("run")
    except (*JSON_ERRORS, RecursionError):
        return True
    return run_id is None or written_by in (None, run_id)


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
