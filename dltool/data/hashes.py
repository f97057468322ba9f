"""The size and SHA-256 of every file below a folder: written down once, compared later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dltool import files


def hashed(folder: Path, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return `bytes` and `sha256` of files by their name, with slashes, below `folder`.

    Args:
        names: the files to look at; all below the folder when None.
    """
    chosen = below(folder) if names is None else names
    return {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": files.sha256(folder / name),
        }
        for name in chosen
    }


def below(folder: Path) -> list[str]:
    """Return the names of all files below a folder, with slashes, sorted."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def problems(folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each file that is missing or not what was written down."""
    found = []
    for name, entry in expected.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{path} is missing")
        elif path.stat().st_size != entry["bytes"] or files.sha256(path) != entry["sha256"]:
            found.append(f"{path} {files.describe_damage(path, entry['bytes'])}")
    return found
