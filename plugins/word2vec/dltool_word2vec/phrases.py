"""Join words that come together more often than by chance, as `new_york` (Mikolov et al., 2013)."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dltool import files
from dltool.console import Console
from dltool_word2vec.config import TrainConfig
from dltool_word2vec.corpus import Corpus, Writer
from dltool_word2vec.tokens import joiner

# score = (count(ab) - LEAST) * types / (count(a) * count(b)), as in the paper and in gensim
LEAST, THRESHOLD = 5, 10.0
MOST_PAIRS = 8_000_000


def lines_of(corpus: Corpus) -> Iterator[list[str]]:
    """Yield the lines of the corpus as lists of words."""
    for part in corpus.parts:
        with (corpus.folder / part.name).open(encoding="utf-8") as stream:
            for line in stream:
                yield line.split()


def find_pairs(corpus: Corpus) -> dict[str, float]:
    """Return the pairs that score above the threshold, written `first second`, with their scores.

    Only words that are frequent enough themselves are counted in pairs. When there are too many
    pairs the rarest are forgotten, as word2vec.c does.
    """
    counts = {word: count for word, count in corpus.counts.items() if count >= LEAST}
    pairs: Counter[tuple[str, str]] = Counter()
    least = 0
    for line in lines_of(corpus):
        known = [word if word in counts else "" for word in line]
        pairs.update(pair for pair in itertools.pairwise(known) if all(pair))
        while len(pairs) > MOST_PAIRS:
            least += 1
            pairs = Counter({pair: count for pair, count in pairs.items() if count > least})
    types = len(corpus.counts)
    scored = (
        (f"{one} {two}", (count - LEAST) * types / (counts[one] * counts[two]))
        for (one, two), count in pairs.items()
        if count >= LEAST
    )
    return {pair: score for pair, score in scored if score > THRESHOLD}


def join_pairs(config: TrainConfig, corpus: Corpus, number: int, console: Console) -> Corpus:
    """Return the corpus with its pairs joined; the files of the old one are replaced."""
    found = find_pairs(corpus)
    console.note(f"phrases, pass {number}: {len(found):,} pairs are joined")
    beside = Path(f"{corpus.folder}-joined")
    files.remove(beside)
    beside.mkdir()
    joined = Corpus(beside, texts=corpus.texts, cut=corpus.cut, forgotten=corpus.forgotten)
    writer = Writer(joined, one_part=config.algorithm == "doc2vec")
    join = joiner([found])
    for line in lines_of(corpus):
        writer.add(join(line))
    writer.close()
    files.remove(corpus.folder)
    beside.rename(corpus.folder)
    joined.folder = corpus.folder
    joined.phrases = [*corpus.phrases, found]
    return joined
