"""Which file holds which split, which column holds what, and the texts and labels in them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dltool.data import texts
from dltool.errors import DataError


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


TEXT_NAMES = _words(
    "text sentence review content document body message tweet comment utterance query title "
    "headline abstract description"
)
LABEL_NAMES = _words(
    "label labels class classes category target sentiment intent topic score rating stars "
    "similarity gold_label is_duplicate y tags answer"
)
PAIR_NAMES = (
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("query", "passage"),
    ("question", "passage"),
    ("question", "context"),
)
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
CONLL = (".conll", ".iob", ".iob1", ".iob2", ".bio", ".bioes", ".bilou", ".ner")
SQUAD = (".json",)
KINDS = (*texts.TABLES, *texts.JSON_LINES, *CONLL, *SQUAD, ".txt")
LOOKED_AT = 1000
LONGEST_LABEL = 40


@dataclass(frozen=True)
class Columns:
    """Names of the columns, or their numbers from 1; empty: there is none."""

    text: str
    second: str = ""
    label: str = ""

    def named(self) -> str:
        """Return the choice in words."""
        parts = {"text": self.text, "second text": self.second, "label": self.label}
        return ", ".join(f"{what} from {name!r}" for what, name in parts.items() if name)


@dataclass(frozen=True)
class Examples:
    """Texts with their labels as they stand in a file.

    Attributes:
        seconds: the second text of each pair; empty where there are no pairs.
        labels: empty where they were not asked for.
        places: file and line of each, for messages.
    """

    texts: list[str]
    seconds: list[str]
    labels: list[str]
    places: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, index: Sequence[int]) -> Examples:
        """Return the examples of these numbers, in this order."""
        parts = (self.texts, self.seconds, self.labels, self.places)
        return Examples(*([part[i] for i in index] if part else [] for part in parts))


def split_files(source: str) -> dict[str, str]:
    """Return the file of each split; a single file is the split `all`.

    Raises:
        DataError: E501, there is nothing of this name; E503, a folder without a training file.
    """
    path = Path(source)
    if not path.is_dir():
        if not path.exists():
            raise DataError(
                "E501",
                f"there is no file {source!r}",
                expected="a CSV, TSV, JSON Lines, CoNLL or SQuAD file, a folder of such files, or "
                "reviews",
                cure="check the path",
            )
        return {"all": source}
    found: dict[str, str] = {}
    # tables first: a .txt beside them is hardly the data
    for file in sorted(path.iterdir(), key=lambda file: (not texts.is_table(file), file.name)):
        stem = file.name.split(".")[0].lower()
        for split, names in SPLIT_NAMES.items():
            if stem in names and split not in found and texts.kind(file) in KINDS:
                found[split] = str(file)
    if "train" not in found:
        raise DataError(
            "E503",
            f"the folder {source!r} holds no training file",
            expected="train.csv, val.csv and test.csv, or .tsv, .jsonl, .conll or .json (.gz, .xz)",
        )
    return found


def refuse_other_files(source: str) -> None:
    """Refuse what does not hold rows of cells.

    Raises:
        DataError: E502, by the file's name.
    """
    if texts.kind(source) not in (*texts.TABLES, *texts.JSON_LINES, ".txt"):
        raise DataError(
            "E502",
            f"{source}: this name promises no table",
            expected=".csv, .tsv or .jsonl, plain or .gz, .xz, .bz2",
            cure="rename the file after what is in it",
        )


def infer(
    source: str, given: Columns, *, encoding: str, with_label: bool = True, paired: bool = False
) -> Columns:
    """Return the columns to read: those that were named, and the likeliest for the rest.

    Raises:
        DataError: E506, no column can be told to hold the texts or the labels.
    """
    refuse_other_files(source)
    header = [name.strip() for name in texts.columns(source, encoding=encoding)]
    lower = [name.lower() for name in header]
    text, second, label = given.text, given.second, given.label
    if not text and not second:
        for left, right in PAIR_NAMES:
            if left in lower and right in lower:
                text, second = header[lower.index(left)], header[lower.index(right)]
                break
    if not text:
        text = _known(header, lower, TEXT_NAMES)
    if with_label and not label:
        label = _known(header, lower, LABEL_NAMES)
    if (text and (label or not with_label)) and (second or not paired):
        return Columns(text, second, label if with_label else "")
    if not (given.text or given.second or given.label or text or label):
        guess = _by_content(source, header, encoding, with_label=with_label)
        if guess is not None and not paired:
            return guess
    missing = "--text" if not text else "--label" if with_label and not label else "--second"
    raise DataError(
        "E506",
        f"{source}: no column can be told to hold what {missing} names",
        received=", ".join(header)[:200],
        cure=f"name it: {missing} COLUMN; in a file without a header its number, as {missing} 1",
    )


def choose(
    source: str, option: str, given: str, known: Sequence[str], header: Sequence[str]
) -> str:
    """Return the column that an option names, or the first that has one of the known names.

    Raises:
        DataError: E506, there is none.
    """
    lower = [name.lower() for name in header]
    found = (given if given in header else "") if given else _known(list(header), lower, known)
    if found:
        return found
    raise DataError(
        "E506",
        f"{source}: no column can be told to hold what {option} names",
        received=", ".join(header)[:200],
        expected=f"one of {', '.join(known)}",
        cure=f"name it: {option} COLUMN",
    )


def _known(header: list[str], lower: list[str], names: Sequence[str]) -> str:
    return next((header[lower.index(name)] for name in names if name in lower), "")


def _by_content(
    source: str, header: list[str], encoding: str, *, with_label: bool
) -> Columns | None:
    """Take the longest column for the text and the one with the fewest values for the label."""
    if texts.kind(source) in texts.JSON_LINES or not header:
        return None
    numbers = [str(place + 1) for place in range(len(header))]
    cells = [
        row.cells
        for row in itertools.islice(texts.rows(source, numbers, encoding=encoding), LOOKED_AT)
    ]
    columns = list(zip(*cells, strict=True))
    lengths = [sum(map(len, column)) / len(column) for column in columns]
    text = max(range(len(columns)), key=lambda place: lengths[place])
    if not with_label:
        return Columns(numbers[text])
    others = [place for place in range(len(columns)) if place != text]
    if not others:
        return None
    label = min(others, key=lambda place: len(set(columns[place])))
    if lengths[label] > LONGEST_LABEL:
        return None
    # a header's word for the label is no label itself; a first row's label comes again
    if columns[label][0] in columns[label][1:]:
        return Columns(numbers[text], "", numbers[label])
    return Columns(header[text], "", header[label])


def read(source: str, columns: Columns, *, encoding: str) -> Examples:
    """Read the columns of a file.

    Raises:
        DataError: as `dltool.data.texts.rows`; E503, there is no row.
    """
    refuse_other_files(source)
    wanted = [name for name in (columns.text, columns.second, columns.label) if name]
    places, cells = [], []
    for row in texts.rows(source, wanted, encoding=encoding):
        places.append(f"{source}, line {row.line}")
        cells.append(row.cells)
    if not cells:
        raise DataError("E503", f"{source} has no row", cure="give a file with rows")
    parts = dict(zip(wanted, map(list, zip(*cells, strict=True)), strict=True))
    return Examples(
        parts[columns.text],
        parts.get(columns.second, []) if columns.second else [],
        [cell.strip() for cell in parts[columns.label]] if columns.label else [],
        places,
    )
