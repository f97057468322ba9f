"""What a `bert-finetune` run can be told, and the recipes that fill what it is not told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dltool import ranges
from dltool.errors import ConfigError
from dltool.training_config import TrainingConfig

REVIEWS = "reviews"
SCRATCH = "scratch"
TASKS = ("auto", "classify", "pair", "regress", "multilabel", "token", "qa")
SCHEDULES = ("linear", "cosine", "constant")
CLASS_WEIGHTS = ("none", "balanced")
MONITORS = {"auto": "", "accuracy": "val_accuracy", "macro-f1": "val_macro_f1", "loss": "val_loss"}
SIZES = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "base": (12, 768)}
FREEZE_WORDS = ("none", "embeddings", "encoder")


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Everything that shapes a `bert-finetune` training run.

    Attributes:
        data: `reviews`, a CSV, TSV, JSON Lines, CoNLL or SQuAD file, or a folder with train, val
            and test files.
        val_data, test_data: further files; empty: split off from `data`.
        text, second, label: names of columns, or their numbers from 1; empty: inferred.
        separator: what stands between the labels of a text with several; empty: `|`.
        max_train, max_eval: texts to take of a split, drawn in proportion; 0: all.
        model: `scratch`, a model folder in the layout of the Hub, a run, or a name on the Hub.
        revision: branch, tag or commit of a name on the Hub.
        size, vocabulary: layers and widths of a model from scratch, and its word pieces at most.
        max_length: tokens of a text; what is longer is cut, or read in windows (token, qa).
        stride: tokens that two windows of a long text share; 0: a third of a window.
        new_head: put a fresh head on a model whose head has other classes.
        max_tokens: texts times longest text of a batch; 0: no limit.
        warmup: share of the steps in which the rate rises.
        layer_decay: the rate of each layer is that of the layer above times this.
        freeze: none, embeddings, encoder (which then runs once, without dropout), or a number of
            layers from below.
        gradual: begin with the head alone and free one more layer each epoch.
        lora_rank: train low-rank additions to the weights instead of these; 0: off.
    """

    data: str = REVIEWS
    val_data: str = ""
    test_data: str = ""
    task: str = "auto"
    text: str = ""
    second: str = ""
    label: str = ""
    separator: str = ""
    encoding: str = "utf-8"
    max_train: int = 0
    max_eval: int = 0
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    model: str = SCRATCH
    revision: str = ""
    size: str = "tiny"
    vocabulary: int = 8000
    max_length: int = 256
    stride: int = 0
    new_head: bool = False
    epochs: int = 3
    batch_size: int = 32
    max_tokens: int = 8192
    learning_rate: float = 5e-5
    schedule: str = "linear"
    warmup: float = 0.1
    layer_decay: float = 1.0
    freeze: str = "none"
    gradual: bool = False
    lora_rank: int = 0
    label_smoothing: float = 0.0
    class_weights: str = "none"
    gradient_checkpointing: bool = False
    clip: float = 1.0
    monitor: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.one_of("--task", self.task, TASKS)
        ranges.one_of("--size", self.size, tuple(SIZES))
        ranges.one_of("--schedule", self.schedule, SCHEDULES)
        ranges.one_of("--class-weights", self.class_weights, CLASS_WEIGHTS)
        ranges.one_of("--monitor", self.monitor, tuple(MONITORS))
        for option, value, low in (
            ("--max-tokens", self.max_tokens, 0),
            ("--max-train", self.max_train, 0),
            ("--max-eval", self.max_eval, 0),
            ("--lora-rank", self.lora_rank, 0),
            ("--stride", self.stride, 0),
        ):
            ranges.at_least(option, value, low)
        ranges.inside("--max-length", self.max_length, 4, 100_000)
        ranges.inside("--vocabulary", self.vocabulary, 100, 1_000_000)
        ranges.inside("--warmup", self.warmup, 0.0, 0.9)
        ranges.inside("--layer-decay", self.layer_decay, 0.0, 1.0, open_low=True)
        ranges.inside("--label-smoothing", self.label_smoothing, 0.0, 0.9)
        ranges.inside("--val-fraction", self.val_fraction, 0.0, 0.5, open_low=True)
        ranges.inside("--test-fraction", self.test_fraction, 0.0, 0.5, open_low=True)
        if not self.freeze.isdecimal():
            ranges.one_of("--freeze", self.freeze, FREEZE_WORDS)
        self._check_pairs()

    def _check_pairs(self) -> None:
        scratch, built_in = self.model == SCRATCH, self.data == REVIEWS
        unfit = {
            "--max-tokens is smaller than --max-length: not even one long text would fit": (
                0 < self.max_tokens < self.max_length
            ),
            "--gradual and --freeze contradict each other": (
                self.gradual and self.freeze != "none"
            ),
            "--freeze encoder runs the encoder once, without gradients: --gradient-checkpointing "
            "would save nothing": self.freeze == "encoder" and self.gradient_checkpointing,
            "--lora-rank leaves the model's own weights alone; --freeze, --gradual and "
            "--layer-decay do not go with it": self.lora_rank > 0
            and (self.gradual or self.freeze != "none" or self.layer_decay != 1.0),
            "a model from scratch has nothing worth freezing: --freeze, --gradual and --lora-rank "
            "need --model": scratch
            and (self.gradual or self.freeze != "none" or self.lora_rank > 0),
            "--revision belongs to a name on the Hub: it needs --model": scratch
            and bool(self.revision),
            "--text, --second, --label, --separator, --val-data and --test-data belong to files of "
            "yours: they need --data": built_in
            and any(
                (self.text, self.second, self.label, self.separator, self.val_data, self.test_data)
            ),
            f"--task {self.task} does not fit the built-in reviews": built_in
            and self.task not in ("auto", "classify"),
        }
        for message, is_so in unfit.items():
            if is_so:
                raise ConfigError("E205", message)

    @property
    def frozen_layers(self) -> int:
        """Layers from below that stay as they are, beside the embeddings."""
        return int(self.freeze) if self.freeze.isdecimal() else 0


def recipe(chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that suit what was chosen by flag or file."""
    settings: dict[str, Any] = {}
    if chosen.get("model", SCRATCH) == SCRATCH:
        # weights that know nothing yet take a higher rate and more passes
        rates = {"tiny": 1e-3, "mini": 5e-4, "small": 3e-4, "base": 1e-4}
        size = chosen.get("size", "tiny")
        settings |= {"epochs": 10, "learning_rate": rates.get(size, 5e-4)}
    elif chosen.get("lora_rank"):
        settings |= {"learning_rate": 5e-4}
    elif chosen.get("freeze") == "encoder":
        settings |= {"learning_rate": 1e-3, "epochs": 20}
    return settings
