"""What is to be predicted: classes, a number, or several classes of one text."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dltool.errors import ConfigError, DataError
from dltool_bert_finetune.columns import Examples

SEPARATOR = "|"
MOST_CLASSES = 1000
MANY_NUMBERS = 50


@dataclass(frozen=True)
class Targets:
    """How labels become tensors.

    Attributes:
        task: `classify`, `regress`, `multilabel`, `token` (a class of each word) or `qa` (the span
            of a text that answers a question).
        classes: their names in the order of the model's outputs; empty where there are none.
        mean, std: of the training numbers; the network learns (y - mean) / std.
        separator: what stands between the labels of one text.
        unanswerable, longest: whether a question may have no answer, and tokens of an answer.
    """

    task: str
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    separator: str = SEPARATOR
    unanswerable: bool = False
    longest: int = 30

    @property
    def by_token(self) -> bool:
        """Whether the network answers for each token, not for a whole text."""
        return self.task in ("token", "qa")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Targets:
        """Rebuild from JSON values."""
        return cls(**{**values, "classes": tuple(values["classes"])})

    def encode(self, examples: Examples) -> Tensor:
        """Return class numbers (N,), numbers (N,) float32, or 0 and 1 (N, C) float32.

        Raises:
            DataError: E506, a label that the training data does not have; with its file and line.
        """
        rows = zip(examples.labels, examples.places, strict=True)
        if self.task == "regress":
            return torch.tensor([_number(text, place) for text, place in rows])
        known = {name: number for number, name in enumerate(self.classes)}
        if self.task == "classify":
            return torch.tensor(
                [self._class(text, known, place) for text, place in rows], dtype=torch.int64
            )
        table = torch.zeros(len(examples), len(known))
        for row, (text, place) in enumerate(rows):
            for name in parts(text, self.separator):
                table[row, self._class(name, known, place)] = 1.0
        return table

    def _class(self, text: str, known: dict[str, int], place: str) -> int:
        if text not in known:
            raise DataError(
                "E506",
                f"{place}: the label {text[:60]!r} does not occur in the training data",
                expected=f"one of {', '.join(self.classes[:20])}",
                cure="correct the label, or add training texts of this class",
            )
        return known[text]


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            "E506",
            f"{place}: {text[:60]!r} is not a number",
            expected="finite numbers for --task regress",
            cure="correct the row, or use --task classify",
        )
    return value


def parts(text: str, separator: str) -> list[str]:
    """Return the labels in one cell: a JSON list, or names with a separator between them."""
    if text.startswith("["):
        try:
            items = json.loads(text)
        except ValueError:
            items = None
        if isinstance(items, list):
            return [str(item).strip() for item in items]
    return [name.strip() for name in text.split(separator) if name.strip()]


def settle(task: str, train: Examples, separator: str) -> Targets:
    """Find out what the training labels are and how they become tensors.

    Raises:
        DataError: E503, one class only; E506, labels that do not fit the task.
        ConfigError: E205, a pair task without a second text, or the other way round.
    """
    mark = separator or SEPARATOR
    if task == "pair" and not train.seconds:
        raise ConfigError(
            "E205", "--task pair needs a second text", cure="name its column with --second"
        )
    if task == "auto":
        task = _guess(train.labels, mark, named=bool(separator))
    if task == "regress":
        return _numeric(train)
    if task == "multilabel":
        names = {name for text in train.labels for name in parts(text, mark)}
        return Targets("multilabel", _ordered(names, len(train)), separator=mark)
    return Targets("classify", _ordered(set(train.labels), len(train)))


def _guess(labels: list[str], mark: str, *, named: bool) -> str:
    if named or any(label.startswith("[") for label in labels):
        return "multilabel"
    if sum(mark in label for label in labels) > len(labels) / 20:
        return "multilabel"
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return "classify"
    if not all(map(math.isfinite, numbers)):
        return "classify"
    is_whole = all(number == int(number) for number in numbers)
    return "classify" if is_whole and len(set(numbers)) <= MANY_NUMBERS else "regress"


def _numeric(train: Examples) -> Targets:
    values = [_number(text, place) for text, place in zip(train.labels, train.places, strict=True)]
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    if std == 0:
        raise DataError("E503", f"every training text has the same number, {mean:g}")
    return Targets("regress", mean=mean, std=std)


def _ordered(names: set[str], rows: int) -> tuple[str, ...]:
    if len(names) < 2:
        shown = f"the class {next(iter(names))!r}" if names else "no class"
        raise DataError(
            "E503",
            f"the training texts are all of {shown}",
            expected="at least two classes",
            cure="give data of all classes, not sorted by class and cut off",
        )
    if len(names) > MOST_CLASSES or len(names) > max(20, rows / 2):
        raise DataError(
            "E506",
            f"{len(names):,} different labels for {rows:,} texts are no classes",
            expected=f"at most {MOST_CLASSES:,}, with several texts each",
            cure="name the right column with --label, or use --task regress",
        )
    numeric = all(name.lstrip("-").isdecimal() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if numeric else name))


def balance(labels: list[str], targets: Targets) -> dict[str, int]:
    """Return how many texts each class has."""
    if targets.task == "multilabel":
        counts = Counter(name for text in labels for name in parts(text, targets.separator))
    else:
        counts = Counter(labels)
    return {name: counts[name] for name in targets.classes}
