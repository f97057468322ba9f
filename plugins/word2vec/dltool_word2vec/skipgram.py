"""Skip-gram with negative sampling as a torch model, on any device.

Mikolov et al. (2013): a word's vector v shall predict the words around it, which have vectors u of
their own: maximise log s(v·u) over true pairs and log s(-v·u') over noise words, s the logistic
function. The products are made in groups, as pWord2Vec does (Ji et al., 2016): 32 words in a row
share one window and one draw of noise words, so that a group is two small matrix products and not
hundreds of dot products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

GROUP = 32
BREAK = -1  # between two lines


class Pairs(NamedTuple):
    """A batch: groups of words in a row with what is around them; G groups.

    Attributes:
        words: (G, 32) rows of the vocabulary.
        context: (G, 32 + 2 * window) the words with those before and after them.
        mask: (G, 32, 32 + 2 * window) 1 where word and context are a pair, else 0.
        noise: (G, N) rows of noise words.
    """

    words: Tensor
    context: Tensor
    mask: Tensor
    noise: Tensor


class SkipGram(nn.Module):
    """Two matrices: `input` are the word vectors, `output` those of predicted words."""

    def __init__(self, words: int, dim: int) -> None:
        super().__init__()
        self.input = nn.Embedding(words, dim, sparse=True)
        self.output = nn.Embedding(words, dim, sparse=True)
        nn.init.uniform_(self.input.weight, -0.5 / dim, 0.5 / dim)
        nn.init.zeros_(self.output.weight)

    def forward(self, batch: Pairs, negative: float) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the batch's pairs, and the number of pairs.

        Args:
            negative: noise words that a pair counts; the N shared ones are weighed to that sum.
        """
        v = self.input(batch.words)  # (G, 32, D)
        u = self.output(batch.context)  # (G, 32 + 2w, D)
        n = self.output(batch.noise)  # (G, N, D)
        pairs = batch.mask.sum(dim=2, keepdim=True)  # (G, 32, 1): pairs of each word
        # -log s(x) = softplus(-x)
        true = F.softplus(-torch.bmm(v, u.transpose(1, 2))) * batch.mask
        weight = pairs * (negative / batch.noise.shape[1])
        noise = F.softplus(torch.bmm(v, n.transpose(1, 2))) * weight
        return true.sum() + noise.sum(), pairs.sum()

    def terms(self, batch: Pairs, negative: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return for each use of a matrix its rows and in how many terms of the loss each is."""
        of_word, of_context = batch.mask.sum(dim=2), batch.mask.sum(dim=1)
        of_noise = of_word.sum(dim=1, keepdim=True) * negative / batch.noise.shape[1]
        return [
            (self.input.weight, batch.words, of_word * (1 + negative)),
            (self.output.weight, batch.context, of_context),
            (self.output.weight, batch.noise, of_noise.expand(batch.noise.shape)),
        ]


class RowSGD(Optimizer):
    """The steps of word2vec's own SGD, many pairs at a time, on the rows that a batch touched.

    row -= lr * min(1, 128 / w) * sum of its gradients, w being the terms of the loss that it is in.
    A word of ordinary frequency moves as far as it would pair by pair. The sum for a frequent word,
    which is in thousands of terms of a batch, would overshoot, and is cut.

    The gradients that come are those of a loss averaged over pairs; `weigh` tells of how many.
    """

    MOST = 128

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        rows = [each for group in self.param_groups for each in group["params"]]
        self.terms = {each: torch.zeros(len(each), device=each.device) for each in rows}
        self.pairs: Tensor | float = 0.0

    def weigh(self, pairs: Tensor, terms: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Count the pairs of a piece of the batch, and the terms that each row is in.

        Args:
            terms: a matrix, rows of it (...), and the weight of each (...).
        """
        self.pairs = self.pairs + pairs.detach()
        for matrix, rows, weights in terms:
            self.terms[matrix].index_add_(0, rows.reshape(-1), weights.reshape(-1))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients and what they were averaged over."""
        super().zero_grad(set_to_none)
        self.pairs = 0.0
        for weights in self.terms.values():
            weights.zero_()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the rows that have a gradient; `closure` is not used."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                gradient = matrix.grad.coalesce()
                rows, values = gradient.indices()[0], gradient.values()  # (n,), (n, D)
                cut = self.MOST / self.terms[matrix][rows].clamp(min=self.MOST)
                matrix.index_add_(0, rows, values * (-group["lr"] * self.pairs * cut)[:, None])


class Blocks:
    """Batches made on the device from the corpus as numbers; a function of (seed, epoch, place)."""

    def __init__(
        self,
        ids: Tensor,
        counts: Tensor,
        *,
        window: int,
        sample: float,
        block: int,
        noise: int,
        generator: Callable[[int, int], torch.Generator],
    ) -> None:
        self.ids, self.window, self.block, self.noise = ids, window, block, noise
        self.generator = generator
        shares = counts.double() / counts.sum()
        # word2vec.c: a word of share f stays with probability sqrt(t / f) + t / f
        keep = (sample / shares).sqrt() + sample / shares if sample else torch.ones_like(shares)
        self.keep = keep.clamp(max=1).float()
        weights = counts.double() ** 0.75
        self.cumulated = (weights.cumsum(0) / weights.sum()).float()

    def __len__(self) -> int:
        return -(-len(self.ids) // self.block)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Pairs]:
        """Yield the batches of an epoch from number `start` on."""
        for place in range(start, len(self)):
            ids = self.ids[place * self.block : (place + 1) * self.block].long()
            yield self.pairs(ids, self.generator(epoch, place))

    def pairs(self, ids: Tensor, generator: torch.Generator) -> Pairs:
        """Make the pairs of words in a row, (T,), with `BREAK` between lines."""
        device = ids.device
        chance = torch.rand(len(ids), generator=generator, device=device)
        is_word = ids != BREAK
        line = (~is_word).cumsum(0)
        kept = is_word & (chance < self.keep[ids.clamp(min=0)])
        ids, line = ids[kept], line[kept]
        groups = max(-(-len(ids) // GROUP), 1)
        pad = groups * GROUP - len(ids)
        w = self.window
        # outside of the block is no line at all
        ids = F.pad(ids, (w, pad + w))
        line = F.pad(line, (w, pad + w), value=-1)
        context, lines = ids.unfold(0, GROUP + 2 * w, GROUP), line.unfold(0, GROUP + 2 * w, GROUP)
        words, own = context[:, w : w + GROUP], lines[:, w : w + GROUP]
        # every word draws how far it looks, 1 to w: near words count more often
        reach = torch.randint(1, w + 1, (groups, GROUP, 1), generator=generator, device=device)
        distance = (
            torch.arange(GROUP + 2 * w, device=device)[None, :]
            - torch.arange(w, GROUP + w, device=device)[:, None]
        ).abs()  # (32, 32 + 2w)
        is_pair = (distance > 0) & (distance <= reach)
        is_pair &= (own[:, :, None] == lines[:, None, :]) & (own[:, :, None] >= 0)
        drawn = torch.rand((groups, self.noise), generator=generator, device=device)
        noise = torch.searchsorted(self.cumulated, drawn).clamp(max=len(self.cumulated) - 1)
        return Pairs(words, context, is_pair.float(), noise)


def numbered(lines: Iterator[list[str]], index: Mapping[str, int]) -> Tensor:
    """Return a corpus as rows of the vocabulary, (T,) int32, without unknown words."""
    import array

    # a compact buffer: a list of Python numbers takes nine times the memory
    numbers = array.array("i")
    for line in lines:
        numbers.extend(index[word] for word in line if word in index)
        numbers.append(BREAK)
    return torch.frombuffer(numbers, dtype=torch.int32).clone() if numbers else torch.empty(0)
