"""Measure a trained network: accuracy with its interval, and what a straight line could reach."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltool import device as devices
from dltool import metrics, runs
from dltool.console import Console
from dltool.errors import CheckFailed, CheckpointError, ConfigError, DataError
from dltool.metrics import Score
from dltool_mlp_xor import data as point_data
from dltool_mlp_xor.config import TrainConfig
from dltool_mlp_xor.data import Split
from dltool_mlp_xor.model import Mlp, loss_of, values_of
from dltool_mlp_xor.predict import LoadedModel, load_network

SPLITS = ("test", "val", "train")
CHUNK = 100_000


@dataclass(frozen=True)
class Measured:
    """What an evaluation found.

    Attributes:
        confusion: (2, 2) counts, rows true.
        within: points whose output lies within the tolerance of their label -1 or 1.
    """

    confusion: Tensor
    loss: float
    within: int

    @property
    def accuracy(self) -> Score:
        """The share of points on the right side of 0."""
        return metrics.accuracy_score(self.confusion)

    @property
    def tolerance_accuracy(self) -> Score:
        """The share of points whose output is near enough to the label."""
        return Score.from_counts(self.within, self.accuracy.n, self.accuracy.baseline)


@torch.no_grad()
def evaluate(network: Mlp, split: Split, tolerance: float) -> Measured:
    """Measure a network on points; it goes back to the mode it was in."""
    was_training = network.training
    network.eval()
    kind = network.spec.loss
    matrix, loss, within = torch.zeros(2, 2, dtype=torch.int64), 0.0, 0
    for points, labels in zip(split.points.split(CHUNK), split.labels.split(CHUNK), strict=True):
        output = network(points)  # (B,)
        loss += float(loss_of(kind, output, labels, "sum"))
        matrix += metrics.confusion((output > 0).long(), labels, 2).cpu()
        distance = (values_of(kind, output) - (2 * labels - 1)).abs()  # (B,) each
        within += int((distance < tolerance).sum())
    network.train(was_training)
    return Measured(matrix, loss / len(split.labels), within)


def as_result(measured: Measured, config_task: str, tolerance: float) -> dict[str, Any]:
    """Return the figures for JSON; the tolerance accuracy only where the task has one."""
    score = measured.accuracy
    result: dict[str, Any] = {
        "accuracy": {**score.as_dict(), "text": score.text()},
        "loss": measured.loss,
        "confusion": measured.confusion.tolist(),
    }
    if config_task == "sign":
        near = measured.tolerance_accuracy
        result["tolerance_accuracy"] = {
            **near.as_dict(),
            "tolerance": tolerance,
            "text": near.text(),
        }
    return result


def as_text(result: dict[str, Any]) -> str:
    """Return the lines for people."""
    text = f"accuracy {result['accuracy']['text']}"
    if near := result.get("tolerance_accuracy"):
        text += f"\noutput within {near['tolerance']:g} of its label -1 or 1: {near['text']}"
    return text


def evaluate_run(
    folder: Path,
    *,
    data: Path | None,
    split: str,
    tolerance: float | None,
    min_accuracy: float | None,
    device: str,
    console: Console,
) -> None:
    """Evaluate a run or model folder and print the result.

    Raises:
        CheckFailed: the accuracy is below `min_accuracy`.
    """
    if split not in SPLITS:
        raise ConfigError("E206", f"--split {split!r} is not known", expected=", ".join(SPLITS))
    choice = devices.choose(device)
    loaded = load_network(folder, choice.device)
    task, own_tolerance = loaded.description["task"], loaded.description["tolerance"]
    if data is not None:
        found, source = _listed(data, loaded, choice.device), str(data)
    else:
        found, source = _own(folder, split, choice.device), f"{task}, {split}"
    limit = own_tolerance if tolerance is None else tolerance
    measured = evaluate(loaded.network, found, limit)
    result = {
        "run": str(folder),
        "data": source,
        "split": split if data is None else None,
        "classes": list(loaded.classes),
        **as_result(measured, task, limit),
    }
    by_class = metrics.text_report(measured.confusion, loaded.classes)
    console.result(result, f"{source}: {as_text(result)}\n\n{by_class}")
    score = measured.accuracy
    if min_accuracy is not None and score.value < min_accuracy:
        raise CheckFailed("E601", f"accuracy {score.value:.4f} is below {min_accuracy}")


def _own(folder: Path, split: str, device: torch.device) -> Split:
    """Draw the run's own points again; they depend on its config alone."""
    if not (folder / "config.json").exists():
        raise CheckpointError(
            "E511", f"{folder} is no run and names no points", cure="add --data FILE.csv"
        )
    config, _ = runs.read_config(folder, TrainConfig)
    drawn = point_data.load(config, device)
    return {"train": drawn.train, "val": drawn.val, "test": drawn.test}[split]


def _listed(path: Path, loaded: LoadedModel, device: torch.device) -> Split:
    listed = point_data.read_points(path)
    if listed.names is None:
        raise DataError(
            "E506", f"{path} has no classes", expected="x,y,class", cure="add a third column"
        )
    unknown = sorted(set(listed.names) - set(loaded.classes))
    if unknown:
        raise DataError(
            "E506",
            f"{path} has classes that the model does not know: {', '.join(unknown[:5])[:200]}",
            expected=" or ".join(loaded.classes),
            cure="name the classes as the model does",
        )
    labels = torch.tensor([loaded.classes.index(name) for name in listed.names])
    return Split(listed.points.to(device), labels.to(device))
