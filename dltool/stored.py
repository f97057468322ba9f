"""What a user's path holds: checkpoint folders, shapes, documents; read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dltool import files, headers
from dltool.errors import CheckpointError


def folders_of(path: Path) -> list[Path]:
    """Return the checkpoint and model folders that a path stands for.

    Raises:
        CheckpointError: there is none.
    """
    if not path.exists():
        raise CheckpointError("E501", f"there is nothing at {path}", cure="check the path")
    if path.is_file() or (path / "MANIFEST.json").exists():
        return [path]
    inner = sorted((path / "checkpoints").glob("step-*")) if path.is_dir() else []
    found = [*inner, path / "checkpoints" / "best", path / "model"]
    found = [folder for folder in found if folder.is_dir()]
    # a folder that holds tensors but no manifest is a damaged checkpoint, not none
    if not found and list(path.glob("*.safetensors")):
        return [path]
    if not found:
        raise CheckpointError(
            "E511", f"{path} holds no checkpoint", cure="name a run, checkpoint or model folder"
        )
    return found


def one_of(path: Path) -> Path:
    """Return the one checkpoint that a path stands for: of a run, the newest step."""
    found = folders_of(path)
    newest = [folder for folder in found if folder.name.startswith("step-")]
    return newest[-1] if newest else found[0]


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a model's tensors, tied names included; of a run, its best."""
    if not path.is_dir() or (path / "MANIFEST.json").exists():
        folder = one_of(path)
    else:
        useful = [found for found in folders_of(path) if found.name in ("model", "best")]
        folder = useful[-1] if useful else one_of(path)
    entries = headers.read(folder if folder.is_file() else folder / "model.safetensors")
    shapes = {entry.name: entry.shape for entry in entries}
    tied = document(folder).get("tied", {}) if folder.is_dir() else {}
    if not isinstance(tied, dict):
        return shapes
    return shapes | {name: shapes[str(kept)] for name, kept in tied.items() if str(kept) in shapes}


def document(folder: Path) -> dict[str, Any]:
    """Return `state.json` or `model.json` of a folder; an empty dict without one.

    Raises:
        CheckpointError: it is damaged.
    """
    for name in ("state.json", "model.json"):
        if (folder / name).exists():
            return _read(folder / name)
    return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(files.read_limited(path))
    except (OSError, ValueError, RecursionError) as error:
        raise headers.damaged(path, files.describe_damage(path)) from error
    if not isinstance(value, dict):
        raise headers.damaged(path, "holds no JSON object")
    return value
