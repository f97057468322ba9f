"""What a `seq2seq` run can be told, and the recipes that fill what it is not told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dltool.errors import ConfigError
from dltool.ranges import at_least, inside, one_of
from dltool.training_config import TrainingConfig

TASKS = {
    "arithmetic": "sums and differences of whole numbers: 123+456 -> 579",
    "reverse": "letters backwards: abc -> cba",
    "date": "dates as people write them: 3 March 1998 -> 1998-03-03",
    "spelling": "three words with a mistake in each: teh gren hosue -> the green house",
    "hello": "the one pair hello -> ohlol",
}
MODELS = {
    "transformer": "attention alone (Vaswani et al., 2017)",
    "lstm": "long short-term memory (Hochreiter and Schmidhuber, 1997)",
    "gru": "gated recurrent unit (Cho et al., 2014)",
    "rnn": "plain recurrence with tanh (Elman, 1990)",
}
LEVELS = ("char", "word", "subword")
ATTENTIONS = ("none", "additive", "dot", "multiplicative")
POSITIONS = ("sinusoidal", "learned", "rotary")
NORMS = ("pre", "post")
SCHEDULES = ("cosine", "linear", "inverse-sqrt", "constant")
OPERATORS = "+-"


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Everything that shapes a `seq2seq` training run.

    Attributes:
        task: a generated task, a table of pairs, or two parallel files with a comma between them.
        source_column, target_column: names, or numbers from 1 in a file without a header.
        val, test: files as in `task`; where they are empty, shares of the task's pairs.
        samples: training pairs of a generated task.
        max_value: largest operand of `arithmetic`.
        level: what a token is; `char` for generated tasks.
        vocab_size: most entries of a vocabulary, reserved ones included; 0: no limit.
        min_freq: a word that is rarer in the training data is unknown.
        limit: pairs that are read of a file; 0: all.
        max_length: tokens of the longest sequence, end mark included.
        bucket: batches whose pairs are sorted by length together; 0: none.
        layers: of the encoder, and of the decoder unless `decoder_layers` is given.
        warmup: share of the steps in which the learning rate rises.
        scheduled_sampling: share of decoder inputs that are the model's own answers, at the end.
        reverse_target: targets are learnt from their last token to their first.
        reverse_source: sources are read from their last token to their first.
    """

    task: str = "arithmetic"
    source_column: str = "1"
    target_column: str = "2"
    encoding: str = "utf-8"
    val: str = ""
    test: str = ""
    val_fraction: float = 0.05
    test_fraction: float = 0.05
    samples: int = 50_000
    max_value: int = 999
    operators: str = OPERATORS
    level: str = "char"
    lower: bool = False
    vocab_size: int = 0
    min_freq: int = 1
    share_vocab: bool = False
    limit: int = 0
    max_length: int = 64
    bucket: int = 0
    reverse_source: bool = False
    reverse_target: bool = False
    model: str = "transformer"
    width: int = 64
    layers: int = 2
    decoder_layers: int = 0
    heads: int = 4
    feedforward: int = 0
    norm: str = "pre"
    positions: str = "sinusoidal"
    attention: str = "dot"
    bidirectional: bool = False
    tied: bool = False
    dropout: float = 0.0
    epochs: int = 20
    learning_rate: float = 0.002
    schedule: str = "cosine"
    warmup: float = 0.05
    label_smoothing: float = 0.0
    scheduled_sampling: float = 0.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_names()
        self._check_ranges()
        if not self.operators or set(self.operators) - set(OPERATORS):
            raise ConfigError(
                "E202",
                "--operators is not understood",
                received=self.operators,
                expected="+, - or +-",
                cure="use --operators +-",
            )
        if self.is_generated and self.level != "char":
            raise ConfigError(
                "E205",
                f"the task {self.task} is learnt letter by letter, not by {self.level}s",
                cure="leave --level out",
            )
        if self.model == "transformer" and self.width % self.heads:
            raise ConfigError(
                "E205",
                f"--width {self.width} cannot be divided among {self.heads} heads",
                cure=f"use --width {self.width // self.heads * self.heads or self.heads}, "
                "or another number of --heads",
            )
        size = self.width // self.heads
        if self.model == "transformer" and self.positions == "rotary" and size % 2:
            raise ConfigError(
                "E205",
                f"rotary positions turn pairs of features, and a head has {size}",
                cure="use a --width that is an even multiple of --heads",
            )
        if self.vocab_size and self.vocab_size < self.least_vocabulary:
            raise ConfigError(
                "E202",
                "--vocab-size is out of range",
                received=self.vocab_size,
                expected=f"0 (no limit) or {self.least_vocabulary} or more",
                cure="leave it out",
            )

    def _check_names(self) -> None:
        one_of("--model", self.model, tuple(MODELS))
        one_of("--level", self.level, LEVELS)
        one_of("--attention", self.attention, ATTENTIONS)
        one_of("--positions", self.positions, POSITIONS)
        one_of("--norm", self.norm, NORMS)
        one_of("--schedule", self.schedule, SCHEDULES)

    def _check_ranges(self) -> None:
        for name in ("samples", "max_value", "min_freq"):
            at_least(_flag(name), getattr(self, name), 1)
        for name in ("limit", "bucket", "decoder_layers", "feedforward"):
            at_least(_flag(name), getattr(self, name), 0)
        at_least("--width", self.width, 2)
        at_least("--layers", self.layers, 1)
        at_least("--heads", self.heads, 1)
        at_least("--max-length", self.max_length, 2)
        inside("--label-smoothing", self.label_smoothing, 0.0, 0.9)
        inside("--scheduled-sampling", self.scheduled_sampling, 0.0, 1.0)
        inside("--dropout", self.dropout, 0.0, 0.95)
        inside("--warmup", self.warmup, 0.0, 1.0)
        inside("--val-fraction", self.val_fraction, 0.0, 0.4)
        inside("--test-fraction", self.test_fraction, 0.0, 0.4)

    @property
    def is_generated(self) -> bool:
        """Whether the pairs are made, not read."""
        return self.task in TASKS

    @property
    def least_vocabulary(self) -> int:
        """The smallest sensible `vocab_size`: four reserved entries, and all bytes of subwords."""
        return 300 if self.level == "subword" else 5


# settings that have an effect only where the condition holds
OF_FILES = ("source_column", "target_column", "encoding", "val", "test", "limit")
OF_TRANSFORMERS = ("heads", "feedforward", "norm", "positions")
OF_RECURRENCE = ("attention", "bidirectional")


def idle(config: TrainConfig, origins: Mapping[str, str]) -> list[str]:
    """Return the options that were given and have no effect on this task and model."""
    without: tuple[str, ...] = OF_FILES if config.is_generated else ("samples",)
    if config.task != "arithmetic":
        without += ("max_value", "operators")
    without += OF_RECURRENCE if config.model == "transformer" else OF_TRANSFORMERS
    return [_flag(name) for name in without if origins[name] not in ("default", "recipe")]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


# What a task wants; flags and --config come before it.
TASK_RECIPES: dict[str, dict[str, Any]] = {
    # the carry goes from the last digit to the first: written in that order it is always at hand
    "arithmetic": {"epochs": 8, "samples": 100_000, "batch_size": 256, "reverse_target": True},
    "reverse": {"epochs": 10, "samples": 20_000},
    "date": {"epochs": 5, "samples": 20_000},
    "spelling": {"epochs": 30, "samples": 20_000, "dropout": 0.1},
    "hello": {"epochs": 4, "samples": 20, "batch_size": 1, "learning_rate": 0.01, "width": 32},
}
FILE_RECIPE: dict[str, Any] = {
    "level": "word",
    "lower": True,
    "min_freq": 2,
    "bucket": 50,
    "batch_size": 64,
    "width": 256,
    "dropout": 0.1,
    "label_smoothing": 0.1,
    "learning_rate": 0.001,
    "max_length": 128,
    "epochs": 30,
    "tied": True,
}
RECURRENT_RECIPE: dict[str, Any] = {
    "width": 128,
    "layers": 1,
    "learning_rate": 0.003,
    "bidirectional": True,
}


def recipe(task: str, model: str, level: str | None) -> dict[str, Any]:
    """Return the settings that suit a task, a model and a level of tokens."""
    values = dict(TASK_RECIPES.get(task, FILE_RECIPE))
    if task not in TASKS and level == "subword":
        values |= {"vocab_size": 8000, "lower": False}
    if task not in TASKS and level == "char":
        values |= {"max_length": 256, "min_freq": 1}
    if model != "transformer" and task in TASKS and task != "hello":
        values |= RECURRENT_RECIPE
        values |= {"epochs": 9} if task == "arithmetic" else {}
    return values
