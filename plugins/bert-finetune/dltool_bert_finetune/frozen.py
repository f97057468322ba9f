"""Features of a frozen encoder: computed once, so that each epoch trains the head alone.

The encoder runs without dropout, as in evaluation; the head keeps its own. What it is fed are the
vectors of the encoder's last layer; heads that look at the first token only get that of this token.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dltool.console import Console
from dltool.data.download import cache_folder
from dltool_bert_finetune import batches as text_batches
from dltool_bert_finetune import library, model
from dltool_bert_finetune.batches import TextBatches
from dltool_bert_finetune.tokens import Tokens

IN_MEMORY = 1 << 30  # bytes of features; more are mapped from a file without a name
LARGEST_BATCH = (256, 8192)
SAME = 1e-4


class Handed(nn.Module):
    """Stand in for an encoder: hand on, as its last layer, what is given as embeddings."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(self, *ids: object, inputs_embeds: Tensor, **others: object) -> Any:
        """Return the encoder's answer for features (B, T, H)."""
        outputs = library.load("transformers.modeling_outputs")
        pooled = self.pooler(inputs_embeds) if self.pooler is not None else None
        return outputs.BaseModelOutputWithPooling(
            last_hidden_state=inputs_embeds, pooler_output=pooled
        )


@dataclass(frozen=True)
class Features:
    """What a frozen encoder says to a split.

    Attributes:
        tokens: of the split, for the lengths.
        vectors: (all tokens, H), or (N, H) of the first token of each text.
    """

    tokens: Tokens
    vectors: Tensor

    @property
    def is_first_only(self) -> bool:
        """Whether there is one vector a text."""
        return len(self.vectors) == len(self.tokens)

    def batch(self, index: list[int]) -> dict[str, Tensor]:
        """Return `inputs_embeds` (B, T, H) and `attention_mask` (B, T)."""
        if self.is_first_only:
            rows = self.vectors[torch.tensor(index)].unsqueeze(1)
            mask = torch.ones(len(index), 1, dtype=torch.int64)
            return {"inputs_embeds": rows, "attention_mask": mask}
        lengths = torch.from_numpy(np.ascontiguousarray(self.tokens.lengths[index]))
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        return {"inputs_embeds": self.tokens.spread(self.vectors, index, 0), "attention_mask": mask}


@dataclass
class FeatureBatches:
    """The batches of a `TextBatches`, with features in place of token numbers."""

    texts: TextBatches
    features: Features

    def __len__(self) -> int:
        return len(self.texts)

    def batches(self, epoch: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """Yield the batches of an epoch from number `start` on."""
        for index in self.texts.plan(epoch)[start:]:
            batch = {**self.features.batch(index), "labels": self.texts.labels(index)}
            yield {name: part.to(self.texts.device) for name, part in batch.items()}

    @property
    def fill(self) -> float:
        """Share of an epoch's cells that hold a token; the rest is padding."""
        return 1.0 if self.features.is_first_only else self.texts.fill


def head_of(network: nn.Module) -> nn.Module:
    """Return the network with its encoder replaced; the weights of the head are the same ones."""
    name = str(network.base_model_prefix)
    encoder = getattr(network, name)
    head = copy.copy(network)
    head._modules = {**network._modules, name: Handed(getattr(encoder, "pooler", None))}
    return head


@torch.no_grad()
def compute(
    network: nn.Module, splits: Mapping[str, Tokens], pad: int, console: Console
) -> dict[str, Features] | None:
    """Return the features of splits, or nothing where the head of a network cannot be fed alone."""
    was_training = network.training
    network.eval()
    try:
        whole = _is_fed(network, splits["train"], pad)
        if whole is None:
            console.warn(
                "the head of this architecture does not work by itself: the frozen encoder runs "
                "in every epoch"
            )
            return None
        console.note("the encoder is frozen: it runs once, without dropout, and its features stay")
        return {
            name: _features(network, tokens, pad, whole, console, name)
            for name, tokens in splits.items()
        }
    finally:
        network.train(was_training)


def _is_fed(network: nn.Module, tokens: Tokens, pad: int) -> bool | None:
    """Tell whether the head needs all vectors or the first alone; None where neither will do."""
    device = next(network.parameters()).device
    index = np.argsort(tokens.lengths, kind="stable")[:: max(len(tokens) // 4, 1)].tolist()
    batch = {name: part.to(device) for name, part in tokens.batch(index, pad).items()}
    expected = model.forward(network, batch)
    hidden = _encoder(network)(**batch).last_hidden_state  # (B, T, H)
    mask = batch["attention_mask"]
    try:
        found = [
            model.forward(head_of(network), {"inputs_embeds": part, "attention_mask": kept})
            for part, kept in ((hidden[:, :1], mask[:, :1]), (hidden, mask))
        ]
    except (TypeError, ValueError, AttributeError, IndexError):
        return None
    first, every = (
        part.shape == expected.shape and torch.allclose(part, expected, atol=SAME) for part in found
    )
    return False if first else True if every else None


def _encoder(network: nn.Module) -> Any:
    return getattr(network, str(network.base_model_prefix))


def _features(
    network: nn.Module, tokens: Tokens, pad: int, whole: bool, console: Console, name: str
) -> Features:
    settings: Any = network.config
    rows = len(tokens.ids) if whole else len(tokens)
    vectors = _room(rows, int(settings.hidden_size))
    device = next(network.parameters()).device
    encoder = _encoder(network)
    with console.progress(len(tokens), f"features of {name}", "text") as bar:
        for index, batch in text_batches.in_order(tokens, pad, *LARGEST_BATCH, device):
            hidden = encoder(**batch).last_hidden_state.float().cpu()  # (B, T, H)
            for row, number in enumerate(index):
                if not whole:
                    vectors[number] = hidden[row, 0]
                    continue
                start = int(tokens.ends[number - 1]) if number else 0
                stop = int(tokens.ends[number])
                vectors[start:stop] = hidden[row, : stop - start]
            bar.advance(len(index))
    return Features(tokens, vectors)


def _room(rows: int, width: int) -> Tensor:
    """Return (rows, width) float32, from a file without a name where memory would not do."""
    if rows * width * 4 <= IN_MEMORY:
        return torch.empty(rows, width)
    folder = cache_folder("bert-finetune-features")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as stream:
        mapped = np.memmap(stream, dtype=np.float32, mode="w+", shape=(rows, width))
        return torch.from_numpy(mapped)


@torch.no_grad()
def logits(network: nn.Module, features: Features, *, is_flat: bool) -> Tensor:
    """Return what the head says to all features, in order: (N, outputs) or (all tokens, outputs).

    The network is in evaluation mode meanwhile and goes back to the mode it was in.
    """
    was_training = network.training
    network.eval()
    head = head_of(network)
    device = next(network.parameters()).device
    found = []
    for start in range(0, len(features.tokens), LARGEST_BATCH[0]):
        index = list(range(start, min(start + LARGEST_BATCH[0], len(features.tokens))))
        batch = {name: part.to(device) for name, part in features.batch(index).items()}
        part = model.forward(head, batch).float().cpu()
        found.append(part[batch["attention_mask"].cpu() != 0] if is_flat else part)
    network.train(was_training)
    return torch.cat(found)
