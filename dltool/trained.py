"""Find and read what a train command left, for predict and evaluate of the same topic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from dltool import checkpoint, runs
from dltool.errors import CheckpointError


def load(folder: Path, topic: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model folder, or a run folder's model; an unfinished run gives its best so far.

    Returns:
        The weights, and the description that the topic wrote beside them.

    Raises:
        CheckpointError: E511, there is none yet; E512, it is damaged; E513, it is another topic's.
    """
    tensors, description = _stored(folder, topic)
    owner = description.get("topic")
    if owner != topic:
        raise CheckpointError(
            "E513", f"{folder} is a model of {owner}, not of {topic}", cure=f"dltool {owner} --help"
        )
    return tensors, description


def _stored(folder: Path, topic: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    name = checkpoint.DESCRIPTION
    for candidate in (folder / "model", folder):
        if (candidate / checkpoint.MANIFEST).exists() and (candidate / name).exists():
            return checkpoint.load_model(candidate)
    best = folder / "checkpoints" / "best"
    if (folder / name).exists() and best.exists():
        return checkpoint.load(best).model, runs.read_json(folder, name)
    raise CheckpointError(
        "E511",
        f"{folder} holds no trained model yet",
        cure=f"finish it: dltool {topic} train --resume {folder}",
    )


@contextmanager
def described(folder: Path, what: str) -> Iterator[None]:
    """Turn what goes wrong while a description is read into one error.

    Raises:
        CheckpointError: E513, the description lacks something or holds another kind of value.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            "E513",
            f"{folder / checkpoint.DESCRIPTION} describes no {what}",
            cure="restore the file",
        ) from error
