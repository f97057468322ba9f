"""From the columns of a table to a matrix of numbers: fills, flags and one-hot levels.

Everything here is learnt from the training rows alone and travels with the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dltool.data.tables import Column, Table
from dltool.errors import DataError

MOST_LEVELS = 100
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Feature:
    """How one column becomes numbers.

    Attributes:
        fill: stands for a missing number: the mean of the training rows.
        flag: whether a second column tells where the number was missing.
        levels: texts that have a column each, 1 where the cell is this text.
        reference: the commonest text; it has no column, and is told by zeros in all of them.
        has_missing: whether missing texts are a level of their own.
    """

    column: str
    kind: str
    fill: float = 0.0
    flag: bool = False
    levels: tuple[str, ...] = ()
    reference: str = ""
    has_missing: bool = False

    @property
    def names(self) -> list[str]:
        """What the matrix's columns are called."""
        if self.kind == "number":
            return [self.column, *([f"{self.column} is missing"] if self.flag else [])]
        missing = [f"{self.column} is missing"] if self.has_missing else []
        return [*(f"{self.column} = {level}" for level in self.levels), *missing]

    def write(self, column: Column, rows: Rows, out: Floats) -> int:
        """Fill `out` (n, columns of this feature); return how many texts were never seen."""
        if self.kind == "number":
            values = column.numbers[rows]
            empty = np.isnan(values)
            if empty.any():
                values[empty] = self.fill
            out[:, 0] = values
            if self.flag:
                out[:, 1] = empty
            return 0
        codes = column.codes[rows]
        places = {level: place for place, level in enumerate(self.levels)}
        unseen = 0
        out[:] = 0.0
        for code, level in enumerate(column.levels or ()):
            here = codes == code
            if level in places:
                out[here, places[level]] = 1.0
            elif level != self.reference:
                unseen += int(here.sum())
        if self.has_missing:
            out[codes < 0, len(self.levels)] = 1.0
        return unseen


@dataclass(frozen=True)
class Encoder:
    """The features of a model, in the order of its weights."""

    features: tuple[Feature, ...]

    @property
    def names(self) -> list[str]:
        """What the weights are called."""
        return [name for feature in self.features for name in feature.names]

    def matrix(self, table: Table, rows: Rows) -> tuple[Floats, dict[str, int]]:
        """Return (n, F) float64, and how many cells of each column held a text never seen.

        Raises:
            DataError: E506, a column is not there.
        """
        self.check(table)
        out: Floats = np.empty((len(rows), len(self.names)))
        unseen, place = {}, 0
        for feature in self.features:
            width = len(feature.names)
            count = feature.write(
                table.columns[feature.column], rows, out[:, place : place + width]
            )
            if count:
                unseen[feature.column] = count
            place += width
        return out, unseen

    def check(self, table: Table) -> None:
        """Raise DataError E506 unless the table has every feature's column."""
        missing = [
            feature.column for feature in self.features if feature.column not in table.columns
        ]
        if missing:
            raise DataError(
                "E506",
                f"{table.name}, line 1: the model needs the column {missing[0]!r}, which is not "
                f"there ({len(missing)} missing in all)",
                received=", ".join(table.header[:20]),
            )

    def as_dict(self) -> list[dict[str, Any]]:
        """Return what `model.json` keeps."""
        return [asdict(feature) for feature in self.features]

    @classmethod
    def from_dict(cls, stored: Sequence[dict[str, Any]]) -> Encoder:
        """Rebuild an encoder from `as_dict`."""
        features = [Feature(**{**item, "levels": tuple(item["levels"])}) for item in stored]
        return cls(tuple(features))


def fit(
    table: Table, rows: Rows, names: Sequence[str], *, named: bool, in_fold: bool = False
) -> tuple[Encoder, list[str]]:
    """Learn fills and levels from the training rows.

    Args:
        rows: (n,) the training rows.
        names: candidate columns.
        named: whether the user named them; unusable columns are then errors, not left out.
        in_fold: the columns were chosen before; one that is constant in this fold is left out.

    Returns:
        The encoder, and a note on each column that was left out.

    Raises:
        DataError: E503, no column can be used, or one that was named cannot.
    """
    features, notes = [], []
    is_meant = named or in_fold or len(names) == 1
    for name in names:
        column = table.columns[name]
        problem = _problem(column, rows, named=is_meant)
        if problem and named and not in_fold:
            raise DataError(
                "E503",
                f"{table.name}, column {table.header.index(name) + 1} ({name}): {problem}",
                expected="a column that varies",
                cure=f"leave {name} out of --features",
            )
        if problem:
            notes.append(f"column {name!r} is left out: {problem}")
        else:
            features.append(_number(column, rows) if column.is_number else _category(column, rows))
    if not features:
        reasons = "; ".join(notes[:3])
        raise DataError(
            "E503",
            f"{table.name} has no column to learn from ({reasons})",
            expected="a column beside the target that varies",
            cure="give a table with one, or name another --target",
        )
    return Encoder(tuple(features)), notes


def _problem(column: Column, rows: Rows, *, named: bool) -> str:
    """Say why a column cannot be a feature, or nothing."""
    missing = column.missing[rows]
    if missing.all():
        return "it has no value in any training row"
    if column.is_number:
        values = column.numbers[rows]
        low, high = np.nanmin(values), np.nanmax(values)
        if low == high and not missing.any():
            return f"it is {low:g} in every training row"
        if not named and _counts_rows(column.numbers):
            return f"it numbers the rows (to keep it, name it in --features {column.name},...)"
        return ""
    used = np.unique(column.codes[rows][~missing])
    if len(used) == 1 and not missing.any():
        return f"it is {(column.levels or ())[used[0]]!r} in every training row"
    if len(used) > MOST_LEVELS or (len(used) > 10 and len(used) > 0.5 * len(rows)):
        return f"{len(used):,} different texts in {len(rows):,} rows (at most {MOST_LEVELS})"
    return ""


def _counts_rows(values: Floats) -> bool:
    return len(values) > 2 and bool((np.diff(values) == 1.0).all())


def _number(column: Column, rows: Rows) -> Feature:
    values = column.numbers[rows]
    empty = np.isnan(values)
    flag = bool(empty.any())
    fill = float(np.mean(values[~empty])) if flag else float(np.mean(values))
    # a column that is constant where it is known is worth its flag alone
    return Feature(column.name, "number", fill=fill, flag=flag)


def _category(column: Column, rows: Rows) -> Feature:
    codes = column.codes[rows]
    levels = column.levels or ()
    counts = np.bincount(codes[codes >= 0], minlength=len(levels))
    used = [code for code in range(len(levels)) if counts[code]]
    reference = max(used, key=lambda code: (counts[code], levels[code]))
    others = sorted(levels[code] for code in used if code != reference)
    return Feature(
        column.name,
        "category",
        levels=tuple(others),
        reference=levels[reference],
        has_missing=bool((codes < 0).any()),
    )
