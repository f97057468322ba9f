"""Which checkpoints a run has written itself: those it may resume from and may remove."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from dltool import manifests
from dltool.errors import CheckpointError, DltoolError

if TYPE_CHECKING:
    from dltool.checkpoint import Checkpoint


def owner(folder: Path) -> str | None:
    """Return the run id that a checkpoint was written under; None where it cannot be told."""
    try:
        document = json.loads((folder / manifests.STATE).read_text(encoding="utf-8"))
        return str(document["state"]["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def make_way(folder: Path, run_id: str) -> Path | None:
    """Move what this run did not write out of the way of a checkpoint; return where it is now.

    A checkpoint of ours that is too damaged to tell is set aside as well: nothing is lost.
    """
    if not folder.exists() or owner(folder) == run_id:
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}-set-aside-{number}")).exists():
        number += 1
    return folder.rename(aside)


def later(root: Path, step: int, run_id: str) -> set[Path]:
    """Return this run's checkpoints after a step: once it goes on from there, a future given up."""
    found = manifests.steps(root)
    return {path for path in found if int(path.name[5:]) > step and owner(path) == run_id}


def prune(
    root: Path, newest: Path, keep: int, run_id: str, given_up: Collection[Path] = ()
) -> list[Path]:
    """Verify the new checkpoint, then remove this run's surplus ones; return what was removed.

    Args:
        keep: how many stay, the new one included.
        given_up: those that do not count and go as well, see `later`.

    Raises:
        CheckpointError: the new one does not verify; nothing is removed.
    """
    manifests.verify(newest)
    others = [path for path in manifests.steps(root) if path != newest and owner(path) == run_id]
    standing = [path for path in others if path not in given_up]
    surplus = [path for path in others if path in given_up] + standing[keep - 1 :]
    for path in surplus:
        shutil.rmtree(path, ignore_errors=True)
    return surplus


def newest(root: Path, run_id: str) -> tuple[Checkpoint, list[str]]:
    """Return this run's newest checkpoint that verifies, and a note on each passed over.

    Raises:
        CheckpointError: none verifies.
    """
    from dltool import checkpoint  # brings torch; who only prunes does not need it

    notes: list[str] = []
    for path in manifests.steps(root):
        if owner(path) not in (None, run_id):
            notes.append(f"passed over {path.name}: another run wrote it")
            continue
        try:
            return checkpoint.load(path), notes
        except DltoolError as error:
            notes.append(f"passed over {path.name}: {error.message}")
    raise CheckpointError(
        "E511",
        f"{root} holds no usable checkpoint" + (f" ({'; '.join(notes)})" if notes else ""),
        cure="start the run anew",
    )
