"""What a `word2vec` run can be told, and the recipes that fill what it is not told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dltool import ranges, ranks
from dltool.errors import ConfigError
from dltool.training_config import RunConfig

ENGINES = {
    "gensim": "gensim's own loops in C, on all processors",
    "torch": "skip-gram with negative sampling on --device",
}
ARCHITECTURES = ("skipgram", "cbow")
ALGORITHMS = {
    "word2vec": "a vector a word",
    "fasttext": "words share the vectors of their letter groups; unknown words have vectors too",
    "doc2vec": "a vector a word and a vector a text",
}
TOKENIZERS = {
    "simple": "lower-case words of 2 to 15 letters, as gensim's simple_preprocess",
    "words": "lower-case Unicode words and numbers of any length, with inner apostrophes",
    "whitespace": "what stands between blanks, unchanged: for text that is tokenised already",
    "characters": "every character but blanks",
    "chinese": "every Chinese character, and other words whole",
    "segmenter": "the words of --segmenter MODULE:FUNCTION",
}
LEE = "lee"


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Everything that shapes a `word2vec` training run.

    Attributes:
        data: `lee`, files, folders or `-`; several are read one after the other.
        column: column of CSV and TSV files or key of JSON Lines that holds the text.
        dim: length of a vector.
        window: most words to each side that count as context.
        negative: noise words a pair; 0 only beside `hs`.
        hs: hierarchical softmax in the place of negative sampling.
        min_count: rarer words get no vector; fixed beside `start_from` as any setting.
        sample: words more frequent than this share are thinned out; 0: none.
        phrases: passes that join words which come together more often than by chance.
        start_from: a run or model folder whose vectors are trained further.
        workers: threads of gensim; 0: one a processor. More than one is not repeatable.
        bucket, min_n, max_n: rows and lengths of fastText's letter groups.
        block: corpus words a batch of the torch engine.
        noise: noise words that a group of 32 neighbours shares in the torch engine.
    """

    data: tuple[str, ...] = (LEE,)
    column: str = ""
    encoding: str = "utf-8"
    tokenizer: str = "simple"
    segmenter: str = ""
    phrases: int = 0
    engine: str = "gensim"
    arch: str = "skipgram"
    algorithm: str = "word2vec"
    dim: int = 100
    window: int = 5
    negative: int = 5
    hs: bool = False
    min_count: int = 5
    sample: float = 1e-3
    epochs: int = 5
    learning_rate: float = 0.025
    bucket: int = 200_000
    min_n: int = 3
    max_n: int = 6
    start_from: str = ""
    workers: int = 0
    block: int = 4096
    noise: int = 32
    deterministic: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.one_of("--engine", self.engine, tuple(ENGINES))
        ranks.refuse_several("word2vec training", self.nproc)
        ranges.one_of("--arch", self.arch, ARCHITECTURES)
        ranges.one_of("--algorithm", self.algorithm, tuple(ALGORITHMS))
        ranges.one_of("--tokenizer", self.tokenizer, tuple(TOKENIZERS))
        for option, value, low in (
            ("--dim", self.dim, 1),
            ("--window", self.window, 1),
            ("--negative", self.negative, 0),
            ("--min-count", self.min_count, 1),
            ("--phrases", self.phrases, 0),
            ("--bucket", self.bucket, 1),
            ("--min-n", self.min_n, 1),
            ("--max-n", self.max_n, self.min_n),
            ("--workers", self.workers, 0),
            ("--block", self.block, 64),
            ("--noise", self.noise, 1),
        ):
            ranges.at_least(option, value, low)
        ranges.inside("--lr", self.learning_rate, 0.0, 100.0, open_low=True)
        ranges.inside("--sample", self.sample, 0.0, 1.0)
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        if not self.data:
            raise ConfigError("E202", "--data is empty", cure="use --data FILE or leave it out")
        if self.hs == bool(self.negative):
            raise ConfigError(
                "E205",
                "--hs and --negative are two ways to the same end, and one of them is needed",
                received=f"hs {self.hs}, negative {self.negative}",
                cure="use --hs --negative 0, or leave --hs out",
            )
        if bool(self.segmenter) != (self.tokenizer == "segmenter"):
            raise ConfigError(
                "E205",
                "--tokenizer segmenter and --segmenter MODULE:FUNCTION belong together",
                cure="use --tokenizer segmenter --segmenter jieba:lcut",
            )
        if self.engine == "torch" and (self.algorithm, self.arch, self.hs) != (
            "word2vec",
            "skipgram",
            False,
        ):
            raise ConfigError(
                "E205",
                "--engine torch knows skip-gram with negative sampling only",
                received=f"{self.algorithm}, {self.arch}, hs {self.hs}",
                cure="leave --engine out",
            )
        if self.start_from and (self.hs or self.algorithm == "doc2vec"):
            raise ConfigError(
                "E205",
                "--start-from works with word2vec and fasttext without --hs: a tree of words and "
                "the vectors of texts belong to the corpus they were made from",
                cure="leave --start-from out",
            )


RECIPES: dict[str, dict[str, Any]] = {
    # 60,000 words: more passes, and rarer words count
    LEE: {"epochs": 20, "min_count": 3},
}


def recipe(data: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings that suit a corpus."""
    return dict(RECIPES[LEE]) if data == (LEE,) else {}
