"""Three questions for every task: what goes in, what the loss is, how good the answers are.

A text, a pair, several labels and a number have one answer a text (`measures`); tagged words
(`tagging`, `entities`) and questions (`answering`, `squad`) have one for each token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dltool.console import Console
from dltool.errors import ConfigError
from dltool_bert_finetune import answering, entities, kept, measures, squad, tagging
from dltool_bert_finetune.answering import Windows
from dltool_bert_finetune.answering_data import Questions
from dltool_bert_finetune.columns import Examples
from dltool_bert_finetune.config import TrainConfig
from dltool_bert_finetune.dataset import Split, TextData
from dltool_bert_finetune.tagging import WordPieces
from dltool_bert_finetune.tagging_data import Sentences
from dltool_bert_finetune.targets import Targets
from dltool_bert_finetune.tokens import IGNORED, Tokeniser, Tokens

Loss = Callable[[Tensor, Tensor], Tensor]
LABELLED = ("classify", "token")


@dataclass(frozen=True)
class Inputs:
    """A split as the network reads it.

    Attributes:
        source: the texts, sentences or questions.
        tokens: of the texts, or of windows of long ones.
        values: what the loss compares with: (N,), (N, C), a class a token (all tokens,), or the
            first and the last token of the answer (N, 2).
        pieces, windows: how words and contexts belong to the tokens.
    """

    source: Split
    tokens: Tokens
    values: Tensor
    pieces: WordPieces | None = None
    windows: Windows | None = None

    @property
    def is_flat(self) -> bool:
        """Whether there is a label a token."""
        return self.pieces is not None


def stride_of(stride: int, max_length: int) -> int:
    """Return how many tokens two windows share: what was asked for, else a third of a window.

    Raises:
        ConfigError: E202, windows that hardly move on.
    """
    if stride > max_length // 2:
        raise ConfigError(
            "E202",
            f"--stride {stride} is more than half of a window of {max_length} tokens",
            expected=f"{max_length // 2} at most",
        )
    return stride or max_length // 3


def encode(
    tokeniser: Tokeniser, source: Split, targets: Targets, stride: int, console: Console
) -> Inputs:
    """Return a split as the network reads it.

    Raises:
        DataError: E506, a label that the training data does not have.
    """
    if isinstance(source, Examples):
        encoded = kept.tokens(tokeniser, source.texts, source.seconds, console)
        return Inputs(source, encoded, targets.encode(source))
    overlap = stride_of(stride, tokeniser.max_length)
    if isinstance(source, Sentences):
        pieces = _pieces(tokeniser, source, overlap, console)
        values = tagging.labels(pieces, source, targets)
        return Inputs(source, pieces.tokens, values, pieces=pieces)
    answering.refuse_narrow(tokeniser.max_length)
    windows = _windows(tokeniser, source, overlap, console)
    values = answering.labels(windows, source)
    return Inputs(source, windows.tokens, values, windows=windows)


def _pieces(tokeniser: Tokeniser, source: Sentences, overlap: int, console: Console) -> WordPieces:
    spans = [tagging.spans_of_words(words) for words in source.words]
    return kept.through(
        WordPieces,
        lambda: tagging.encode(tokeniser, source.texts, spans, overlap),
        tokeniser,
        str(overlap),
        (part for words in source.words for part in (*words, "")),
        sum(map(len, source.texts)),
        console,
    )


def _windows(tokeniser: Tokeniser, source: Questions, overlap: int, console: Console) -> Windows:
    return kept.through(
        Windows,
        lambda: answering.encode(tokeniser, source.rows, overlap),
        tokeniser,
        str(overlap),
        (part for row in source.rows for part in (row.question, row.context)),
        sum(len(row.question) + len(row.context) for row in source.rows),
        console,
    )


def refuse_idle_options(config: TrainConfig, targets: Targets) -> None:
    """Refuse options that would do nothing for a task.

    Raises:
        ConfigError: E205.
    """
    task = targets.task
    idle = {
        "--stride": config.stride > 0 and not targets.by_token,
        "--class-weights": config.class_weights != "none" and task not in LABELLED,
        "--label-smoothing": config.label_smoothing > 0 and task in ("regress", "multilabel"),
        f"--monitor {config.monitor}": config.monitor in ("accuracy", "macro-f1")
        and task in ("regress", "qa"),
    }
    for option, is_idle in idle.items():
        if is_idle:
            raise ConfigError("E205", f"{option} means nothing for --task {task}")


def class_weights(
    config: TrainConfig, targets: Targets, values: Tensor, device: torch.device
) -> Tensor | None:
    """Return the weights of the classes, (C,), by the labels of the training split."""
    if config.class_weights != "balanced" or targets.task not in LABELLED:
        return None
    counts = torch.bincount(values[values != IGNORED], minlength=len(targets.classes))
    # N / (C n_c): a class weighs the same in the sum, however many texts it has
    return (counts.sum() / (len(counts) * counts.clamp_min(1))).to(device)


def weight_of(labels: Tensor, targets: Targets, weights: Tensor | None) -> Tensor | None:
    """Return what the loss of a batch is the mean over, where that is not its texts."""
    if weights is None and targets.task != "token":
        return None
    counted = labels[labels != IGNORED]
    return weights[counted].sum() if weights is not None else (labels != IGNORED).sum()


def loss_of(config: TrainConfig, targets: Targets, values: Tensor, device: torch.device) -> Loss:
    """Return the loss of a batch from logits and labels.

    Cross-entropy, over the labelled words alone for tags, as the mean of begin and end for answers;
    its binary form for several labels; the squared error for numbers.

    Args:
        values: of the training split, for the weights of the classes.
    """
    weights = class_weights(config, targets, values, device)

    def classify(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(
            logits, labels, weight=weights, label_smoothing=config.label_smoothing
        )

    def tag(logits: Tensor, labels: Tensor) -> Tensor:
        # logits (B, T, C), labels (B, T) with IGNORED behind the first piece of each word
        is_word = labels != IGNORED
        if not bool(is_word.any()):
            return logits.sum() * 0.0
        return classify(logits[is_word], labels[is_word])

    def answer(logits: Tensor, labels: Tensor) -> Tensor:
        # logits (B, T, 2), labels (B, 2): -log p(begin) and -log p(end), each over the T tokens
        begin = F.cross_entropy(
            logits[..., 0], labels[:, 0], label_smoothing=config.label_smoothing
        )
        end = F.cross_entropy(logits[..., 1], labels[:, 1], label_smoothing=config.label_smoothing)
        return (begin + end) / 2

    def regress(logits: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(logits[:, 0], labels)

    def several(logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels)

    known = {"regress": regress, "multilabel": several, "token": tag, "qa": answer}
    return known.get(targets.task, classify)


def training_values(inputs: Inputs, targets: Targets) -> Tensor:
    """Return the labels that are trained on: numbers in units of their deviation."""
    if targets.task == "regress":
        return (inputs.values - targets.mean) / targets.std
    return inputs.values


# ---- how good the answers are ---------------------------------------------------------------


def said_tags(logits: Tensor, inputs: Inputs, targets: Targets) -> list[list[str]]:
    """Return the tag of each word of each sentence."""
    assert inputs.pieces is not None
    assert isinstance(inputs.source, Sentences)
    counts = [len(words) for words in inputs.source.words]
    return tagging.tags_of(logits, inputs.pieces, counts, targets.classes)[0]


def said_answers(logits: Tensor, inputs: Inputs, targets: Targets) -> list[str]:
    """Return the answer to each question; empty: there is none."""
    assert inputs.windows is not None
    assert isinstance(inputs.source, Questions)
    found = answering.answers(logits, inputs.windows, inputs.source.rows, targets)
    return [each[0].text for each in found]


def measure(
    logits: Tensor, inputs: Inputs, targets: Targets, lexicon: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return all measures of a split.

    Args:
        logits: (N, outputs), or (all tokens, outputs).
        lexicon: the commonest tag of each training word, for the baseline of tagged words.
    """
    if isinstance(inputs.source, Sentences):
        said = said_tags(logits, inputs, targets)
        grouped = entities.are_entities(targets.classes)
        plain = None
        if lexicon is not None:
            plain = entities.from_lexicon(lexicon, inputs.source.words, targets.classes[0])
        return {
            **entities.measure(inputs.source.tags, said, grouped=grouped, plain=plain),
            "loss": float(_word_losses(logits, inputs).mean()),
        }
    if isinstance(inputs.source, Questions):
        found = squad.measure(said_answers(logits, inputs, targets), inputs.source.rows)
        return {**found, "loss": float(_window_losses(logits, inputs).mean())}
    return measures.of(logits, inputs.values, targets)


def losses(logits: Tensor, inputs: Inputs) -> Tensor:
    """Return how wrong the worst word of each sentence, or window of each question, is (N,)."""
    if inputs.pieces is not None:
        assert isinstance(inputs.source, Sentences)
        counts = torch.tensor([len(words) for words in inputs.source.words])
        owners = torch.arange(len(counts)).repeat_interleave(counts)
        places = torch.tensor(inputs.pieces.places)
        is_there = places != tagging.NOWHERE
        values = F.cross_entropy(
            logits[places[is_there]].double(), inputs.values[places[is_there]], reduction="none"
        )
        owners = owners[is_there]
    else:
        assert inputs.windows is not None
        values, owners = _window_losses(logits, inputs), torch.tensor(inputs.windows.question)
    worst = torch.zeros(len(inputs.source), dtype=values.dtype)
    return worst.scatter_reduce(0, owners, values, "amax")


def _word_losses(logits: Tensor, inputs: Inputs) -> Tensor:
    is_word = inputs.values != IGNORED
    return F.cross_entropy(logits[is_word].double(), inputs.values[is_word], reduction="none")


def _window_losses(logits: Tensor, inputs: Inputs) -> Tensor:
    """Return the loss of each window (N,)."""
    rows = logits.double().split(inputs.tokens.lengths.tolist())
    each = [
        -(row[:, 0].log_softmax(0)[begin] + row[:, 1].log_softmax(0)[end]) / 2
        for row, (begin, end) in zip(rows, inputs.values.tolist(), strict=True)
    ]
    return torch.stack(each)


def validation(logits: Tensor, inputs: Inputs, targets: Targets) -> dict[str, float]:
    """Return what an epoch reports and what the best epoch is chosen by."""
    if not targets.by_token:
        return measures.validation(logits, inputs.values, targets)
    found = measure(logits, inputs, targets)
    values = {"val_loss": found["loss"], "val_f1": float(found["f1"]["value"])}
    if targets.task == "qa":
        return {**values, "val_exact_match": float(found["exact_match"]["value"])}
    return {
        **values,
        "val_accuracy": float(found["accuracy"]["value"]),
        "val_macro_f1": float(found["macro_f1"] or 0.0),
    }


def monitored(task: str) -> str:
    """Return the value that chooses the best epoch where the user names none."""
    if task in ("token", "qa"):
        return "val_f1"
    return {"regress": "val_loss", "multilabel": "val_macro_f1"}.get(task, "val_accuracy")


def lexicon_of(data: TextData) -> dict[str, str] | None:
    """Return the commonest tag of each training word; None for other tasks."""
    train = data.splits["train"]
    return entities.lexicon(train.words, train.tags) if isinstance(train, Sentences) else None


def text(found: dict[str, Any], targets: Targets) -> str:
    """Return measures as lines for people."""
    if targets.task == "token":
        return entities.text(found, grouped=entities.are_entities(targets.classes))
    return squad.text(found) if targets.task == "qa" else measures.text(found, targets)


def headline(found: dict[str, Any], targets: Targets) -> str:
    """Return the line that says most; for answers F1, which is what chose the model."""
    lines = text(found, targets).split("\n")
    return lines[1] if targets.task == "qa" else lines[0]
