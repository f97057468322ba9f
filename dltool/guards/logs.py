"""Read the log of any training, ours or a stranger's, and judge its losses."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dltool import files
from dltool.errors import DataError
from dltool.guards import curves
from dltool.guards.findings import Finding, NotJudged, Verdict

MOST_BYTES = 200 * 1024 * 1024
TRAIN = ("train_loss", "loss", "training_loss", "train/loss", "loss/train", "train_loss_step")
VAL = (
    "val_loss",
    "eval_loss",
    "valid_loss",
    "validation_loss",
    "val/loss",
    "loss/val",
    "test_loss",
)
RATE = ("lr", "learning_rate", "train/lr")
GRADIENT = ("grad_norm", "gradient_norm", "train/grad_norm")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log: JSON lines, a CSV file, or a Trainer's `trainer_state.json`.

    Raises:
        DataError: E501 or E502, it cannot be read; E503, it holds no loss.
    """
    if not path.is_file():
        raise DataError("E501", f"there is no log at {path}", cure="check the path")
    try:
        text = files.read_limited(path, MOST_BYTES).decode("utf-8-sig")
        records = _parsed(path, text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            "E502",
            f"{path} is no log that can be read: {error}",
            expected="JSON lines, CSV, or trainer_state.json",
        ) from error
    if not series(records, TRAIN) and not series(records, VAL):
        raise DataError(
            "E503",
            f"{path} holds no loss",
            expected=f"a column called {', '.join(TRAIN[:3])} or {VAL[0]}",
            cure="rename the column",
        )
    return records


def _parsed(path: Path, text: str) -> list[dict[str, Any]]:
    if path.suffix.lower() in (".csv", ".tsv"):
        mark = "\t" if path.suffix.lower() == ".tsv" else ","
        return [dict(row) for row in csv.DictReader(text.splitlines(), delimiter=mark)]
    try:
        whole = json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        whole = [json.loads(line) for line in lines]
    if isinstance(whole, Mapping):
        whole = whole.get("log_history") or whole.get("history") or [whole]
    if isinstance(whole, Mapping):  # Keras: a list for each name
        names = list(whole)
        whole = [dict(zip(names, row, strict=True)) for row in zip(*whole.values(), strict=False)]
    if not isinstance(whole, list):
        raise ValueError("it holds no list of records")
    return [dict(each) for each in whole if isinstance(each, Mapping)]


def series(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[float]:
    """Return the numbers of the first column of these names that is there."""
    for name in names:
        found = [_number(record[name]) for record in records if record.get(name) not in (None, "")]
        known = [value for value in found if value is not None]
        if known:
            return known
    return []


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def judge(records: Sequence[Mapping[str, Any]], classes: int = 0) -> list[Verdict]:
    """Judge a log's losses, rates and gradients.

    What a loss cannot show is said: labels, masks, leaks and padding are seen in data and model.

    Args:
        classes: number of classes or tokens, to compare the loss with that of guessing.
    """
    train, val = series(records, TRAIN), series(records, VAL)
    rates, gradients = series(records, RATE), series(records, GRADIENT)
    chance = math.log(classes) if classes > 1 else 0.0
    found = [curves.finite(train or val)]
    found.append(curves.diverged(train))
    found.append(curves.plateau(train, chance, classes, fewest=10))
    if len(val) == len(train):
        found.append(curves.overfitted(train, val))
    elif len(val) >= 4:
        # losses of steps beside losses of epochs: the epoch's last step stands for it
        places = [(i + 1) * len(train) // len(val) - 1 for i in range(len(val))]
        found.append(curves.overfitted([train[p] for p in places], val) if train else _no_train())
    found += _rates(rates) + _stuck(train, rates) + _gradients(gradients)
    why = "a log shows losses alone: check data and model with dltool check or guards.check"
    found += [NotJudged(code, why) for code in ("G-D07", "G-D04", "G-P10", "G-P11")]
    return found


def _no_train() -> Verdict:
    return NotJudged("G-M08", "there is no training loss")


def _rates(rates: Sequence[float]) -> list[Verdict]:
    if not rates or max(rates) > 0:
        return []
    said = f"the learning rate is 0 at all {len(rates)} points: nothing is trained"
    return [Finding("G-P18", "fail", said, "give the optimizer a rate above 0", measured=0.0)]


def _stuck(train: Sequence[float], rates: Sequence[float]) -> list[Verdict]:
    """G-M05 without knowing chance: does the loss stay where it began, within its noise?"""
    if len(train) < 20 or not all(map(math.isfinite, train)) or (rates and max(rates) <= 0):
        return []
    fifth = len(train) // 5
    first, last = train[:fifth], train[-fifth:]
    start, end = sum(first) / fifth, sum(last) / fifth
    noise = math.sqrt(_variance(first) / fifth + _variance(last) / fifth)
    if start <= 0 or start - end > max(3 * noise, 0.01 * start):
        return []
    said = f"the loss does not fall: {start:.4g} over the first fifth, {end:.4g} over the last"
    cure = "look at rate, labels and gradients: dltool check"
    return [Finding("G-M05", "fail", said, cure, measured=end / start, limit=0.99)]


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)


def _gradients(norms: Sequence[float]) -> list[Verdict]:
    bad = sum(not math.isfinite(value) for value in norms)
    if norms and bad > 0.1 * len(norms):
        said = f"{bad} of {len(norms)} gradient norms are not finite"
        cure = "lower the rate or use bf16 in place of fp16"
        return [Finding("G-M01", "fail", said, cure, measured=bad / len(norms), limit=0.1)]
    if norms and max(norms) == 0:
        said = f"all {len(norms)} gradient norms are 0: nothing is trained"
        return [Finding("G-P06", "fail", said, "look for detach or frozen weights", measured=0.0)]
    return []
