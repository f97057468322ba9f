"""Draw what a trained network has learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dltool import runs
from dltool.console import Console
from dltool.errors import CheckpointError
from dltool_mlp_xor import data as point_data
from dltool_mlp_xor import pictures, snapshots
from dltool_mlp_xor.config import TrainConfig
from dltool_mlp_xor.data import Split
from dltool_mlp_xor.pictures import Panel
from dltool_mlp_xor.predict import load_network


def plot_runs(
    folders: Sequence[Path], *, out: Path | None, animate: bool, console: Console
) -> None:
    """Draw the boundary and the hidden units of one run, or the boundaries of several."""
    target = out or folders[0]
    written: dict[str, str] = {}
    panels = [_panel(folder) for folder in folders]
    classes = load_network(folders[0], torch.device("cpu")).classes
    if len(panels) > 1:
        written["boundaries"] = str(target / "boundaries.png")
        pictures.boundaries(panels, target / "boundaries.png", classes)
    else:
        written["boundary"] = str(target / "boundary.png")
        pictures.boundaries(panels, target / "boundary.png", classes)
        if panels[0].network.spec.hidden:
            written["hidden"] = str(target / "hidden.png")
            pictures.hidden_units(panels[0], target / "hidden.png")
    if animate:
        written["animation"] = str(target / "boundary.gif")
        moments = snapshots.read(folders[0])
        pictures.animate(
            panels[0].network, moments, panels[0].split, classes, target / "boundary.gif"
        )
    result = {"runs": [str(folder) for folder in folders], "pictures": written}
    console.result(result, "\n".join(f"{name:<10} {path}" for name, path in written.items()))


def _panel(folder: Path) -> Panel:
    loaded = load_network(folder, torch.device("cpu"))
    spec = loaded.network.spec
    kind = spec.activation if spec.hidden else "linear"
    return Panel(f"{loaded.description['task']}, {spec.name} {kind}", loaded.network, _test(folder))


def _test(folder: Path) -> Split:
    """Draw the run's test points again."""
    if not (folder / "config.json").exists():
        raise CheckpointError(
            "E511", f"{folder} is a model without its run", cure="name the run folder"
        )
    config, _ = runs.read_config(folder, TrainConfig)
    return point_data.load(config, torch.device("cpu")).test
