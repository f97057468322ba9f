"""gensim's loops, a part of the corpus at a time: each part is a step that can be the last one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from dltool.errors import DltoolError
from dltool.seeds import derive_seed
from dltool_word2vec import loss
from dltool_word2vec.config import TrainConfig
from dltool_word2vec.corpus import Corpus, Part
from dltool_word2vec.loss import Loss, Sample
from dltool_word2vec.store import Array

LEAST_RATE = 1e-4  # gensim's min_alpha


@contextmanager
def quiet() -> Iterator[None]:
    """Keep gensim's own warnings off: it takes a part of the corpus for a corpus that was cut."""
    logger = logging.getLogger("gensim")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def processors() -> int:
    """Return the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads(config: TrainConfig) -> int:
    """Return the threads that `--workers` means."""
    return config.workers or processors()


def build(config: TrainConfig, counts: Mapping[str, int], corpus: Corpus) -> Any:
    """Make a gensim model of a vocabulary, its rows in the order of `counts`.

    Raises:
        DltoolError: E801, the vectors do not fit into memory.
    """
    from gensim.models import Doc2Vec, FastText, Word2Vec

    shared: dict[str, Any] = {
        "vector_size": config.dim,
        "window": config.window,
        "negative": config.negative,
        "hs": int(config.hs),
        "sample": config.sample,
        "min_count": config.min_count if config.algorithm == "doc2vec" else 1,
        "alpha": config.learning_rate,
        "min_alpha": min(LEAST_RATE, config.learning_rate),
        "workers": threads(config),
        "seed": derive_seed(config.seed, "weights") % 2**31,
    }
    is_skipgram = int(config.arch == "skipgram")
    try:
        with quiet():
            if config.algorithm == "doc2vec":
                model = Doc2Vec(dm=1 - is_skipgram, dbow_words=is_skipgram, **shared)
                model.build_vocab(corpus_file=str(corpus.folder / corpus.parts[0].name))
                return model
            shared.update(sg=is_skipgram, sorted_vocab=0)
            if config.algorithm == "fasttext":
                groups = {"min_n": config.min_n, "max_n": config.max_n, "bucket": config.bucket}
                model = FastText(**shared, **groups)
            else:
                model = Word2Vec(**shared)
            model.build_vocab_from_freq(dict(counts), corpus_count=corpus.lines)
            if config.algorithm == "fasttext":
                # a word's own vector is the mean of its parts: made once, at the end
                model.wv.adjust_vectors = lambda: None
    except MemoryError as error:
        raise DltoolError(
            "E801",
            f"{len(counts):,} vectors of {config.dim} do not fit into memory",
            cure="use a smaller --dim or a larger --min-count",
        ) from error
    return model


def finish(model: Any) -> None:
    """Bring derived vectors up to date: fastText's words are the mean of their parts."""
    if "adjust_vectors" in vars(model.wv):
        del model.wv.adjust_vectors
        model.wv.adjust_vectors()


def arrays(model: Any) -> dict[str, Array]:
    """Return what training changes, by the names that the files have."""
    found: dict[str, Array] = {}
    if hasattr(model.wv, "vectors_ngrams"):
        found["word_rows"] = model.wv.vectors_vocab
        found["ngrams"] = model.wv.vectors_ngrams
    else:
        found["vectors"] = model.wv.vectors
    if model.negative:
        found["output"] = model.syn1neg
    if model.hs:
        found["nodes"] = model.syn1
    if hasattr(model, "dv"):
        found["documents"] = model.dv.vectors
    return found


def fill(model: Any, stored: Mapping[str, Array]) -> None:
    """Put stored arrays into a model; fewer rows than it has are its first ones."""
    for name, own in arrays(model).items():
        if name in stored:
            own[: len(stored[name])] = stored[name]


class Trainer:
    """Train a gensim model part by part, the learning rate falling evenly over all of them."""

    def __init__(
        self, config: TrainConfig, model: Any, corpus: Corpus, counts: Sequence[int]
    ) -> None:
        self.config, self.model, self.corpus = config, model, corpus
        index = model.wv.key_to_index
        seed = derive_seed(config.seed, "loss")
        first = corpus.folder / corpus.parts[0].name
        self.sample: Sample = loss.draw(first, index, counts, config.window, config.negative, seed)

    def rate(self, done: float) -> float:
        """Return the learning rate after this share of the training."""
        low, high = min(LEAST_RATE, self.config.learning_rate), self.config.learning_rate
        return high - (high - low) * min(done, 1.0)

    def step(self, epoch: int, number: int, before: int) -> None:
        """Train on one part.

        Args:
            before: words of the parts before it in this epoch.
        """
        part: Part = self.corpus.parts[number]
        total = self.corpus.words * self.config.epochs
        done = (self.corpus.words * epoch + before) / total
        # its own stream for every part: a position is all that a resumed run needs
        seed = derive_seed(self.config.seed, "part", epoch, number) % 2**32
        self.model.random = np.random.RandomState(seed)
        with quiet():
            self.model.train(
                corpus_file=str(self.corpus.folder / part.name),
                total_words=part.words,
                total_examples=part.lines,
                epochs=1,
                start_alpha=self.rate(done),
                end_alpha=self.rate(done + part.words / total),
            )

    def _inputs(self, rows: Array) -> Array:
        keyed = self.model.wv
        if not hasattr(keyed, "vectors_ngrams"):
            return np.asarray(keyed.vectors[rows])
        unique, place = np.unique(rows, return_inverse=True)
        vectors = np.empty((len(unique), keyed.vector_size), np.float32)
        for i, row in enumerate(unique):
            groups = keyed.vectors_ngrams[keyed.buckets_word[row]]
            vectors[i] = (keyed.vectors_vocab[row] + groups.sum(axis=0)) / (len(groups) + 1)
        return vectors[place]

    def loss(self) -> Loss:
        """Return the loss on the fixed sample of windows."""
        model = self.model
        documents = model.dv.vectors if hasattr(model, "dv") else None
        vectors = loss.hidden(
            self.sample, self._inputs, mean=self.config.arch == "cbow", documents=documents
        )
        if model.hs:
            points, codes = model.wv.expandos["point"], model.wv.expandos["code"]
            return loss.hierarchical(vectors, model.syn1, self.sample, points, codes)
        return loss.negative_sampling(vectors, model.syn1neg, self.sample)
