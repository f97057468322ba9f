"""Ask trained vectors about texts: their similarity, many neighbours at once, coverage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dltool import files
from dltool.console import Console, table
from dltool.data import texts
from dltool.errors import ConfigError, DataError
from dltool_word2vec import sif, store, tokens, vectors
from dltool_word2vec.store import Array
from dltool_word2vec.vectors import Vectors

QUERIES = 256
SHOWN = 40
FEWEST_TEXTS = 10


def text_vectors(known: Vectors, split: tokens.Tokenizer, lines: Sequence[str]) -> Array:
    """Return the SIF vector of each text, (N, D); zeros for one without a known word."""
    weight = sif.weights(known.counts or [0] * len(known.words))
    found = np.zeros((len(lines), known.dim), np.float32)
    for number, line in enumerate(lines):
        rows = [known.index[word] for word in split(line) if word in known.index]
        if rows:
            found[number] = weight[rows] @ known.rows(rows) / len(rows)
    return sif.without(found, _common(known, found))


def _common(known: Vectors, found: Array) -> Array:
    """Return what the texts share: as the corpus told, else these texts if they are many."""
    if "common" in known.arrays:
        return store.native(known.arrays["common"])
    if len(found) >= FEWEST_TEXTS:
        return sif.first_direction(found)
    return np.zeros(known.dim, np.float32)


def cosines(found: Array) -> Array:
    """Return the cosine of each row with each, (N, N)."""
    norms = vectors.lengths(found)
    norms[norms == 0] = 1
    units = found / norms[:, None]
    return np.asarray(np.clip(units @ units.T, -1, 1))


def _read_texts(given: Sequence[str]) -> list[str]:
    """Return texts as given, and the lines of files and of standard input."""
    lines: list[str] = []
    for each in given:
        if each == texts.STDIN or (len(each) < 1000 and Path(each).is_file()):
            lines += [line for line in texts.lines(each) if line.strip()]
        else:
            lines.append(each)
    if len(lines) < 2:
        raise ConfigError(
            "E201",
            "there are fewer than two texts to compare",
            received=len(lines),
            expected="two texts, or a file with one a line",
            cure='dltool word2vec text-similar latest "first text" "second text"',
        )
    return lines


def text_similar(
    folder: Path,
    given: Sequence[str],
    *,
    matrix: bool,
    top: int,
    segmenter: str,
    console: Console,
) -> None:
    """Print the most similar pairs of texts, or the whole table."""
    lines = _read_texts(given)
    known = vectors.load(folder)
    found = text_vectors(known, known.tokenizer(segmenter), lines)
    empty = [number for number, row in enumerate(found) if not row.any()]
    if len(empty) == len(lines):
        raise DataError(
            "E506",
            "no text holds a word of the vocabulary",
            expected=f"words such as {', '.join(known.words[:5])}",
            cure="use vectors of the texts' language",
        )
    for number in empty[:3]:
        console.warn(f"text {number + 1} holds no known word; it is similar to nothing")
    scores = cosines(found)
    data: dict[str, Any] = {"texts": lines}
    if matrix:
        data["matrix"] = [[round(float(each), 6) for each in row] for row in scores]
        header = ("text", *map(str, range(1, len(lines) + 1)))
        rows = [(str(n + 1), *(f"{x:.3f}" for x in row)) for n, row in enumerate(scores)]
        console.result(data, table(rows, header))
        return
    pairs = list(_best_pairs(scores, top))
    data["pairs"] = [
        {"first": one + 1, "second": two + 1, "cosine": round(score, 6)}
        for one, two, score in pairs
    ]
    rows = [(f"{score:.4f}", _short(lines[one]), _short(lines[two])) for one, two, score in pairs]
    console.result(data, table(rows, ("cosine", "text", "text")))


def _best_pairs(scores: Array, top: int) -> Iterator[tuple[int, int, float]]:
    ones, twos = np.triu_indices(len(scores), k=1)
    for place in vectors.best(scores[ones, twos], top):
        yield int(ones[place]), int(twos[place]), float(scores[ones[place], twos[place]])


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= SHOWN else plain[: SHOWN - 1] + "…"


def neighbors(
    folder: Path, file: str, *, top: int, out: Path | None, limit: int, console: Console
) -> None:
    """Write the neighbours of every word of a file, one JSON object a line."""
    wanted = [word for line in texts.lines(file) for word in [line.strip()] if word]
    if not wanted:
        raise DataError("E503", f"{file} holds no word", cure="give a file with a word a line")
    known = vectors.load(folder)
    asked = [(word, known.find(word)) for word in wanted]
    rows = [row for _, row in asked if row is not None]
    missing = [word for word, row in asked if row is None]
    if not rows:
        raise known.unknown(missing[0])
    if missing:
        shown = ", ".join(missing[:5])
        console.warn(f"{len(missing):,} of {len(wanted):,} words are unknown: {shown}")
    search, engine = searcher(known, limit)
    console.note(f"{len(rows):,} words among {limit or len(known.words):,}, exact, by {engine}")
    lines, records = [], []
    with console.progress(len(rows), "neighbors", "word") as bar:
        for start in range(0, len(rows), QUERIES):
            batch = rows[start : start + QUERIES]
            for row, near in zip(batch, search(batch, top), strict=True):
                pairs = [{"word": known.words[i], "cosine": round(score, 6)} for i, score in near]
                records.append({"word": known.words[row], "neighbors": pairs})
                lines.append(json.dumps(records[-1], ensure_ascii=False))
            bar.advance(len(batch))
    data: dict[str, Any] = {"words": len(rows), "unknown": missing, "search": engine}
    if out is not None:
        files.write_bytes_atomic(out, ("\n".join(lines) + "\n").encode())
        console.result({**data, "file": str(out)}, f"{len(rows):,} words, written to {out}")
        return
    console.result({**data, "results": records}, "\n".join(lines))


def searcher(known: Vectors, limit: int = 0) -> tuple[Any, str]:
    """Return an exact search for many rows at once, and what does it: faiss or NumPy."""
    count = min(limit or len(known.words), len(known.words))

    def units(places: Any) -> Array:
        return np.ascontiguousarray(known.rows(places) / known.norms[places, None])

    try:
        import faiss
    except ImportError:

        def search(rows: Sequence[int], top: int) -> list[list[tuple[int, float]]]:
            scores = units(list(rows)) @ units(slice(0, count)).T  # (B, V)
            for number, row in enumerate(rows):
                if row < count:
                    scores[number, row] = -np.inf
            return [[(i, float(each[i])) for i in vectors.best(each, top)] for each in scores]

        return search, "numpy"
    index = faiss.IndexFlatIP(known.dim)
    for place in store.blocks(count):
        index.add(units(place))

    def search_faiss(rows: Sequence[int], top: int) -> list[list[tuple[int, float]]]:
        scores, places = index.search(units(list(rows)), min(top + 1, count))
        return [
            [(int(i), float(s)) for i, s in zip(p, each, strict=True) if i != row and i >= 0][:top]
            for row, p, each in zip(rows, places, scores, strict=True)
        ]

    return search_faiss, "faiss"


def vocab(
    folder: Path,
    *,
    top: int,
    contains: str,
    coverage: Path | None,
    segmenter: str,
    console: Console,
) -> None:
    """Print the vocabulary with its counts, or how much of a text it covers."""
    known = vectors.load(folder)
    if coverage is not None:
        _coverage(known, coverage, segmenter, console)
        return
    counts: Sequence[int | None] = known.counts or [None] * len(known.words)
    chosen = [
        (word, count)
        for word, count in zip(known.words, counts, strict=True)
        if contains.lower() in word.lower()
    ]
    shown = chosen[: top or len(chosen)]
    data = {
        "words": len(known.words),
        "matching": len(chosen),
        "list": [{"word": word, "count": count} for word, count in shown],
    }
    rows = [(word, "" if count is None else count) for word, count in shown]
    console.note(f"{len(known.words):,} words, {len(chosen):,} match, {len(shown):,} shown")
    console.result(data, table(rows, ("word", "count")))


def _coverage(known: Vectors, path: Path, segmenter: str, console: Console) -> None:
    split = known.tokenizer(segmenter)
    counts: Counter[str] = Counter()
    for line in texts.lines(path):
        counts.update(split(line))
    total = sum(counts.values())
    if not total:
        raise DataError("E503", f"{path} holds no words", cure="give a text")
    missing = [(word, count) for word, count in counts.most_common() if word not in known.index]
    lost = sum(count for _, count in missing)
    data = {
        "words": total,
        "types": len(counts),
        "covered_words": (total - lost) / total,
        "covered_types": (len(counts) - len(missing)) / len(counts),
        "missing": [{"word": word, "count": count} for word, count in missing[:100]],
    }
    text = (
        f"{data['covered_words']:.1%} of {total:,} words and {data['covered_types']:.1%} of "
        f"{len(counts):,} different words have a vector"
    )
    if missing:
        text += "\n\n" + table(missing[:10], ("most frequent without", "count"))
    console.result(data, text)
