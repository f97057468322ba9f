"""The manifest of a checkpoint or model folder: what must be in it, hashed; read without torch.

`MANIFEST.json` lists each file with its size and SHA-256, and its own SHA-256; it is written last.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dltool import __version__, files
from dltool.errors import CheckpointError
from dltool.headers import damaged

FORMAT = 1
MANIFEST = "MANIFEST.json"
MODEL = "model.safetensors"
STATE = "state.json"
# the place of the manifest's own SHA-256 while that is computed
NO_DIGEST = "0" * 64
JSON_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError)


def manifest_bytes(entries: Mapping[str, Any]) -> bytes:
    """Return the manifest of files; its `self` is its own SHA-256 with `self` all zeros."""
    head = {"format": FORMAT, "dltool": __version__, "files": dict(entries), "self": NO_DIGEST}
    return signed(files.json_bytes(head))


def signed(text: bytes) -> bytes:
    """Put the SHA-256 of a manifest's text into the place that is kept for it."""
    return text.replace(NO_DIGEST.encode(), hashlib.sha256(text).hexdigest().encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint or model folder.

    Raises:
        CheckpointError: it is missing, damaged or of a newer format.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise CheckpointError("E501", f"there is no checkpoint at {folder}", cure="check the path")
    try:
        text = files.read_limited(path)
        manifest = json.loads(text)
        digest = manifest.get("self")
        if isinstance(digest, str) and len(digest) == len(NO_DIGEST):
            plain = text.replace(digest.encode(), NO_DIGEST.encode())
            untouched = hashlib.sha256(plain).hexdigest() == digest
        else:
            untouched = digest is None  # another version may sign in another way
        newer = int(manifest["format"]) > FORMAT
        whole = all(
            type(entry["bytes"]) is int and isinstance(entry["sha256"], str)
            for entry in manifest["files"].values()
        )
    except FileNotFoundError as error:
        cure = "use another checkpoint; this one was never finished or is none"
        raise CheckpointError("E512", f"{folder} has no {MANIFEST}", cure=cure) from error
    except (*JSON_ERRORS, RecursionError) as error:
        raise damaged(path, files.describe_damage(path)) from error
    if untouched and newer:
        raise CheckpointError(
            "E514", f"{folder} was written by a newer dltool", cure="pip install -U dltool"
        )
    if not untouched or digest is None:
        raise damaged(path, "is damaged: its content has changed")
    if not whole or not manifest["files"]:
        raise damaged(path, "lists no files")
    return dict(manifest)


def verify(folder: Path) -> dict[str, Any]:
    """Check size and SHA-256 of every file of a checkpoint; return its manifest.

    Raises:
        CheckpointError: naming the first file that is missing, cut, changed or unreadable.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = folder / name
        if not re.fullmatch(r"\w[\w.-]*", name) or not path.is_file():
            raise damaged(path, "is missing")
        try:
            whole = path.stat().st_size == entry["bytes"] and files.sha256(path) == entry["sha256"]
        except OSError as error:
            raise damaged(path, f"cannot be read: {error.strerror}") from error
        if not whole:
            raise damaged(path, files.describe_damage(path, entry["bytes"]))
    return manifest


def steps(root: Path) -> list[Path]:
    """Return the step checkpoints below `root`, newest first."""
    found = [path for path in root.glob("step-*") if path.name[5:].isdigit() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)
