"""Weights of a few moments of a training, for the moving picture of its boundary."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save as encode
from torch import Tensor, nn

from dltool import files, tensors
from dltool.errors import CheckpointError

FOLDER = "snapshots"


def moments(epochs: int, count: int) -> set[int]:
    """Choose at most `count` of the moments 0 to `epochs`, close together where much happens.

    Moment 0 is before the first step. The distances grow evenly from there.
    """
    if count < 2:
        return {epochs} if count else set()
    return {round(epochs * (number / (count - 1)) ** 2) for number in range(count)}


def write(run: Path, epoch: int, network: nn.Module) -> None:
    """Write the weights after `epoch` epochs; a resumed run writes the same bytes again."""
    tensors = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    files.write_bytes_atomic(run / FOLDER / f"{epoch:08d}.safetensors", encode(tensors))


def read(run: Path) -> list[tuple[int, dict[str, Tensor]]]:
    """Return the epochs and weights of a run's snapshots, in order.

    Raises:
        CheckpointError: there is none, or one is damaged.
    """
    paths = sorted((run / FOLDER).glob("*.safetensors"))
    if not paths:
        raise CheckpointError(
            "E511",
            f"{run} kept no snapshots to animate",
            cure="train again with --snapshots 40",
        )
    return [(int(path.stem), tensors.read(path)) for path in paths]
