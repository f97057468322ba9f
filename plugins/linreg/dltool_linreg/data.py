"""Bring a built-in set or a CSV file to matrices: split first, then learn scales and levels.

The encoder sees the training rows only. A fold of the cross-validation has an encoder of its own.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltool.console import Console
from dltool.data import splits, tables
from dltool.data.tables import Column, Format, Table
from dltool.device import generator
from dltool.errors import DataError, closest
from dltool.guards.findings import Finding
from dltool_linreg import encode, sets
from dltool_linreg.config import TrainConfig
from dltool_linreg.encode import Encoder, Rows
from dltool_linreg.sets import Truth

MOST_CLASSES = 100
LEAK_WARN = 0.01


@dataclass(frozen=True)
class Part:
    """Rows of a set: x (n, F) float64 as encoded, y (n,) float64 or int64 class numbers."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass
class TableData:
    """A set that is split: `train` for fitting, `test` for the one measurement at the end.

    Attributes:
        names: what the columns of x are called.
        target: what is predicted.
        classes: names of the classes; empty for regression.
        rows: the training rows, for folds.
        on_train: no test rows were kept; the test part is the training rows once more.
    """

    train: Part
    test: Part
    names: tuple[str, ...]
    target: str
    classes: tuple[str, ...]
    encoder: Encoder | None
    truth: Truth | None
    rows: Rows
    on_train: bool
    facts: dict[str, Any]
    source: _Source
    findings: list[Finding] = field(default_factory=list)

    def fold(self, train: Rows, test: Rows) -> tuple[Part, Part]:
        """Return two parts of the training rows, encoded by the first of them alone."""
        columns = [feature.column for feature in self.encoder.features] if self.encoder else []
        source = replace(self.source, candidates=tuple(columns))
        parts = source.encode(self.rows[train], self.rows[test], in_fold=True)
        return parts.train, parts.test


@dataclass(frozen=True)
class _Encoded:
    train: Part
    test: Part
    encoder: Encoder | None
    notes: list[str]


@dataclass(frozen=True)
class _Source:
    """What rows are cut from: a built-in set, or a table with its target taken out."""

    y: Tensor
    built_in: sets.BuiltIn | None = None
    table: Table | None = None
    candidates: tuple[str, ...] = ()
    named: bool = False

    def encode(self, train: Rows, test: Rows, *, in_fold: bool = False) -> _Encoded:
        if self.built_in is not None:
            x = self.built_in.x
            return _Encoded(Part(x[train], self.y[train]), Part(x[test], self.y[test]), None, [])
        assert self.table is not None
        encoder, notes = encode.fit(
            self.table, train, self.candidates, named=self.named, in_fold=in_fold
        )
        parts = [
            Part(torch.from_numpy(encoder.matrix(self.table, rows)[0]), self.y[rows])
            for rows in (train, test)
        ]
        return _Encoded(parts[0], parts[1], encoder, notes)


def load(config: TrainConfig, console: Console) -> TableData:
    """Load, split and encode what the config names.

    Raises:
        DataError: the file or a column cannot be used; see `dltool.data.tables.read`.
    """
    if config.is_built_in:
        made = sets.load(config)
        target, classes, truth = made.target, made.classes, made.truth
        usable: Rows = np.arange(len(made.y))
        source = _Source(made.y, built_in=made)
    else:
        table = _read(config)
        target, truth = config.target, None
        y, classes, usable = target_values(table, config)
        if len(usable) < table.num_rows:
            console.warn(f"{table.num_rows - len(usable):,} rows without {target!r} are left out")
        chosen = config.feature_names or tuple(table.columns)
        candidates = tuple(name for name in chosen if name != target)
        source = _Source(y, None, table, candidates, bool(config.feature_names))
    train, test = _split(source.y, usable, classes, config)
    encoded = source.encode(train, test if len(test) else train)
    for note in encoded.notes:
        console.note(note)
    names = tuple(encoded.encoder.names) if encoded.encoder else made.names
    data = TableData(
        train=encoded.train,
        test=encoded.test,
        names=names,
        target=target,
        classes=classes,
        encoder=encoded.encoder,
        truth=truth,
        rows=train,
        on_train=len(test) == 0,
        facts=_facts(encoded.train, encoded.test, len(test)),
        source=source,
    )
    data.findings += _leak(data)
    return data


def _read(config: TrainConfig) -> Table:
    wanted = None
    if config.feature_names:
        wanted = {*config.feature_names, config.target}
    form = Format(config.delimiter, config.encoding, config.decimal)
    texts = set(config.category_names)
    table = tables.read(Path(config.data), form=form, wanted=wanted, texts=texts)
    named = {"--target": (config.target,), "--features": config.feature_names}
    for option, columns in {**named, "--categories": config.category_names}.items():
        for name in columns:
            _check_there(table, name, option)
    if config.target in config.feature_names:
        raise DataError("E506", f"the target {config.target!r} is also in --features")
    return table


def read_target(config: TrainConfig, path: Path, name: str, *, texts: bool) -> Table:
    """Read the target's column of another file; with `texts` its numbers are names of classes."""
    form = Format(config.delimiter, config.encoding, config.decimal)
    names = {config.target}
    table = tables.read(path, form=form, name=name, wanted=names, texts=names if texts else ())
    _check_there(table, config.target, "--target")
    return table


def _check_there(table: Table, name: str, option: str) -> None:
    if name in table.header:
        return
    near = closest(name, table.header)
    cure = f"did you mean {option} {near}?" if near else "name a column of the first line"
    if len(table.header) == 1:
        cure = "the file has one column: name its delimiter with --delimiter"
    shown = ", ".join(table.header[:20]) + (", …" if len(table.header) > 20 else "")
    raise DataError(
        "E506",
        f"{table.name}, line 1: there is no column {name!r}",
        received=shown[:300],
        cure=cure,
    )


def target_values(
    table: Table, config: TrainConfig, classes: tuple[str, ...] = ()
) -> tuple[Tensor, tuple[str, ...], Rows]:
    """Return the target (N,), the class names, and the rows that have one.

    Args:
        classes: the classes of a trained model; by default those that occur.

    Raises:
        DataError: E502 a text among numbers, E503 no or one value only, E506 unknown classes;
            with line and column.
    """
    column = table.columns[config.target]
    usable: Rows = np.flatnonzero(~column.missing)
    place = f"{table.name}, column {table.header.index(column.name) + 1} ({column.name})"
    if len(usable) == 0:
        raise DataError("E503", f"{place}: no row has a value", cure="name another --target")
    if config.task == "regression":
        return _numbers(table, column, usable, place, config.log_target), (), usable
    y, found = _classes(column, usable, place, classes)
    if config.task == "logistic" and len(found) != 2:
        raise DataError(
            "E506",
            f"{place}: {len(found)} classes ({', '.join(found[:5])})",
            expected="2 for --task logistic",
            cure="use --task softmax" if len(found) > 2 else "give data with both classes",
        )
    return y, found, usable


def _numbers(table: Table, column: Column, usable: Rows, place: str, log_target: bool) -> Tensor:
    line = table.line_of(column.name, int(usable[0]))
    if not column.is_number:
        raise DataError(
            "E502",
            f"{table.name}, line {line}, column {table.header.index(column.name) + 1} "
            f"({column.name}): the target is a text, {column.text(int(usable[0]))[:40]!r}",
            expected="numbers",
            cure="for classes use --task logistic or softmax; else name another --target",
        )
    values = column.numbers
    if len(usable) > 1 and np.ptp(values[usable]) == 0:
        raise DataError(
            "E503",
            f"{place}: the target is {values[usable[0]]:g} in every row, from line {line} on",
            expected="a target that varies",
            cure="name another --target",
        )
    if not log_target:
        return torch.from_numpy(values)
    low = usable[np.argmin(values[usable])]
    if values[low] <= 0:
        raise DataError(
            "E502",
            f"{table.name}, line {table.line_of(column.name, int(low))}, column "
            f"{table.header.index(column.name) + 1} ({column.name}): {values[low]:g} has no "
            "logarithm",
            expected="positive numbers with --log-target",
            cure="leave --log-target out",
        )
    return torch.from_numpy(np.log(values))


def _classes(
    column: Column, usable: Rows, place: str, known: tuple[str, ...]
) -> tuple[Tensor, tuple[str, ...]]:
    if column.is_number:
        values, inverse = np.unique(column.numbers[usable], return_inverse=True)
        names = [f"{value:.0f}" if value == int(value) else f"{value:g}" for value in values]
        codes = np.zeros(len(column.numbers), dtype=np.int64)
        codes[usable] = inverse
    else:
        names = [str(level) for level in column.levels or ()]
        codes = column.codes.astype(np.int64)
    if len(names) > MOST_CLASSES:
        raise DataError(
            "E506",
            f"{place}: {len(names):,} different values",
            expected=f"at most {MOST_CLASSES} classes",
            cure="use --task regression, or name another --target",
        )
    order = known or tuple(sorted(names)) if not column.is_number else known or tuple(names)
    strange = [name for name in names if name not in order]
    if strange:
        raise DataError("E506", f"{place}: unknown class {strange[0]!r}", expected=", ".join(order))
    if len(order) < 2:
        raise DataError("E503", f"{place}: the target is {names[0]!r} in every row")
    to_order = np.array([order.index(name) for name in names], dtype=np.int64)
    return torch.from_numpy(np.where(codes >= 0, to_order[codes], -1)), order


def _split(
    y: Tensor, usable: Rows, classes: tuple[str, ...], config: TrainConfig
) -> tuple[Rows, Rows]:
    """Return the training and the test rows, sorted; every class is in both."""
    share = config.test_fraction
    if share == 0:
        return usable, usable[:0]
    if classes:
        labels = y[torch.from_numpy(usable)]
        train, test = splits.stratified(labels, [1 - share, share], config.seed, classes)
        return usable[train.numpy()], usable[test.numpy()]
    count = max(1, round(len(usable) * share))
    if len(usable) - count < 2:
        raise DataError(
            "E503",
            f"{len(usable)} rows are too few to keep {share:.0%} for the test",
            expected="at least 3 rows",
            cure="give more rows, or --test-fraction 0",
        )
    stream = generator(config.seed, "split")
    order = usable[torch.randperm(len(usable), generator=stream).numpy()]
    return np.sort(order[count:]), np.sort(order[:count])


def _facts(train: Part, test: Part, test_rows: int) -> dict[str, Any]:
    """Return counts and a checksum of all values, by which a resumed run knows its data."""
    checksum = 0
    for part in (train.x, train.y, test.x, test.y):
        checksum = zlib.crc32(part.contiguous().view(torch.uint8).numpy().data, checksum)
    return {
        "fingerprint": f"{checksum:08x}",
        "counts": {"train": len(train), "test": test_rows},
        "columns": train.x.shape[1],
    }


def _leak(data: TableData) -> list[Finding]:
    """Count test rows that the training part holds too, in every feature and the target."""
    if data.on_train:
        return []
    train, test = (_row_keys(part) for part in (data.train, data.test))
    shared = int(np.isin(test, train).sum())
    share = shared / max(len(test), 1)
    if share < LEAK_WARN:
        return []
    message = (
        f"{shared:,} of {len(test):,} test rows ({share:.1%}, limit {LEAK_WARN:.0%}) are also "
        "training rows, equal in every column"
    )
    return [Finding("G-D04", "warn", message, "remove duplicate rows before the split")]


def _row_keys(part: Part) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return one number a row, equal for equal rows: the columns added up one after another."""
    stream = generator(0, "row keys")
    factors = torch.randn(part.x.shape[1] + 1, dtype=torch.float64, generator=stream)
    keys = part.y.double() * factors[0]
    for place in range(part.x.shape[1]):
        keys.add_(part.x[:, place], alpha=float(factors[place + 1]))
    return keys.numpy()
