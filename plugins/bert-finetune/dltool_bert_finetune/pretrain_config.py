"""What a pre-training run can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dltool import ranges, ranks
from dltool.errors import ConfigError
from dltool.training_config import TrainingConfig
from dltool_bert_finetune.config import SCHEDULES, SCRATCH, SIZES

LEE = "lee"
DOCUMENTS = ("line", "blank")


@dataclass(frozen=True)
class PretrainConfig(TrainingConfig):
    """Everything that shapes a pre-training run.

    Attributes:
        data: `lee`, a text file, or a folder of them; several are separated by commas.
        documents: `line`: each line is a document; `blank`: an empty line ends one.
        val_fraction, test_fraction: shares of the documents.
        max_length: tokens of a pair of segments, the special ones included.
        mask_fraction: share of the tokens that the model must guess.
        whole_word: hide all pieces of a word together.
        next_sentence: also tell whether the second segment follows the first.
    """

    data: str = LEE
    documents: str = "line"
    encoding: str = "utf-8"
    max_documents: int = 0
    val_fraction: float = 0.05
    test_fraction: float = 0.05
    model: str = SCRATCH
    revision: str = ""
    size: str = "tiny"
    vocabulary: int = 8000
    max_length: int = 128
    mask_fraction: float = 0.15
    whole_word: bool = False
    next_sentence: bool = True
    batch_size: int = 32
    learning_rate: float = 1e-3
    schedule: str = "linear"
    warmup: float = 0.1
    clip: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.one_of("--documents", self.documents, DOCUMENTS)
        ranks.refuse_several("pretraining", self.nproc)
        ranges.one_of("--size", self.size, tuple(SIZES))
        ranges.one_of("--schedule", self.schedule, SCHEDULES)
        ranges.at_least("--max-documents", self.max_documents, 0)
        ranges.inside("--max-length", self.max_length, 8, 512)
        ranges.inside("--vocabulary", self.vocabulary, 100, 1_000_000)
        ranges.inside("--mask-fraction", self.mask_fraction, 0.01, 0.5)
        ranges.inside("--warmup", self.warmup, 0.0, 0.9)
        ranges.inside("--val-fraction", self.val_fraction, 0.0, 0.5, open_low=True)
        ranges.inside("--test-fraction", self.test_fraction, 0.0, 0.4, open_low=True)
        if self.revision and self.model == SCRATCH:
            raise ConfigError("E205", "--revision belongs to a name on the Hub: it needs --model")


def recipe(chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that suit what was chosen by flag or file."""
    if chosen.get("model", SCRATCH) != SCRATCH:
        return {"learning_rate": 5e-5, "epochs": 3}
    rates = {"tiny": 1e-3, "mini": 7e-4, "small": 5e-4, "base": 1e-4}
    few = {"vocabulary": 3000} if chosen.get("data", LEE) == LEE else {}
    return {"learning_rate": rates.get(chosen.get("size", "tiny"), 5e-4), **few}
