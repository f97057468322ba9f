"""The corpus: texts come as a stream, words go to files that gensim reads without Python.

gensim is fastest where its threads read lines of words from a file themselves (`corpus_file`). So
the texts are tokenised once, counted on the way, and written as such lines, in parts: a part is
one step of the training, after which it can be stopped, saved and resumed exactly.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dltool import files, runs
from dltool.console import Console
from dltool.data import texts
from dltool.errors import ConfigError, DataError, DltoolError
from dltool_word2vec.config import LEE, TrainConfig
from dltool_word2vec.tokens import Tokenizer, tokenizer

FOLDER = "corpus"
INDEX = "corpus.json"
# gensim leaves out what a line holds beyond 10,000 words; word2vec.c cuts sentences at 1,000
LONGEST_LINE = 1_000
LONGEST_DOCUMENT = 10_000
PART_WORDS = 2_000_000
# gensim copies the vocabulary at each step: a part holds many times as many words as there are
WORDS_PER_TYPE = 20
# the rarest words are forgotten when there are more than this, as word2vec.c does
MOST_TYPES = 6_000_000
GATHER = 100_000


@dataclass(frozen=True)
class Part:
    """One file of the corpus, one step of the training: its lines, words and bytes."""

    name: str
    lines: int
    words: int
    bytes: int


@dataclass
class Corpus:
    """A tokenised corpus on the disk.

    Attributes:
        folder: where the parts are.
        counts: how often each word occurs; once prepared, only of words with `--min-count`, or of
            the most frequent one where none has it.
        types: different words.
        texts: texts that were read; a long one makes several lines.
        cut: texts that were longer than a line may be.
        forgotten: least count below which words were forgotten for memory's sake; 0: none was.
        phrases: for each pass the joined pairs with their scores.
    """

    folder: Path
    parts: list[Part] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    types: int = 0
    texts: int = 0
    cut: int = 0
    forgotten: int = 0
    fingerprint: str = ""
    phrases: list[dict[str, float]] = field(default_factory=list)

    @property
    def words(self) -> int:
        """All words of the corpus, also those too rare for a vector."""
        return sum(part.words for part in self.parts)

    @property
    def lines(self) -> int:
        """All lines of the corpus."""
        return sum(part.lines for part in self.parts)

    def facts(self) -> dict[str, Any]:
        """Return what `data.json` says of the corpus."""
        counts = {"texts": self.texts, "words": self.words, "types": self.types}
        return {"fingerprint": self.fingerprint, "counts": counts, "cut": self.cut}


def sources(data: Iterable[str]) -> list[str]:
    """Return the files that `--data` means; `lee` is gensim's own 300 news articles.

    Raises:
        DataError: a file is not there.
    """
    found: list[str] = []
    for name in data:
        is_lee = name == LEE and not Path(LEE).exists()
        found += [str(shipped("lee_background.cor"))] if is_lee else texts.files([name])
    return found


def shipped(name: str) -> Path:
    """Return a file of gensim's test data without importing gensim.

    Raises:
        DataError: this installation of gensim comes without it.
    """
    found = importlib.util.find_spec("gensim")
    for place in (found.submodule_search_locations if found else None) or ():
        path = Path(place, "test", "test_data", name)
        if path.is_file():
            return path
    raise DataError(
        "E501", f"gensim's test data has no {name}", cure="reinstall gensim, or give a file"
    )


def documents(config: TrainConfig) -> Iterator[str]:
    """Yield the texts: lines of plain files, cells of `--column`; empty ones too.

    Raises:
        DataError: a file is missing, damaged, binary, of another encoding, or cannot be read.
        ConfigError: a table without `--column`.
    """
    for source in sources(config.data):
        try:
            yield from _texts_of(source, config)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError("E501", f"cannot read {source}: {reason}") from error


def _texts_of(source: str, config: TrainConfig) -> Iterator[str]:
    if config.column:
        for row in texts.rows(source, [config.column], encoding=config.encoding):
            # JSON can write half of a surrogate pair, which no file of words can hold
            yield row.cells[0].encode("utf-8", errors="replace").decode("utf-8")
    elif texts.is_table(source):
        names = texts.columns(source, encoding=config.encoding)
        raise ConfigError(
            "E205",
            f"{source} is a table; which of its columns holds the text?",
            expected=f"one of {', '.join(names)}",
            cure=f"add --column {names[0]}",
        )
    else:
        yield from texts.lines(source, encoding=config.encoding)


class Writer:
    """Write lines of words into parts, count and hash them."""

    def __init__(self, corpus: Corpus, *, one_part: bool) -> None:
        self.corpus, self.one_part = corpus, one_part
        self.counter: Counter[str] = Counter()
        self.gathered: list[str] = []
        self.pending: list[str] = []
        self.digest = hashlib.blake2b(digest_size=16)
        self.stream: Any = None
        self.lines = self.words = self.bytes = 0

    def add(self, tokens: list[str]) -> None:
        """Add a line of words."""
        if not tokens:
            return
        self.gathered += tokens
        self.pending.append(" ".join(tokens))
        self.words += len(tokens)
        self.lines += 1
        if len(self.gathered) >= GATHER:
            self._flush()

    def _flush(self) -> None:
        """Count and write what was gathered; begin the next part when this one is full."""
        if self.pending:
            data = ("\n".join(self.pending) + "\n").encode("utf-8", errors="replace")
            with files.explained(self.corpus.folder):
                if self.stream is None:
                    name = f"part-{len(self.corpus.parts):05d}.txt"
                    self.stream = (self.corpus.folder / name).open("wb")
                self.stream.write(data)
            self.digest.update(data)
            self.bytes += len(data)
            self.counter.update(self.gathered)
            self.gathered, self.pending = [], []
        if len(self.counter) > MOST_TYPES:
            self._forget()
        if not self.one_part and self.words >= max(PART_WORDS, WORDS_PER_TYPE * len(self.counter)):
            self._close_part()

    def _forget(self) -> None:
        least = self.corpus.forgotten
        while len(self.counter) > MOST_TYPES // 2:
            least += 1
            self.counter = Counter({w: n for w, n in self.counter.items() if n > least})
        self.corpus.forgotten = least

    def _close_part(self) -> None:
        if self.stream is not None:
            name = Path(self.stream.name).name
            with files.explained(self.corpus.folder):
                self.stream.close()
            self.stream = None
            self.corpus.parts.append(Part(name, self.lines, self.words, self.bytes))
            self.lines = self.words = self.bytes = 0

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._close_part()
        self.corpus.counts = self.counter
        self.corpus.types = len(self.counter)
        self.corpus.fingerprint = self.digest.hexdigest()


def prepare(
    config: TrainConfig, folder: Path, console: Console, tokenize: Tokenizer | None = None
) -> Corpus:
    """Tokenise and count the texts into `folder`; what a stopped run has prepared is used again.

    Args:
        tokenize: in the place of the config's tokeniser: that of the vectors to train further.

    Raises:
        DataError: E503, the texts hold no words.
        DltoolError: E101, the disk is full.
    """
    if (folder / INDEX).exists():
        return _read(folder)
    if folder.parent.joinpath("run.json").exists() and texts.STDIN in config.data:
        raise DataError(
            "E501",
            "the run goes on, but its standard input is gone",
            cure="start it anew, with the text piped in again",
        )
    corpus = Corpus(folder)
    with files.explained(folder):
        files.remove(folder)
        folder.mkdir(parents=True)
    split = tokenize or tokenizer(config.tokenizer, config.segmenter)
    _tokenize(config, corpus, split, console)
    for number in range(config.phrases):
        from dltool_word2vec.phrases import join_pairs

        with files.explained(folder):
            corpus = join_pairs(config, corpus, number + 1, console)
    if not corpus.words:
        raise DataError(
            "E503",
            "the text holds no words" if corpus.texts else "there is no text",
            received=f"{corpus.texts:,} texts",
            expected=f"text for the tokeniser {config.tokenizer!r}",
            cure="look at the file, or choose another --tokenizer or --column",
        )
    _keep_frequent(corpus, config.min_count)
    files.write_json_atomic(folder / INDEX, _index(corpus))
    return corpus


def _keep_frequent(corpus: Corpus, min_count: int) -> None:
    """Let go of the long tail of rare words: most of a large corpus's types."""
    kept = {word: count for word, count in corpus.counts.items() if count >= min_count}
    corpus.counts = kept or dict([max(corpus.counts.items(), key=lambda item: item[1])])


def _index(corpus: Corpus) -> dict[str, Any]:
    values = {each.name: getattr(corpus, each.name) for each in fields(corpus)}
    return {**values, "folder": "", "parts": [asdict(part) for part in corpus.parts]}


def _tokenize(config: TrainConfig, corpus: Corpus, tokenize: Tokenizer, console: Console) -> None:
    keep_whole = config.algorithm == "doc2vec"
    longest = LONGEST_DOCUMENT if keep_whole else LONGEST_LINE
    writer = Writer(corpus, one_part=keep_whole)
    told = 0
    with console.progress(None, "reading", "word") as bar:
        for text in documents(config):
            tokens = tokenize(text)
            corpus.texts += bool(tokens)
            if len(tokens) <= longest:
                writer.add(tokens)
            else:
                corpus.cut += 1
                for start in range(0, longest if keep_whole else len(tokens), longest):
                    writer.add(tokens[start : start + longest])
            told += len(tokens)
            if told >= GATHER:
                bar.advance(told)
                told = 0
        writer.close()


def _read(folder: Path) -> Corpus:
    """Return the corpus that a stopped run has prepared.

    Raises:
        CheckpointError: its files are damaged or gone.
    """
    stored = runs.read_json(folder, INDEX)
    try:
        parts = [Part(**part) for part in stored.pop("parts")]
        corpus = Corpus(**{**stored, "folder": folder, "parts": parts})
    except (TypeError, KeyError) as error:
        raise DataError("E502", f"{folder / INDEX} is damaged", cure="start anew") from error
    for part in corpus.parts:
        path = folder / part.name
        if not path.is_file() or path.stat().st_size != part.bytes:
            raise DataError(
                "E502", f"{path} {files.describe_damage(path, part.bytes)}", cure="start a new run"
            )
    return corpus


def vocabulary(
    corpus: Corpus, min_count: int, known: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return the words that get a vector with their counts, the most frequent first.

    Args:
        known: words of the vectors to train further with their counts; they come first, in their
            order, and keep their place however rare they are.

    Raises:
        DataError: E503, no word is frequent enough.
    """
    kept = {word: count for word, count in corpus.counts.items() if count >= min_count}
    if not kept:
        word, count = max(corpus.counts.items(), key=lambda item: item[1])
        raise DataError(
            "E503",
            f"no word occurs {min_count} times or more",
            received=f"{corpus.words:,} words, the most frequent is {word!r} with {count}",
            expected="a word that is frequent enough for a vector",
            cure=f"use --min-count {count} or less, or give more text",
        )
    if min_count <= corpus.forgotten:
        raise DltoolError(
            "E801",
            f"the text holds more than {MOST_TYPES:,} different words",
            cure=f"use --min-count {corpus.forgotten + 1} or more",
        )
    if known is None:
        # ties by the alphabet: the order must not hang on where a word stood first
        return dict(sorted(kept.items(), key=lambda item: (-item[1], item[0])))
    merged = {word: count + corpus.counts.get(word, 0) for word, count in known.items()}
    new = {word: count for word, count in kept.items() if word not in merged}
    return merged | dict(sorted(new.items(), key=lambda item: (-item[1], item[0])))


def discard(folder: Path) -> None:
    """Remove the prepared corpus of a run that is finished."""
    if os.path.lexists(folder):
        files.remove(folder)
