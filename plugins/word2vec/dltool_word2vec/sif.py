"""Vectors of texts: the weighted mean of their words without what all texts share.

SIF (Arora, Liang and Ma, 2017): a word of probability p weighs a / (a + p); then the first common
direction of the texts is taken out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from dltool_word2vec.corpus import Corpus
from dltool_word2vec.store import Array

A = 1e-3
LINES = 10_000
FEWEST_TEXTS = 20


def weights(counts: Sequence[int]) -> Array:
    """Return each word's weight a / (a + p), (V,) float32; without counts every weight is 1."""
    numbers = np.asarray(counts, np.float64)
    if not len(numbers) or not numbers.sum():
        return np.ones(len(numbers), np.float32)
    return np.asarray((A / (A + numbers / numbers.sum())).astype(np.float32))


def first_direction(rows: Array) -> Array:
    """Return the direction (D,) that explains most of texts (N, D), not centred, length 1.

    Its sign is free; the largest component is made positive, so that it repeats.
    """
    rows = rows.astype(np.float64)
    _, vectors = np.linalg.eigh(rows.T @ rows)
    direction = vectors[:, -1]
    if direction[np.argmax(np.abs(direction))] < 0:
        direction = -direction
    return np.asarray(direction.astype(np.float32))


def without(rows: Array, direction: Array) -> Array:
    """Take a direction (D,) out of rows (N, D)."""
    return np.asarray(rows - np.outer(rows @ direction, direction))


def common_component(
    corpus: Corpus, words: Sequence[str], counts: Sequence[int], matrix: Array
) -> Array:
    """Return the first common direction (D,) of the corpus's first lines; zeros for a few lines."""
    index = {word: row for row, word in enumerate(words)}
    weight = weights(counts)
    rows = []
    with (corpus.folder / corpus.parts[0].name).open(encoding="utf-8") as stream:
        for line in islice(stream, LINES):
            known = [index[word] for word in line.split() if word in index]
            if known:
                rows.append(weight[known] @ matrix[known] / len(known))
    if len(rows) < FEWEST_TEXTS:
        return np.zeros(matrix.shape[1], np.float32)
    return first_direction(np.asarray(rows))
