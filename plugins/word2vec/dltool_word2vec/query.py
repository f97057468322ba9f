"""Ask trained vectors: neighbours, analogies, the odd one out. Neither torch nor gensim is needed.

A command opens the vectors in place (`vectors.load`), so that it takes a moment also on large ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dltool import runs
from dltool.console import Console, table
from dltool.errors import ConfigError, DataError
from dltool_word2vec import store, vectors
from dltool_word2vec.store import Array
from dltool_word2vec.vectors import Vectors

MOST_SHOWN_SETTINGS = ("engine", "algorithm", "arch", "window", "negative", "hs", "tokenizer")


def similar(
    folder: Path,
    words: Sequence[str],
    *,
    top: int,
    together: bool,
    document: bool,
    limit: int,
    console: Console,
) -> None:
    """Print the neighbours of words, or of the mean of their directions."""
    known = vectors.load(folder)
    if document:
        _similar_documents(known, words, top, console)
        return
    queries = [known.vector(word) for word in words]
    rows = [row for row in map(known.find, words) if row is not None]
    if together:
        mean = np.sum([unit(query) for query in queries], axis=0)
        found = {" + ".join(words): known.nearest(mean, top, rows, limit)}
    else:
        own = [known.find(word) for word in words]
        found = {
            word: known.nearest(query, top, [] if row is None else [row], limit)
            for word, query, row in zip(words, queries, own, strict=True)
        }
    _note_guessed(known, words, console)
    data = {"neighbors": {word: _listed(near) for word, near in found.items()}}
    console.result(data, "\n\n".join(_neighbor_table(word, near) for word, near in found.items()))


def _note_guessed(known: Vectors, words: Sequence[str], console: Console) -> None:
    for word in words:
        row = known.find(word)
        if row is None:
            console.note(f"{word!r} is not in the vocabulary; its letter groups stand for it")
        elif known.words[row] != word:
            console.note(f"{word!r} is read as {known.words[row]!r}")


def _listed(near: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"word": word, "cosine": round(score, 6)} for word, score in near]


def _neighbor_table(word: str, near: Sequence[tuple[str, float]]) -> str:
    return table([(each, f"{score:.4f}") for each, score in near], (word, "cosine"))


def _similar_documents(known: Vectors, numbers: Sequence[str], top: int, console: Console) -> None:
    documents = known.arrays.get("documents")
    if documents is None:
        raise ConfigError(
            "E205",
            "these vectors have none of texts",
            cure="train them with --algorithm doc2vec, or use dltool word2vec text-similar",
        )
    matrix = store.native(documents)
    norms = vectors.lengths(matrix)
    norms[norms == 0] = 1
    found: dict[str, list[tuple[str, float]]] = {}
    for number in numbers:
        if not number.isdecimal() or int(number) >= len(matrix):
            raise DataError(
                "E506",
                "there is no text of this number",
                received=number,
                expected=f"0 to {len(matrix) - 1}, counted without empty texts",
                cure="choose another number",
            )
        scores = matrix @ unit(matrix[int(number)]) / norms
        scores[int(number)] = -np.inf
        near = [(str(row), float(scores[row])) for row in vectors.best(scores, top)]
        found[number] = near
    data = {
        "documents": {
            number: [{"document": int(each), "cosine": round(score, 6)} for each, score in near]
            for number, near in found.items()
        }
    }
    shown = [_neighbor_table(f"text {number}", near) for number, near in found.items()]
    console.result(data, "\n\n".join(shown))


def unit(vector: Array) -> Array:
    """Return a vector (D,) at length 1; zeros stay zeros."""
    return np.asarray(vector / (float(np.linalg.norm(vector)) or 1.0))


def read_terms(terms: Sequence[str]) -> list[tuple[int, str]]:
    """Return sign and word of each term of `king - man + woman`, in one text or several.

    A sign may stand alone or at its word (`-man`).

    Raises:
        ConfigError: E201, no word, two words without a sign, a sign without a word.
    """
    found: list[tuple[int, str]] = []
    sign = 0  # 0: none since the last word
    for term in " ".join(terms).split():
        word = term
        if term[0] in "+-":
            if sign:
                raise _misread(terms)
            sign, word = (1 if term[0] == "+" else -1), term[1:]
        if not word:
            continue
        if found and not sign:
            raise _misread(terms)
        found.append((sign or 1, word))
        sign = 0
    if sign or not found:
        raise _misread(terms)
    return found


def _misread(terms: Sequence[str]) -> ConfigError:
    return ConfigError(
        "E201",
        "the analogy is not understood",
        received=" ".join(terms),
        expected="words with + or - between them",
        cure="dltool word2vec analogy latest king - man + woman",
    )


def analogy(folder: Path, terms: Sequence[str], *, top: int, limit: int, console: Console) -> None:
    """Print the words nearest to a sum of directions, without the words of the question."""
    signed = read_terms(terms)
    known = vectors.load(folder)
    total = np.sum([sign * unit(known.vector(word)) for sign, word in signed], axis=0)
    rows = [row for row in (known.find(word) for _, word in signed) if row is not None]
    near = known.nearest(total, top, rows, limit)
    _note_guessed(known, [word for _, word in signed], console)
    data = {
        "terms": [{"sign": "+" if sign > 0 else "-", "word": word} for sign, word in signed],
        "answers": _listed(near),
    }
    console.result(data, _neighbor_table(" ".join(terms), near))


def odd_one_out(folder: Path, words: Sequence[str], *, console: Console) -> None:
    """Print the word with the lowest cosine to the mean direction of the others."""
    if len(words) < 3:
        raise ConfigError(
            "E201",
            "the odd one out needs a choice",
            received=" ".join(words),
            expected="three words or more",
            cure="dltool word2vec odd-one-out latest breakfast lunch dinner car",
        )
    known = vectors.load(folder)
    units = np.stack([unit(known.vector(word)) for word in words])  # (N, D)
    others = units.sum(axis=0) - units
    scores = [float(unit(rest) @ each) for rest, each in zip(others, units, strict=True)]
    odd = int(np.argmin(scores))
    _note_guessed(known, words, console)
    listed = [
        {"word": word, "cosine": round(score, 6)} for word, score in zip(words, scores, strict=True)
    ]
    ranked = sorted(zip(words, scores, strict=True), key=lambda item: item[1])
    rows = [(word, f"{score:.4f}") for word, score in ranked]
    text = f"{words[odd]}\n\n" + table(rows, ("word", "cosine to the others"))
    console.result({"odd_one_out": words[odd], "words": listed}, text)


def show_vectors(folder: Path, words: Sequence[str], *, normalize: bool, console: Console) -> None:
    """Print words with their numbers, a line each."""
    known = vectors.load(folder)
    found = {word: known.vector(word) for word in words}
    if normalize:
        found = {word: unit(vector) for word, vector in found.items()}
    _note_guessed(known, words, console)
    lists = {word: [float(f"{x:.8g}") for x in vector] for word, vector in found.items()}
    lines = [f"{word} {' '.join(f'{x:.6g}' for x in vector)}" for word, vector in lists.items()]
    console.result({"vectors": lists}, "\n".join(lines))


def describe(folder: Path, console: Console) -> None:
    """Print what a run or model folder holds."""
    known = vectors.load(folder)
    about = known.about
    size = sum(path.stat().st_size for path in known.folder.iterdir() if path.is_file())
    arrays = {name: list(array.shape) for name, array in sorted(known.arrays.items())}
    kind = known.arrays["codes" if "codes" in known.arrays else "vectors"].dtype.name
    data: dict[str, Any] = {
        "folder": str(known.folder),
        "words": len(known.words),
        "dim": known.dim,
        "type": kind,
        "bytes": size,
        "arrays": arrays,
        **{name: value for name, value in about.items() if name != "tied"},
    }
    if (folder / "run.json").exists():
        facts = runs.read_json(folder)
        data["run"] = {name: facts.get(name) for name in ("status", "grade", "created")}
    lines = [
        f"{len(known.words):,} words, {known.dim} dimensions, {kind}, {size / 1e6:,.1f} MB",
        ", ".join(
            f"{name} {about[name]}"
            for name in MOST_SHOWN_SETTINGS
            if about.get(name) not in (None, "", False)
        ),
        f"most frequent: {' '.join(known.words[:8])}",
    ]
    if about.get("corpus_words"):
        source = ", ".join(about.get("data", []))
        lines.insert(1, f"from {about['corpus_words']:,} words of {source}")
    if about.get("source"):
        lines.insert(1, f"imported from {about['source']}")
    lines.append(f"folder {known.folder}")
    console.result(data, "\n".join(line for line in lines if line))
