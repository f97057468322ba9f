"""The loss on a fixed sample of windows: what both engines are watched by.

gensim's own counter is a float32 that stops growing on any real corpus, and is not there for
fastText and doc2vec. The sample is a part of the training text: its loss tells whether training
goes well, not how good the vectors are; `dltool word2vec evaluate` tells that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from dltool_word2vec.store import Array

WINDOWS = 2048
LINES = 4000
WIDEST = 10  # words to each side; wider windows tell no more and take much memory
EXPONENT = 0.75  # of the counts, for the noise words (Mikolov et al., 2013)


@dataclass(frozen=True)
class Sample:
    """Fixed windows of the corpus with their noise words, as rows of the vocabulary.

    Attributes:
        targets: (P,) the words to predict.
        context: (P, 2 * window) the words around them, -1 where a line ends.
        noise: (P, K) words drawn by their frequency to the power of 0.75.
        lines: (P,) the line of each window, which is doc2vec's document.
    """

    targets: Array
    context: Array
    noise: Array
    lines: Array


@dataclass(frozen=True)
class Loss:
    """A mean loss with its sample size and the half width of its 95 % interval."""

    value: float
    n: int
    reach: float


def noise_shares(counts: Sequence[int]) -> Array:
    """Return the cumulated probability of each word as noise, (V,) float64."""
    weights = np.asarray(counts, np.float64) ** EXPONENT
    return np.asarray(np.cumsum(weights) / weights.sum())


def draw(
    path: Path, index: Mapping[str, int], counts: Sequence[int], window: int, noise: int, seed: int
) -> Sample:
    """Draw windows from the first lines of a file of words."""
    window = min(window, WIDEST)
    generator = np.random.default_rng(seed)
    with path.open(encoding="utf-8") as stream:
        lines = [
            [index[word] for word in line.split() if word in index]
            for line in islice(stream, LINES)
        ]
    places = [(n, i) for n, line in enumerate(lines) if len(line) > 1 for i in range(len(line))]
    if not places:
        return Sample(*(np.zeros(shape, np.int64) for shape in ((0,), (0, 1), (0, 1), (0,))))
    chosen = generator.choice(len(places), min(WINDOWS, len(places)), replace=False)
    context = np.full((len(chosen), 2 * window), -1, np.int64)
    targets, numbers = np.empty((2, len(chosen)), np.int64)
    for row, place in enumerate(np.sort(chosen)):
        number, i = places[place]
        line = lines[number]
        around = line[max(0, i - window) : i] + line[i + 1 : i + 1 + window]
        context[row, : len(around)] = around
        targets[row], numbers[row] = line[i], number
    shares = noise_shares(counts)
    drawn = np.searchsorted(shares, generator.random((len(chosen), max(noise, 1))))
    return Sample(targets, context, np.minimum(drawn, len(counts) - 1), numbers)


def softplus(values: Array) -> Array:
    """Return log(1 + e^x), which is -log of the logistic function of -x."""
    return np.asarray(np.logaddexp(0.0, values))


def mean_of(losses: Array) -> Loss:
    """Return the mean of a loss for each window, with its interval."""
    n = len(losses)
    reach = 1.96 * float(np.std(losses)) / math.sqrt(n) if n > 1 else 0.0
    return Loss(float(np.mean(losses)) if n else 0.0, n, reach)


def pair_rows(sample: Sample) -> Array:
    """Return for skip-gram one word of each window, (P,): the input that predicts the target."""
    known = (sample.context >= 0).sum(axis=1)
    place = np.arange(len(known)) % np.maximum(known, 1)
    return np.asarray(sample.context[np.arange(len(known)), place])


def hidden(
    sample: Sample, inputs: Callable[[Array], Array], *, mean: bool, documents: Array | None = None
) -> Array:
    """Return the vector that predicts each target, (P, D).

    Args:
        inputs: input vectors of rows, (N,) -> (N, D).
        mean: the mean of the window (CBOW), not one word of it (skip-gram).
        documents: doc2vec's vectors; with `mean` one more word, else in the place of the words.
    """
    if not mean:
        return inputs(pair_rows(sample)) if documents is None else documents[sample.lines]
    mask = (sample.context >= 0)[..., None]
    rows = np.where(sample.context >= 0, sample.context, 0)
    vectors = inputs(rows.reshape(-1)).reshape(*rows.shape, -1) * mask  # (P, 2w, D)
    total, count = vectors.sum(axis=1), mask.sum(axis=1)
    if documents is not None:
        total, count = total + documents[sample.lines], count + 1
    return np.asarray(total / np.maximum(count, 1))


def negative_sampling(vectors: Array, output: Array, sample: Sample) -> Loss:
    """Return the mean of -log s(v·u) - sum over the noise of log s(-v·u'), s the logistic function.

    Args:
        vectors: (P, D) what predicts; output: (V, D) the vectors of predicted words.
    """
    positive = np.einsum("pd,pd->p", vectors, output[sample.targets])
    noise = np.einsum("pd,pkd->pk", vectors, output[sample.noise])
    return mean_of(softplus(-positive) + softplus(noise).sum(axis=1))


def hierarchical(
    vectors: Array, nodes: Array, sample: Sample, points: Sequence[Any], codes: Sequence[Any]
) -> Loss:
    """Return the mean of -sum over a word's path of log s(±v·node): the word's -log probability.

    Args:
        vectors: (P, D); nodes: (V, D) the tree's inner nodes; points, codes: each word's path.
    """
    losses = np.empty(len(vectors))
    for row, (word, vector) in enumerate(zip(sample.targets, vectors, strict=True)):
        signs = 1.0 - 2.0 * np.asarray(codes[word], np.float64)
        losses[row] = softplus(-signs * (nodes[points[word]] @ vector)).sum()
    return mean_of(losses)
