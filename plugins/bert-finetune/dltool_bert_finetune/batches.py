"""Batches of texts of nearly one length, so that hardly any time goes into padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dltool.device import generator
from dltool_bert_finetune.tokens import IGNORED, Tokens

Lengths = npt.NDArray[np.int64]


def rounded(lengths: Lengths) -> Lengths:
    """Return lengths rounded up to steps of about an eighth of themselves."""
    step = np.maximum(lengths // 8, 1)
    return -(-lengths // step) * step


def cut_points(lengths: Lengths, batch_size: int, max_tokens: int) -> list[int]:
    """Return where batches begin and end in ascending lengths.

    A batch holds at most `batch_size` texts and, when `max_tokens` is not 0, at most so many tokens
    with the padding. A single text is a batch even when it is longer.
    """
    points = [0]
    for place in range(len(lengths)):
        count = place - points[-1] + 1
        too_many = count > batch_size or (max_tokens and count * lengths[place] > max_tokens)
        if too_many and count > 1:
            points.append(place)
    return [*points, len(lengths)]


@dataclass
class TextBatches:
    """Batches that depend on (seed, epoch, position) alone.

    Texts are sorted by their rounded length, in random order where it is equal; batches are cut
    from that sequence and come in random order. The number of batches is the same in each epoch,
    because the sequence of rounded lengths is.

    Attributes:
        targets: (N,) or (N, C), or (all tokens,); becomes `labels` of a batch.
        max_tokens: limit of texts times longest text; 0: none.
        is_flat: whether there is a target a token; behind the end of a text it is IGNORED.
    """

    tokens: Tokens
    targets: Tensor
    pad: int
    batch_size: int
    max_tokens: int
    seed: int
    device: torch.device
    is_flat: bool = False
    _lengths: Lengths = field(init=False)
    _points: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._lengths = rounded(self.tokens.lengths)
        self._points = cut_points(np.sort(self._lengths), self.batch_size, self.max_tokens)

    def __len__(self) -> int:
        return len(self._points) - 1

    def plan(self, epoch: int) -> list[list[int]]:
        """Return the texts of each batch of an epoch."""
        stream = generator(self.seed, "batches", epoch)
        order = torch.randperm(len(self.tokens), generator=stream).numpy()
        order = order[np.argsort(self._lengths[order], kind="stable")]
        groups = [order[start:stop].tolist() for start, stop in pairwise(self._points)]
        return [groups[i] for i in torch.randperm(len(groups), generator=stream).tolist()]

    def batches(self, epoch: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """Yield the batches of an epoch from number `start` on."""
        for index in self.plan(epoch)[start:]:
            batch = self.tokens.batch(index, self.pad)
            batch["labels"] = self.labels(index)
            yield {name: part.to(self.device) for name, part in batch.items()}

    def labels(self, index: list[int]) -> Tensor:
        """Return the targets of texts (B, …)."""
        if self.is_flat:
            return self.tokens.spread(self.targets, index, IGNORED)
        return self.targets[torch.tensor(index)]

    @property
    def fill(self) -> float:
        """Share of an epoch's cells that hold a token; the rest is padding."""
        lengths = self.tokens.lengths
        cells = sum(len(group) * int(lengths[group].max()) for group in self.plan(0))
        return float(lengths.sum()) / max(cells, 1)


def in_order(
    tokens: Tokens, pad: int, batch_size: int, max_tokens: int, device: torch.device
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Yield every text once with its number, the shortest first."""
    order = np.argsort(tokens.lengths, kind="stable")
    points = cut_points(tokens.lengths[order], batch_size, max_tokens)
    for start, stop in pairwise(points):
        index = order[start:stop].tolist()
        batch = tokens.batch(index, pad)
        yield index, {name: part.to(device) for name, part in batch.items()}
