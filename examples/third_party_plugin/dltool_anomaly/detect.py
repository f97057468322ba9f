"""Data, network, training and use: an autoencoder's error is a row's oddness.

Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 313
(2006).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltool import checkpoint, metrics, optim, plots, resuming, runs, training
from dltool import device as devices
from dltool.console import Console
from dltool.data import splits
from dltool.errors import CheckpointError, DataError
from dltool_anomaly.cli import TOPIC, TrainConfig

SHOWN = 10


@dataclass(frozen=True)
class Rows:
    """Usual rows for training, validation and test, and known odd ones: (N, F) float32 each."""

    train: Tensor
    val: Tensor
    test: Tensor
    odd: Tensor
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Batches:
    """Batches of one table whose order depends on seed and epoch alone."""

    rows: Tensor
    batch_size: int
    seed: int

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Yield rows (B, F) from batch number `start` on."""
        stream = devices.generator(self.seed, "order", epoch)
        order = torch.randperm(len(self.rows), generator=stream).to(self.rows.device)
        for picked in order.split(self.batch_size)[start:]:
            yield self.rows[picked]


class Autoencoder(nn.Module):
    """Rows (B, F) go in and come out again, through a narrow code; scaling is a part of it."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, hidden: int, code: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.encoder = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, code)
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, features)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Return each row's mean squared error after scaling: (B,)."""
        scaled = (rows - self.mean) / self.std
        rebuilt = self.decoder(self.encoder(scaled))
        return F.mse_loss(rebuilt, scaled, reduction="none").mean(1)


def read_table(name: str) -> tuple[tuple[str, ...], Tensor]:
    """Return the column names and the rows (N, F) of a CSV file of finite numbers."""
    try:
        with Path(name).open(encoding="utf-8-sig", newline="") as stream:
            first, *lines = [line for line in csv.reader(stream) if line] or [[]]
        rows = torch.tensor([[float(cell) for cell in line] for line in lines])
    except FileNotFoundError as error:
        raise DataError("E501", f"there is no file {name}") from error
    except (OSError, ValueError, csv.Error) as error:
        raise DataError("E502", f"{name} is no table of numbers: {error}") from error
    if len(lines) == 0 or rows.shape[1] != len(first) or not bool(rows.isfinite().all()):
        raise DataError("E502", f"{name} needs names, then rows of as many finite numbers")
    return tuple(first), rows


def load(config: TrainConfig) -> Rows:
    """Return the rows of a run; only the digits know which are odd."""
    if config.data == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        values = torch.tensor(digits.data, dtype=torch.float32)
        labels = torch.tensor(digits.target)
        columns = tuple(digits.feature_names)
        usual, odd = values[labels != config.odd_class], values[labels == config.odd_class]
    else:
        columns, usual = read_table(config.data)
        odd = usual[:0]
    if len(usual) < 20:
        raise DataError("E503", f"{config.data} has {len(usual)} rows", expected="20 or more")
    kinds = torch.zeros(len(usual), dtype=torch.int64)
    train, val, test = splits.stratified(kinds, (0.6, 0.2, 0.2), config.seed)
    return Rows(usual[train], usual[val], usual[test], odd, columns)


def train(
    config: TrainConfig,
    origins: Mapping[str, str],
    *,
    console: Console,
    out: Path | None = None,
    resume: Path | None = None,
) -> None:
    """Run or go on with one training, from the data to the tested model folder."""
    if resume is not None and not resuming.is_changed(origins):
        result = resuming.finished(resume, TOPIC, console)
        if result is not None:
            console.result(result, _summary(result))
            return
    device = devices.prepare(
        config.device,
        console,
        precision=config.precision,
        seed=config.seed,
        threads=config.threads,
        deterministic=config.deterministic,
    )
    rows = load(config)
    torch.manual_seed(devices.derive_seed(config.seed, "weights"))
    model = Autoencoder(len(rows.columns), config.hidden, config.code)
    model.mean.copy_(rows.train.mean(0))
    # a column that hardly varies must not drown the others by its rare values
    model.std.copy_(rows.train.std(0).clamp_min(0.1 * float(rows.train.std()) + 1e-9))
    model.to(device)
    grade = devices.guarantee(device, deterministic=config.deterministic)
    name = runs.short_name(config.data)
    with resuming.opened(
        TOPIC, name, config, origins, grade, out=out, resume=resume, console=console
    ) as run:
        console.note(f"{len(rows.train)} usual rows, {len(rows.columns)} columns")
        console.note(f"run folder {run.folder}")
        _loop(config, model, rows, run, console, resume=resume is not None)
        _finish(config, model, rows, run, console)


def _loop(
    config: TrainConfig,
    model: Autoencoder,
    rows: Rows,
    run: runs.Run,
    console: Console,
    *,
    resume: bool,
) -> None:
    device = model.mean.device
    batches = Batches(rows.train.to(device), config.batch_size, config.seed)
    groups = optim.parameter_groups(model, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
    steps = config.epochs * -(-len(batches) // config.accumulate)
    scheduler = optim.schedule(optimizer, "cosine", steps)
    settings = training.Settings.of(config, device, monitor="val_loss")
    with training.session(
        run, model, optimizer, settings, scheduler=scheduler, console=console, resume=resume
    ) as session:
        for epoch in session.epochs(config.epochs):
            for batch in session.batches(batches, label=f"epoch {epoch + 1}"):
                with session.attempt():
                    session.step(model(batch).mean(), count=len(batch))
            with session.averaged():
                oddness = float(_scores(model, rows.val).mean())
            session.report({"val_loss": oddness})
        session.best.load_into(model)


@torch.no_grad()
def _scores(model: Autoencoder, rows: Tensor) -> Tensor:
    """Return the oddness of each row: (N,), on the CPU."""
    model.eval()
    scores: Tensor = model(rows.to(model.mean.device)).cpu()
    return scores


def _finish(
    config: TrainConfig, model: Autoencoder, rows: Rows, run: runs.Run, console: Console
) -> None:
    """Set the threshold on validation rows, test once, write model and result."""
    threshold = float(_scores(model, rows.val).quantile(1 - config.false_alarms))
    alarms = int((_scores(model, rows.test) > threshold).sum())
    result: dict[str, Any] = {
        "run": str(run.folder),
        "model": str(run.folder / "model"),
        "threshold": threshold,
        "false_alarms": _share(alarms, len(rows.test)),
        "found": None,
    }
    if len(rows.odd):
        result["found"] = _share(int((_scores(model, rows.odd) > threshold).sum()), len(rows.odd))
    description = {
        "topic": TOPIC,
        "shape": [len(rows.columns), config.hidden, config.code],
        "columns": list(rows.columns),
        "result": result,
    }
    checkpoint.save_model(run.folder / "model", model, description)
    plots.curves(run.records(), run.folder / "curves.png", f"anomaly: {run.folder.name}")
    run.finish(result)
    console.result(result, _summary(result))
    console.hint(f"dltool anomaly info {run.folder}")


def _share(count: int, total: int) -> dict[str, Any]:
    score = metrics.Score.from_counts(count, total)
    return {**score.as_dict(), "text": score.text()}


def _summary(result: Mapping[str, Any]) -> str:
    found = f"odd rows found  {result['found']['text']}\n" if result["found"] else ""
    return f"{found}false alarms    {result['false_alarms']['text']}\nrun   {result['run']}"


def load_model(folder: Path) -> tuple[Autoencoder, dict[str, Any]]:
    """Return the network and the description of a run's model, or of a model folder."""
    place = folder / "model" if (folder / "model").is_dir() else folder
    if not (place / checkpoint.MANIFEST).exists():
        cure = f"finish it: dltool anomaly train --resume {folder}"
        raise CheckpointError("E511", f"{folder} holds no trained model yet", cure=cure)
    tensors, description = checkpoint.load_model(place)
    if description.get("topic") != TOPIC:
        raise CheckpointError("E513", f"{folder} is a model of {description.get('topic')}")
    model = Autoencoder(*description["shape"])
    checkpoint.load_weights(model, tensors, place)
    return model, description


def score_table(folder: Path, table: str, *, device: str, console: Console) -> None:
    """Score the rows of a table and name the odd ones, the oddest first."""
    model, description = load_model(folder)
    names, rows = read_table(table)
    if list(names) != description["columns"]:
        raise DataError(
            "E506", f"{table} has other columns", expected=", ".join(description["columns"])
        )
    scores = _scores(model.to(devices.choose(device).device), rows)
    threshold = description["result"]["threshold"]
    found = [
        {"row": number, "score": round(score, 6), "odd": score > threshold}
        for number, score in enumerate(scores.tolist(), 1)
    ]
    odd = sorted((item for item in found if item["odd"]), key=lambda item: -item["score"])
    lines = [f"row {item['row']}: {item['score']:.4f}" for item in odd[:SHOWN]]
    head = f"{len(odd)} of {len(found)} rows are odd (score above {threshold:.4f})"
    console.result({"run": str(folder), "rows": found}, "\n".join([head, *lines]))


def describe(folder: Path, console: Console) -> None:
    """Show what a model was trained on and what its test gave."""
    _, description = load_model(folder)
    lines = [f"columns  {len(description['columns'])}", _summary(description["result"])]
    console.result(description, "\n".join(lines))
