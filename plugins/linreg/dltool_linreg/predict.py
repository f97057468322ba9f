"""Use a trained linear model on rows of a CSV file, of stdin, or of the command line."""

from __future__ import annotations

import csv
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltool import checkpoint, files, trained
from dltool.console import Console
from dltool.data import tables
from dltool.data.tables import Format, Table
from dltool.errors import ConfigError, DataError
from dltool_linreg.config import TrainConfig
from dltool_linreg.data import TableData
from dltool_linreg.encode import Encoder
from dltool_linreg.model import LinearModel

DESCRIPTION = checkpoint.DESCRIPTION
BLOCK = 65_536


@dataclass(frozen=True)
class LoadedModel:
    """A model with what it needs to be used right.

    Attributes:
        encoder: from columns to features; None for a built-in set, whose columns are numbers.
    """

    model: LinearModel
    names: tuple[str, ...]
    target: str
    task: str
    classes: tuple[str, ...]
    log_target: bool
    target_mean: float
    encoder: Encoder | None
    description: dict[str, Any]

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 for regression."""
        return len(self.classes)


def describe_model(config: TrainConfig, data: TableData, mean: float) -> dict[str, Any]:
    """Return what `model.json` tells: what the model predicts, and how to feed it.

    Args:
        mean: of the training targets; the answer that a model has to beat.
    """
    return {
        "topic": "linreg",
        "task": config.task,
        "architecture": {"name": "linear", "features": len(data.names)},
        "features": list(data.names),
        "target": data.target,
        "classes": list(data.classes),
        "preprocessing": {
            "log_target": config.log_target,
            "target_mean": mean,
            "columns": data.encoder.as_dict() if data.encoder else None,
            "inside_model": "raw features go in; centre and scale of the training rows are in "
            "the model",
        },
    }


def load_model(folder: Path) -> LoadedModel:
    """Load a model folder, or a run folder's model; an unfinished run gives its best so far.

    Raises:
        CheckpointError: there is none, it is damaged, or it is another topic's.
    """
    tensors, description = trained.load(folder, "linreg")
    with trained.described(folder, "linear model"):
        names = tuple(description["features"])
        classes = tuple(description["classes"])
        columns = description["preprocessing"]["columns"]
        task = description["task"]
        loaded = LoadedModel(
            model=LinearModel(len(names), len(classes) if task == "softmax" else 1),
            names=names,
            target=description["target"],
            task=task,
            classes=classes,
            log_target=bool(description["preprocessing"]["log_target"]),
            target_mean=float(description["preprocessing"]["target_mean"]),
            encoder=Encoder.from_dict(columns) if columns is not None else None,
            description=description,
        )
    checkpoint.load_weights(loaded.model, tensors, folder)
    loaded.model.eval()
    return loaded


@contextmanager
def as_file(source: str) -> Iterator[tuple[Path, str]]:
    """Give the path of a CSV source and its name for errors; `-` copies stdin to a file first."""
    if source != "-":
        yield Path(source), source
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin.csv"
        with path.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
        yield path, "stdin"


def read_table(
    loaded: LoadedModel, path: Path, name: str, form: Format, extra: Sequence[str] = ()
) -> Table:
    """Read the columns that the model needs, as the kinds it knows, and some extra ones."""
    if loaded.encoder is None:
        kinds = dict.fromkeys(loaded.names, "number")
    else:
        kinds = {feature.column: feature.kind for feature in loaded.encoder.features}
    numbers = {column for column, kind in kinds.items() if kind == "number"}
    texts = set(kinds) - numbers
    kept = {column for column in extra if column not in kinds}
    table = tables.read(
        path, form=form, name=name, wanted={*kinds, *kept}, numbers=numbers, texts={*texts, *kept}
    )
    missing = [column for column in kinds if column not in table.columns]
    if missing:
        raise DataError(
            "E506",
            f"{name}, line 1: the model needs the column {missing[0]!r}, which is not there "
            f"({len(missing)} missing in all)",
            received=", ".join(table.header[:20])[:300],
            cure="give a file with the columns that the model was trained on",
        )
    return table


def features(loaded: LoadedModel, table: Table, console: Console) -> Tensor:
    """Return the model's raw features (N, F) of a table, warning of texts it never saw."""
    rows = np.arange(table.num_rows)
    if loaded.encoder is not None:
        matrix, unseen = loaded.encoder.matrix(table, rows)
        for column, count in unseen.items():
            console.warn(
                f"{count:,} cells of {column!r} hold a text that the training rows did not; they "
                "count as the commonest one"
            )
        return torch.from_numpy(matrix)
    for name in loaded.names:
        empty = np.flatnonzero(table.columns[name].missing)
        if len(empty):
            raise DataError(
                "E502",
                f"{table.name}, line {table.line_of(name, int(empty[0]))}, column "
                f"{table.header.index(name) + 1} ({name}): there is no value, and the model was "
                "trained on rows without gaps",
            )
    return torch.from_numpy(np.stack([table.columns[name].numbers for name in loaded.names], 1))


@torch.no_grad()
def outputs(loaded: LoadedModel, x: Tensor) -> Tensor:
    """Return predictions in the target's own units (N,), or probabilities (N, C)."""
    parts = [loaded.model(x[start : start + BLOCK]) for start in range(0, len(x), BLOCK)]
    scores = torch.cat(parts)
    if not loaded.classes:
        return scores.exp() if loaded.log_target else scores
    if scores.dim() == 1:
        yes = scores.sigmoid()
        return torch.stack([1 - yes, yes], 1)
    return scores.softmax(1)


def predict_rows(
    folder: Path,
    source: str | None,
    *,
    x: str | None,
    out: Path | None,
    keep: str,
    form: Format,
    console: Console,
) -> None:
    """Predict every row of a CSV file and write CSV to stdout or a file."""
    if (x is None) == (source is None):
        raise ConfigError("E205", "give either a CSV file (- for stdin) or --x", cure="add one")
    loaded = load_model(folder)
    if x is not None:
        found, kept = outputs(loaded, _one_row(loaded, x)), {}
    else:
        with as_file(source or "-") as (path, name):
            wanted = [word.strip() for word in keep.split(",") if word.strip()]
            table = read_table(loaded, path, name, form, wanted)
            unknown = [column for column in wanted if column not in table.columns]
            if unknown:
                raise DataError("E506", f"{name}, line 1: there is no column {unknown[0]!r}")
            found = outputs(loaded, features(loaded, table, console))
            kept = {
                column: [table.columns[column].text(row) for row in range(table.num_rows)]
                for column in wanted
            }
    columns = {**kept, **_columns(loaded, found)}
    _write(columns, folder, out, console)


def _one_row(loaded: LoadedModel, text: str) -> Tensor:
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) != len(loaded.names):
        raise ConfigError(
            "E202",
            "--x is not understood",
            received=text,
            expected=f"{len(loaded.names)} numbers: {', '.join(loaded.names[:20])}",
            cure="give one number for each feature, or a CSV file",
        )
    return torch.tensor([values], dtype=torch.float64)


def _columns(loaded: LoadedModel, found: Tensor) -> dict[str, list[Any]]:
    if not loaded.classes:
        return {loaded.target: found.tolist()}
    best, place = found.max(1)
    answers: dict[str, list[Any]] = {loaded.target: [loaded.classes[i] for i in place.tolist()]}
    answers["probability"] = best.tolist()
    return answers


def _write(columns: dict[str, list[Any]], folder: Path, out: Path | None, console: Console) -> None:
    rows = list(zip(*columns.values(), strict=True))
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    if out is not None:
        files.write_bytes_atomic(out, content.getvalue().encode())
        result = {"run": str(folder), "rows": len(rows), "out": str(out)}
        console.result(result, f"{len(rows):,} predictions in {out}")
        return
    listed = [dict(zip(columns, row, strict=True)) for row in rows] if console.json else []
    console.result({"run": str(folder), "predictions": listed}, content.getvalue().rstrip("\n"))


def _cell(value: Any) -> Any:
    return f"{value:.10g}" if isinstance(value, float) else value
