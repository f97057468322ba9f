"""Word vectors as dltool keeps them: safetensors and JSON, mapped into memory, searched exactly.

A model folder:

    model.safetensors   vectors (V, D) or codes (V, D) with scales (V,); norms (V,); what training
                        goes on from: output, word_rows, ngrams; documents; common
    vocabulary.json     words and counts, in the order of the rows
    phrases.json        the pairs that the corpus's phrases were joined by
    model.json          how the vectors were made, and how text becomes words
    MANIFEST.json       size and SHA-256 of each

This module imports neither torch nor gensim: a search in 400,000 vectors takes a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dltool import __version__, manifests, runs
from dltool.errors import CheckpointError, DataError
from dltool.headers import damaged
from dltool_word2vec import store, subwords, tokens
from dltool_word2vec.store import Array

TOPIC = "word2vec"
DESCRIPTION = "model.json"
VOCABULARY = "vocabulary.json"
PHRASES = "phrases.json"
FORMAT = 1
NEAR_WORDS = 3


@dataclass
class Vectors:
    """Word vectors and what they were made with.

    Attributes:
        folder: the model folder.
        words: the vocabulary in the order of the rows.
        counts: how often each word occurred; empty where that is not known.
        arrays: the arrays of `model.safetensors`, mapped.
        about: what `model.json` says.
    """

    folder: Path
    words: list[str]
    counts: list[int]
    arrays: dict[str, Array]
    about: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def index(self) -> dict[str, int]:
        """The row of each word."""
        return {word: row for row, word in enumerate(self.words)}

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return int(self._stored.shape[1])

    @property
    def _stored(self) -> Array:
        return self.arrays["codes" if "codes" in self.arrays else "vectors"]

    @cached_property
    def norms(self) -> Array:
        """The length of each vector; 1 for a vector of zeros, which is similar to nothing."""
        norms = np.array(store.native(self.arrays["norms"]), np.float32)
        norms[norms == 0] = 1
        return norms

    def rows(self, places: Any) -> Array:
        """Return vectors as float32, (N, D) for a slice or a list of rows, unpacked where needed.

        Shapes: a slice of plain vectors is not copied.
        """
        found = store.native(self._stored[places])
        if "codes" in self.arrays:
            scales = store.native(self.arrays["scales"][places])
            return np.asarray(found.astype(np.float32) * scales[..., None])
        return found if found.dtype == np.float32 else found.astype(np.float32)

    def matrix(self) -> Array:
        """Return all vectors, (V, D) float32."""
        return self.rows(slice(0, len(self.words)))

    def find(self, word: str) -> int | None:
        """Return the row of a word, also of its lower-case form; None for an unknown word."""
        lowered = word.lower()
        for each in (word,) if lowered == word else (word, lowered):
            # a scan in C is quicker than a dictionary of all words that is used once
            if "index" in self.__dict__:
                if each in self.index:
                    return self.index[each]
            elif each in self.words:
                return self.words.index(each)
        return None

    def row(self, word: str) -> int:
        """Return the row of a word.

        Raises:
            DataError: E506, it is not in the vocabulary, with the nearest spellings.
        """
        found = self.find(word)
        if found is None:
            raise self.unknown(word)
        return found

    def unknown(self, word: str) -> DataError:
        """Return the error for a word without a vector."""
        near = self.spellings(word)
        return DataError(
            "E506",
            f"the word {word!r} is not in the vocabulary",
            expected=f"one of its {len(self.words):,} words",
            cure=f"did you mean {', '.join(near)}?"
            if near
            else "choose a word of dltool word2vec vocab, or train on text that holds it",
        )

    def spellings(self, word: str) -> list[str]:
        """Return the known words that are written most like this one."""
        import difflib

        wanted = word.lower()
        # the first letter or the length is mostly right; difflib over all words takes seconds
        likely = [
            each
            for each in self.words
            if abs(len(each) - len(wanted)) <= 2
            and (each[:1] == wanted[:1] or each[-2:] == wanted[-2:])
        ]
        return difflib.get_close_matches(wanted, likely[:50_000], n=NEAR_WORDS, cutoff=0.7)

    def vector(self, word: str) -> Array:
        """Return a word's vector (D,), from its letter groups if it is unknown and there are any.

        Raises:
            DataError: E506, an unknown word.
        """
        found = self.find(word)
        if found is not None:
            return np.asarray(self.rows([found])[0])
        groups = self.subword_vector(word)
        if groups is None:
            raise self.unknown(word)
        return groups

    def subword_vector(self, word: str) -> Array | None:
        """Return the mean vector of a word's letter groups; None without any."""
        if "ngrams" not in self.arrays:
            return None
        sizes = (int(self.about[name]) for name in ("min_n", "max_n", "bucket"))
        rows = subwords.rows(word, *sizes)
        if not rows:
            return None
        return np.asarray(store.native(self.arrays["ngrams"][rows]).mean(axis=0, dtype=np.float32))

    def scores(self, query: Array) -> Array:
        """Return the cosine of a vector (D,) to every word, (V,)."""
        length = float(np.linalg.norm(query))
        unit = (query / (length or 1.0)).astype(np.float32)
        plain = self._stored.dtype == np.float32
        scores = np.empty(len(self.words), np.float32)
        for place in store.blocks(len(self.words), len(self.words) if plain else store.BLOCK):
            np.matmul(self.rows(place), unit, out=scores[place])
        return np.asarray(scores / self.norms)

    def nearest(
        self, query: Array, count: int, leave_out: Iterable[int] = (), limit: int = 0
    ) -> list[tuple[str, float]]:
        """Return the words with the highest cosine to a vector (D,), exactly.

        Args:
            leave_out: rows that are not answers.
            limit: look at so many of the most frequent words only; 0: at all.
        """
        scores = self.scores(query)
        if limit:
            scores = scores[:limit]
        for row in leave_out:
            if row < len(scores):
                scores[row] = -np.inf
        return [(self.words[row], float(scores[row])) for row in best(scores, count)]

    def tokenizer(self, segmenter: str = "") -> tokens.Tokenizer:
        """Return what makes words of a text in the way of the corpus, phrases included.

        Raises:
            ConfigError: the corpus was cut by a segmenter, which must be named again.
        """
        name = str(self.about.get("tokenizer") or "words")
        if name == "segmenter" and not segmenter:
            # a model folder may come from anyone: it cannot name a module to import
            from dltool.errors import ConfigError

            raise ConfigError(
                "E205",
                "the corpus of these vectors was cut into words by a segmenter",
                received=str(self.about.get("segmenter")),
                cure=f"add --segmenter {self.about.get('segmenter')}",
            )
        split = tokens.tokenizer(name if not segmenter else "segmenter", segmenter)
        join = tokens.joiner(self.phrases())
        return lambda text: join(split(text))

    def phrases(self) -> list[dict[str, float]]:
        """Return the pairs that the corpus's phrases were joined by, pass by pass."""
        if not (self.folder / PHRASES).exists():
            return []
        return list(store.read_document(self.folder, PHRASES)["phrases"])


def best(scores: Array, count: int) -> list[int]:
    """Return the places of the highest scores, the highest first, ties by place; no `-inf`."""
    count = min(count, len(scores))
    if count <= 0:
        return []
    top = np.argpartition(-scores, count - 1)[:count]
    # argpartition takes any of equal scores at the border; the first places shall win
    border = scores[top].min()
    top = np.flatnonzero(scores >= border)
    order = top[np.lexsort((top, -scores[top]))][:count]
    return [int(row) for row in order if np.isfinite(scores[row])]


def save(
    folder: Path,
    words: Sequence[str],
    counts: Sequence[int],
    arrays: Mapping[str, Array],
    about: Mapping[str, Any],
    phrases: Sequence[Mapping[str, float]] = (),
) -> None:
    """Write a model folder; norms are added.

    Raises:
        Diverged: a vector is not finite.
        DltoolError: the folder cannot be written.
    """
    described = {"format": FORMAT, "dltool": __version__, "topic": TOPIC, **about}
    stored = dict(arrays)
    if "norms" not in stored:
        stored["norms"] = lengths(stored["vectors"])
    dim = int(stored["codes" if "codes" in stored else "vectors"].shape[1])
    documents: dict[str, Any] = {
        DESCRIPTION: {**described, "words": len(words), "dim": dim, "tied": {}},
        VOCABULARY: {"words": list(words), "counts": [int(count) for count in counts]},
    }
    if phrases:
        documents[PHRASES] = {"phrases": list(phrases)}
    store.write_folder(folder, stored, documents)


def lengths(matrix: Array) -> Array:
    """Return the length of each row, (V,) float32."""
    norms = np.empty(len(matrix), np.float32)
    for place in store.blocks(len(matrix)):
        norms[place] = np.linalg.norm(matrix[place].astype(np.float32), axis=1)
    return norms


def model_folder(folder: Path) -> Path:
    """Return the model folder of a run or model folder.

    Raises:
        CheckpointError: there is none, or it belongs to another topic.
    """
    for candidate in (folder / "model", folder):
        if (candidate / DESCRIPTION).exists() and (candidate / manifests.MANIFEST).exists():
            return candidate
    if (folder / "run.json").exists():
        facts = runs.read_json(folder)
        raise CheckpointError(
            "E511",
            f"{folder} has no finished model; its status is {facts.get('status')}",
            cure=f"dltool {TOPIC} train --resume {folder}",
        )
    raise CheckpointError("E511", f"{folder} is no run and no model folder")


def load(folder: Path, *, verify: bool = False) -> Vectors:
    """Open the vectors of a run or model folder.

    Args:
        verify: compare the SHA-256 of every file, not their sizes alone.

    Raises:
        CheckpointError: they are damaged, incomplete, or no word vectors.
    """
    place = model_folder(folder)
    if verify:
        manifests.verify(place)
    else:
        store.check_sizes(place)
    about = store.read_document(place, DESCRIPTION)
    owner, level = about.get("topic"), about.get("format", 0)
    if owner != TOPIC:
        raise CheckpointError(
            "E513", f"{place} is a model of {owner}, not of {TOPIC}", cure=f"dltool {owner} --help"
        )
    if isinstance(level, int) and level > FORMAT:
        raise CheckpointError("E514", f"{place} was written by a newer dltool")
    vocabulary = store.read_document(place, VOCABULARY)
    vectors = Vectors(
        place,
        vocabulary.get("words", []),
        vocabulary.get("counts", []),
        store.open_arrays(place / store.MODEL),
        about,
    )
    _check(vectors)
    return vectors


def _check(vectors: Vectors) -> None:
    """Demand words, a row for each of them, and the numbers that letter groups need."""
    arrays, words, counts = vectors.arrays, vectors.words, vectors.counts
    is_list = isinstance(words, list) and isinstance(counts, list)
    # sets of types are made in C: a vocabulary has hundreds of thousands of words
    if not is_list or set(map(type, words)) != {str}:
        raise damaged(vectors.folder / VOCABULARY, "is no vocabulary")
    if counts and (len(counts) != len(words) or set(map(type, counts)) != {int}):
        raise damaged(vectors.folder / VOCABULARY, "has no count for every word")
    names = ("codes", "scales", "norms") if "codes" in arrays else ("vectors", "norms")
    for name in names:
        found = store.require(arrays, name, vectors.folder)
        if found.ndim != (2 if name in ("codes", "vectors") else 1) or len(found) != len(words):
            raise damaged(
                vectors.folder / store.MODEL, f"has {name} {found.shape} for {len(words)} words"
            )
    sizes = [vectors.about.get(name) for name in ("min_n", "max_n", "bucket")]
    if "ngrams" in arrays and not (
        all(isinstance(size, int) for size in sizes) and sizes[2] == len(arrays["ngrams"])
    ):
        raise damaged(vectors.folder / DESCRIPTION, "does not describe the letter groups")


def iterate(vectors: Vectors) -> Iterator[tuple[str, Array]]:
    """Yield every word with its vector (D,) float32, a block of rows in memory at a time."""
    for place in store.blocks(len(vectors.words)):
        yield from zip(vectors.words[place], vectors.rows(place), strict=True)
