"""Guards on a corpus: what makes word vectors useless without any error."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from dltool.guards.findings import Finding
from dltool_word2vec.config import TrainConfig
from dltool_word2vec.corpus import Corpus

FEW_WORDS = 50_000
LINES = 20_000
MOST_REPEATED = 0.2
LEAST_KEPT = 0.7
MARKUP = ("br", "nbsp", "href", "amp", "quot", "div", "span", "http", "https")
LEAST_MARKUP = 1e-3
HAN = ("\u4e00", "\u9fff")
MOST_HAN = 0.1


def look(config: TrainConfig, corpus: Corpus, counts: Mapping[str, int]) -> list[Finding]:
    """Return what is suspicious about a corpus and its vocabulary."""
    lines = _first_lines(corpus)
    found = [
        _too_small(corpus),
        _too_rare(config, corpus, counts),
        _markup(corpus, counts),
        _repeated(lines),
        _unsegmented(config, lines),
    ]
    return [each for each in found if each is not None]


def _first_lines(corpus: Corpus) -> list[str]:
    with (corpus.folder / corpus.parts[0].name).open(encoding="utf-8") as stream:
        return list(islice(stream, LINES))


def _too_small(corpus: Corpus) -> Finding | None:
    if corpus.words >= FEW_WORDS:
        return None
    return Finding(
        "G-W01",
        "warn",
        f"the text has {corpus.words:,} words (limit {FEW_WORDS:,}): neighbours will be chance",
        "give more text, or train existing vectors further with --start-from",
    )


def _too_rare(config: TrainConfig, corpus: Corpus, counts: Mapping[str, int]) -> Finding | None:
    kept = sum(counts.values()) / max(corpus.words, 1)
    if kept >= LEAST_KEPT:
        return None
    return Finding(
        "G-W02",
        "warn",
        f"only {kept:.0%} of the text are words with --min-count {config.min_count} "
        f"(limit {LEAST_KEPT:.0%}); the others are passed over",
        "lower --min-count, or choose the --tokenizer of the text's language",
    )


def _markup(corpus: Corpus, counts: Mapping[str, int]) -> Finding | None:
    shares = {word: counts.get(word, 0) / max(corpus.words, 1) for word in MARKUP}
    word, share = max(shares.items(), key=lambda item: item[1])
    if share < LEAST_MARKUP:
        return None
    return Finding(
        "G-W03",
        "warn",
        f"{share:.1%} of the words are {word!r}: the text holds HTML, which becomes context",
        "take the markup out first",
    )


def _repeated(lines: list[str]) -> Finding | None:
    long = [line for line in lines if line.count(" ") >= 4]
    if len(long) < 100:
        return None
    share = 1 - len(set(long)) / len(long)
    if share < MOST_REPEATED:
        return None
    return Finding(
        "G-W04",
        "warn",
        f"{share:.0%} of the first {len(long):,} lines are repeated (limit {MOST_REPEATED:.0%}): "
        "their words become neighbours of one another",
        "remove duplicates, headers and footers",
    )


def _unsegmented(config: TrainConfig, lines: list[str]) -> Finding | None:
    if config.tokenizer not in ("simple", "words", "whitespace"):
        return None
    text = "".join(lines[:2000])[:200_000]
    letters = sum(not character.isspace() for character in text)
    han = sum(HAN[0] <= character <= HAN[1] for character in text)
    words = len(text.split())
    # Chinese that was cut into words beforehand has short ones
    if han < MOST_HAN * max(letters, 1) or letters / max(words, 1) < 4:
        return None
    return Finding(
        "G-W05",
        "fail",
        f"{han / letters:.0%} of the letters are Chinese, which has no blanks between words, and "
        f"the tokeniser {config.tokenizer!r} cuts at blanks",
        "use --tokenizer chinese, or --tokenizer segmenter --segmenter jieba:lcut",
    )
