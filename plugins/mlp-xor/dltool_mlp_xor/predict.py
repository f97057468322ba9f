"""Use a trained network on points."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltool import checkpoint, runs, trained
from dltool import device as devices
from dltool.console import Console
from dltool_mlp_xor import data as point_data
from dltool_mlp_xor.config import TrainConfig
from dltool_mlp_xor.model import Mlp, Spec, build, count_parameters, values_of

DESCRIPTION = checkpoint.DESCRIPTION
CHUNK = 100_000


@dataclass(frozen=True)
class LoadedModel:
    """A network with what it needs to be used right."""

    network: Mlp
    classes: tuple[str, str]
    description: dict[str, Any]


def describe_model(config: TrainConfig, network: Mlp, classes: Sequence[str]) -> dict[str, Any]:
    """Return what `model.json` tells: how to build the network and what its output means."""
    output = "logit of the second class" if config.loss == "cross-entropy" else "-1 or 1"
    return {
        "topic": "mlp-xor",
        "task": config.task,
        "architecture": network.spec.as_dict(),
        "classes": list(classes),
        "tolerance": config.tolerance,
        "preprocessing": {
            "mean": network.mean.tolist(),
            "std": network.std.tolist(),
            "inside_model": "points go in as they are; they are standardised in the model",
        },
        "output": output,
    }


def load_network(folder: Path, device: torch.device) -> LoadedModel:
    """Load a model folder, or a run folder's model; an unfinished run gives its best so far.

    Raises:
        CheckpointError: there is none, it is damaged, or it is another topic's.
    """
    tensors, description = trained.load(folder, "mlp-xor")
    with trained.described(folder, "network"):
        spec = Spec.from_dict(description["architecture"])
        network = build(spec, "small", torch.Generator())
        first, second = description["classes"]
        _ = description["task"], description["tolerance"]
    checkpoint.load_weights(network, tensors, folder)
    return LoadedModel(network.to(device).eval(), (first, second), description)


def predict_points(folder: Path, inputs: Sequence[str], *, device: str, console: Console) -> None:
    """Name the class of points and print one line of CSV for each.

    Raises:
        DataError: an input is no point, no file of points, or a line of it is broken.
    """
    choice = devices.choose(device)
    loaded = load_network(folder, choice.device)
    points, names = _points(inputs)
    output = _outputs(loaded.network, points.to(choice.device))
    rows = _rows(loaded, points, output)
    for row, name in zip(rows, names, strict=True):
        if name is not None:
            row["true"] = name
    header = "x,y,class,probability,value"
    lines = [_line(row) for row in rows]
    result = {"run": str(folder), "classes": list(loaded.classes), "predictions": rows}
    console.result(result, "\n".join([header, *lines]))


def _points(inputs: Sequence[str]) -> tuple[Tensor, list[str | None]]:
    """Return the points (N, 2) of all inputs, each with its class name where a file gave one."""
    parts: list[Tensor] = []
    names: list[str | None] = []
    for text in inputs:
        if text == "-":
            listed = point_data.parse_points(sys.stdin.buffer.read(), "stdin")
        elif os.path.exists(text):
            listed = point_data.read_points(Path(text))
        else:
            listed = point_data.Listed(torch.tensor([point_data.parse_point(text)]), None)
        parts.append(listed.points)
        names += listed.names or [None] * len(listed.points)
    return torch.cat(parts), names


@torch.no_grad()
def _outputs(network: Mlp, points: Tensor) -> Tensor:
    return torch.cat([network(part) for part in points.split(CHUNK)])


def _rows(loaded: LoadedModel, points: Tensor, output: Tensor) -> list[dict[str, Any]]:
    kind = loaded.network.spec.loss
    values = values_of(kind, output).tolist()
    # the surer class: its probability is at least one half
    chances = output.abs().sigmoid().tolist() if kind == "cross-entropy" else [None] * len(values)
    answers = (output > 0).long().tolist()
    return [
        {"x": x, "y": y, "class": loaded.classes[answer], "probability": chance, "value": value}
        for (x, y), answer, chance, value in zip(
            points.tolist(), answers, chances, values, strict=True
        )
    ]


def _line(row: dict[str, Any]) -> str:
    chance = "" if row["probability"] is None else f"{row['probability']:.4f}"
    return f"{row['x']:.7g},{row['y']:.7g},{row['class']},{chance},{row['value']:.4f}"


def describe(folder: Path, console: Console) -> None:
    """Print what a run or model folder is."""
    loaded = load_network(folder, torch.device("cpu"))
    facts = runs.read_json(folder) if (folder / "run.json").exists() else {}
    spec = loaded.network.spec
    parameters = count_parameters(loaded.network)
    results = loaded.description.get("results")
    data = {
        "folder": str(folder),
        "network": spec.name,
        "parameters": parameters,
        **{key: loaded.description.get(key) for key in ("task", "architecture", "classes")},
        "preprocessing": loaded.description.get("preprocessing"),
        "results": results,
        "run": facts or None,
    }
    kind = spec.activation if spec.hidden else "linear"
    lines = [
        f"task           {loaded.description['task']}",
        f"network        {spec.name} {kind}, {parameters:,} parameters, trained with {spec.loss}",
        f"classes        {', '.join(loaded.classes)}",
    ]
    if facts:
        lines.append(
            f"run            {facts['status']}, {facts['created']}, grade {facts['grade']}"
        )
    if results:
        lines.append(f"test accuracy  {results['accuracy']['text']}")
    console.result(data, "\n".join(lines))
