"""Score vectors: correlation with people's judgements of similarity, and analogies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dltool.console import Console, table
from dltool.data import texts
from dltool.errors import CheckFailed, DataError, closest
from dltool_word2vec import store, vectors
from dltool_word2vec.corpus import shipped
from dltool_word2vec.store import Array
from dltool_word2vec.vectors import Vectors

# files of gensim's test data
PAIRS = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt"}
ANALOGIES = {"google": "questions-words.txt"}
BATCH = 256
FEWEST_PAIRS = 4  # Fisher's transformation divides by n - 3


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over the pairs of which both words are known."""

    name: str
    pairs: int
    known: int
    value: float | None
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the figure for `--json`."""
        return {
            "set": self.name,
            "pairs": self.pairs,
            "n": self.known,
            "out_of_vocabulary": 1 - self.known / self.pairs,
            "spearman": self.value,
            "low": self.low,
            "high": self.high,
            "chance": 0.0,
        }


@dataclass(frozen=True)
class Section:
    """Analogies of one kind: how many there are, could be asked, and were answered right."""

    name: str
    questions: int
    known: int
    right: int


def ranks(values: Array) -> Array:
    """Return the ranks from 1, (N,); equal values share the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[place])


def spearman(one: Array, two: Array) -> float | None:
    """Return Spearman's rank correlation; None where one side is constant or N < 2."""
    if len(one) < 2:
        return None
    first, second = ranks(one), ranks(two)
    first, second = first - first.mean(), second - second.mean()
    spread = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / spread if spread else None


def interval(value: float | None, n: int) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a rank correlation.

    Fisher's transformation with the variance (1 + r²/2) / (n - 3) of Bonett and Wright,
    Psychometrika 65 (2000) 23–28.
    """
    if value is None or n < FEWEST_PAIRS or abs(value) >= 1:
        return None, None
    reach = 1.959964 * math.sqrt((1 + value * value / 2) / (n - 3))
    centre = math.atanh(value)
    return math.tanh(centre - reach), math.tanh(centre + reach)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(texts.lines(path), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line


def read_pairs(path: Path) -> list[tuple[str, str, float]]:
    """Return pairs of words with people's scores: two words and a number a line, tab or blanks.

    Raises:
        DataError: naming the line that is none; only the first may be a header.
    """
    found: list[tuple[str, str, float]] = []
    for number, line in _lines(path):
        cells = line.split("\t") if "\t" in line else line.replace(",", " ").split()
        try:
            one, two, score = cells[0].strip(), cells[1].strip(), float(cells[2])
            if not math.isfinite(score):
                raise ValueError
        except (IndexError, ValueError) as error:
            if not found and number == 1:
                continue
            raise DataError(
                "E502",
                f"{path}, line {number}: no pair of words with a score",
                received=line[:60],
                expected="word, word and a number",
                cure="mend the line",
            ) from error
        found.append((one, two, score))
    if not found:
        raise DataError("E503", f"{path} holds no pairs of words", cure="give another file")
    return found


def correlate(known: Vectors, name: str, pairs: Sequence[tuple[str, str, float]]) -> Correlation:
    """Correlate the cosines of pairs of words with people's scores."""
    rows = [(known.find(one), known.find(two), score) for one, two, score in pairs]
    usable = [(one, two, score) for one, two, score in rows if one is not None and two is not None]
    if not usable:
        return Correlation(name, len(pairs), 0, None, None, None)
    ones, twos = [one for one, _, _ in usable], [two for _, two, _ in usable]
    products = np.einsum("nd,nd->n", known.rows(ones), known.rows(twos))
    cosines = products / (known.norms[ones] * known.norms[twos])
    value = spearman(cosines, np.asarray([score for _, _, score in usable]))
    return Correlation(name, len(pairs), len(usable), value, *interval(value, len(usable)))


def read_analogies(path: Path) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return the sections of a file of analogies: `: name`, then four words a line.

    Raises:
        DataError: naming the line that has not four words.
    """
    sections: list[tuple[str, list[tuple[str, ...]]]] = []
    for number, line in _lines(path):
        if line.startswith(":"):
            sections.append((line[1:].strip(), []))
            continue
        words = tuple(line.split())
        if len(words) != 4:
            raise DataError(
                "E502",
                f"{path}, line {number}: an analogy has four words",
                received=line[:60],
                expected="a b c d, for: a is to b as c is to d",
                cure="mend the line",
            )
        if not sections:
            sections.append(("all", []))
        sections[-1][1].append(words)
    if not any(questions for _, questions in sections):
        raise DataError("E503", f"{path} holds no analogies", cure="give another file")
    return sections


def solve(
    known: Vectors, sections: Sequence[tuple[str, list[tuple[str, ...]]]], limit: int
) -> list[Section]:
    """Answer analogies by 3CosAdd among the `limit` most frequent words, without those asked."""
    count = min(limit or len(known.words), len(known.words))
    units = np.empty((count, known.dim), np.float32)
    for place in store.blocks(count):
        units[place] = known.rows(place) / known.norms[place, None]
    found = []
    for name, questions in sections:
        rows = np.array(
            [
                row
                for row in ([known.find(word) for word in words] for words in questions)
                if all(place is not None and place < count for place in row)
            ],
            np.int64,
        ).reshape(-1, 4)
        right = sum(_right(units, rows[i : i + BATCH]) for i in range(0, len(rows), BATCH))
        found.append(Section(name, len(questions), len(rows), right))
    return found


def _right(units: Array, rows: Array) -> int:
    """Count the rows (B, 4) whose fourth word is the nearest to b - a + c."""
    a, b, c, d = rows.T
    scores = (units[b] - units[a] + units[c]) @ units.T  # (B, V)
    place = np.arange(len(rows))
    for asked in (a, b, c):
        scores[place, asked] = -np.inf
    return int((scores.argmax(axis=1) == d).sum())


def evaluate_run(
    folder: Path,
    *,
    pairs: Sequence[str] | None,
    analogies: str,
    limit: int,
    min_spearman: float | None,
    console: Console,
) -> None:
    """Print the scores of a model.

    Raises:
        CheckFailed: the first correlation is below `min_spearman`, or there is none.
    """
    known = vectors.load(folder, verify=True)
    known.index  # noqa: B018 - many words are looked up
    names = pairs or list(PAIRS)
    correlations = [
        correlate(known, Path(name).name, read_pairs(_found(name, PAIRS))) for name in names
    ]
    data: dict[str, Any] = {"similarity": [each.as_dict() for each in correlations]}
    text = _similarity_table(correlations)
    if analogies != "none":
        sections = solve(known, read_analogies(_found(analogies, ANALOGIES)), limit)
        data["analogies"] = _analogy_data(
            sections, min(limit or len(known.words), len(known.words))
        )
        text += "\n\n" + _analogy_table(data["analogies"])
    first = correlations[0]
    if first.value is None:
        console.warn(f"no pair of {first.name} has two known words: there is no score")
    failed = min_spearman is not None and (first.value is None or first.value < min_spearman)
    if not (failed and console.json):
        console.result(data, text)
    if failed:
        raise CheckFailed(
            "E601",
            f"the correlation with {first.name} is below --min-spearman",
            received=first.value,
            expected=f"{min_spearman} or more",
            cure="give more text, or train longer",
        )


def _found(name: str, known: Mapping[str, str]) -> Path:
    """Return the file of a named set, or the user's own.

    Raises:
        DataError: E501, it is neither.
    """
    path = Path(name)
    if name in known and not path.exists():
        return shipped(known[name])
    if not path.is_file():
        near = closest(name, known)
        raise DataError(
            "E501",
            f"there is no set and no file {name!r}",
            expected=f"{', '.join(known)}, or a file",
            cure=f"did you mean {near}?" if near else "check the path",
        )
    return path


def _similarity_table(found: Sequence[Correlation]) -> str:
    rows = [
        (
            each.name,
            "-" if each.value is None else f"{each.value:.4f}",
            "-" if each.low is None else f"{each.low:.3f} to {each.high:.3f}",
            each.known,
            f"{1 - each.known / each.pairs:.1%}",
        )
        for each in found
    ]
    return table(rows, ("similarity", "Spearman", "95 % interval", "n", "unknown pairs"))


def _share(right: int, known: int) -> dict[str, Any]:
    from dltool.metrics import wilson

    low, high = wilson(right, known)
    return {
        "right": right,
        "n": known,
        "accuracy": right / known if known else None,
        "low": low if known else None,
        "high": high if known else None,
    }


def _analogy_data(sections: Sequence[Section], among: int) -> dict[str, Any]:
    known, right = sum(each.known for each in sections), sum(each.right for each in sections)
    questions = sum(each.questions for each in sections)
    return {
        "questions": questions,
        "out_of_vocabulary": 1 - known / questions,
        "among": among,
        "chance": 1 / max(among, 1),
        **_share(right, known),
        "sections": [
            {"name": each.name, "questions": each.questions, **_share(each.right, each.known)}
            for each in sections
        ],
    }


def _analogy_table(data: dict[str, Any]) -> str:
    rows = [*data["sections"], {"name": "all", **data}]
    cells = [
        (
            row["name"],
            "-" if row["accuracy"] is None else f"{row['accuracy']:.1%}",
            "-" if row["accuracy"] is None else f"{row['low']:.1%} to {row['high']:.1%}",
            row["n"],
            f"{1 - row['n'] / max(row['questions'], 1):.1%}",
        )
        for row in rows
    ]
    return table(cells, ("analogies", "right", "95 % interval", "n", "unknown"))
