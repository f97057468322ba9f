"""Read fastText's own .bin file: words, letter groups and output vectors.

The layout is that of `FastText::saveModel` (https://github.com/facebookresearch/fastText):
magic and version; twelve int32 and a double of settings; the dictionary; the input matrix of words
and letter groups; the output matrix. gensim reads it too, but never ends on a file that is cut.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

import numpy as np

from dltool.errors import DataError
from dltool_word2vec import store
from dltool_word2vec.foreign import (
    FASTTEXT_MAGIC,
    LONGEST_WORD,
    MOST_DIMENSIONS,
    Bytes,
    Found,
    Tell,
    decoded,
)
from dltool_word2vec.store import Array

SETTINGS = "<12id"
NAMES = (
    *("dim", "window", "epochs", "min_count", "negative", "word_ngrams", "loss", "model"),
    *("bucket", "min_n", "max_n", "rate_update", "sample"),
)
CBOW, SUPERVISED = 1, 3  # of `model`
END = "</s>"  # has no letter groups


class _File:
    """The file with its place: every short read is an error that names the file."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.source, self.path = Bytes(stream, path), path
        self.size = path.stat().st_size

    def fault(self, message: str, cure: str = "copy the file again") -> DataError:
        return DataError("E502", f"{self.path}: {message}", cure=cure)

    def numbers(self, layout: str) -> tuple[float, ...]:
        size = struct.calcsize(layout)
        data = self.source.take(size)
        if len(data) < size:
            raise self.fault("the file is cut off")
        return struct.unpack(layout, data)

    def integers(self, layout: str) -> tuple[int, ...]:
        return tuple(int(number) for number in self.numbers(layout))

    def matrix(self) -> Array:
        """Return a matrix: a flag, its two sizes, float32 numbers."""
        (is_quantized,) = self.integers("<b")
        if is_quantized:
            raise self.fault("a quantized fastText model (.ftz) is not read", "use its .bin")
        rows, columns = self.integers("<2q")
        # an unpacked size cannot be known of a packed file; plain ones are checked before memory
        if rows < 0 or not 0 < columns <= MOST_DIMENSIONS or 4 * rows * columns > self.size:
            raise self.fault(f"a matrix of {rows:,} x {columns:,} does not fit the file")
        found = np.empty((rows, columns), np.float32)
        for place in store.blocks(rows):
            block = found[place]
            data = self.source.take(block.nbytes)
            if len(data) < block.nbytes:
                raise self.fault("the file is cut off")
            block[:] = np.frombuffer(data, "<f4").reshape(block.shape)
        return found


def read(path: Path, encoding: str, tell: Tell) -> Found:
    """Read a fastText model with what training goes on from.

    Raises:
        DataError: it is cut, swapped, of another form, quantized, or a classifier.
    """
    with path.open("rb") as stream:
        file = _File(stream, path)
        if file.source.take(4) != FASTTEXT_MAGIC:
            raise file.fault(
                "no fastText model of today's form", "for its .vec file use --format word2vec"
            )
        file.integers("<i")  # the version
        about = dict(zip(NAMES, file.numbers(SETTINGS), strict=True))
        if about["model"] == SUPERVISED:
            raise file.fault("a classifier, no word vectors", "train word vectors, or use its .vec")
        words, counts = _words(file, encoding, tell)
        rows = file.matrix()
        output = file.matrix()
    bucket = int(about["bucket"])
    if rows.shape != (len(words) + bucket, int(about["dim"])):
        raise file.fault(
            f"{len(words):,} words and {bucket:,} letter groups have a matrix of {rows.shape}"
        )
    arrays = {"word_rows": rows[: len(words)], "ngrams": rows[len(words) :]}
    if about["negative"] and output.shape == arrays["word_rows"].shape:
        arrays["output"] = output
    sizes = {name: int(about[name]) for name in ("min_n", "max_n", "bucket", "window", "negative")}
    matrix = compose(words, arrays, sizes["min_n"], sizes["max_n"])
    is_subword = bucket > 0 and sizes["max_n"] > 0
    described = {
        **sizes,
        "algorithm": "fasttext" if is_subword else "word2vec",
        "arch": "cbow" if about["model"] == CBOW else "skipgram",
    }
    kept = arrays if is_subword else {k: v for k, v in arrays.items() if k == "output"}
    return Found(words, matrix, counts, kept, described)


def _words(file: _File, encoding: str, tell: Tell) -> tuple[list[str], list[int]]:
    """Return the dictionary: words and counts."""
    size, number, labels = file.integers("<3i")
    _, pruned = file.integers("<2q")
    if labels or size != number or size < 1:
        raise file.fault("a classifier, no word vectors", "train word vectors, or use its .vec")
    words, counts = [], []
    for place in range(size):
        raw = file.source.until(b"\0", LONGEST_WORD)
        words.append(decoded(file.path, place, raw, encoding))
        counts.append(file.integers("<qb")[0])
        tell(1)
    if pruned > 0:
        raise file.fault("a pruned model is not read", "use the .bin that it was made from")
    return words, counts


def compose(words: list[str], arrays: dict[str, Array], min_n: int, max_n: int) -> Array:
    """Return the vectors of words (V, D): the mean of a word's own row and its letter groups'."""
    from gensim.models.fasttext import ft_ngram_hashes  # in C: Python takes minutes

    groups, found = arrays["ngrams"], arrays["word_rows"].copy()
    if not len(groups) or max_n < 1:
        return found
    for row, word in enumerate(words):
        if word == END:
            continue
        places = ft_ngram_hashes(word, min_n, max_n, len(groups))
        found[row] = (found[row] + groups[places].sum(axis=0)) / (len(places) + 1)
    return found
