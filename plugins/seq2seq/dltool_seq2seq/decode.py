"""Find the target: greedily, by beam search, or by sampling; with a KV cache, in batches.

Sentences are sorted by length and decoded together; those that are finished leave the batch. What
comes out does not depend on the batch: padding is masked, and sampling draws from a stream of its
own for each sentence.

Shapes: B sentences, K beams, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dltool.device import generator
from dltool.errors import ConfigError
from dltool.ranges import at_least, inside, one_of
from dltool_seq2seq.rnn import Recurrent
from dltool_seq2seq.transformer import Transformer
from dltool_seq2seq.vocab import BOS, EOS, PAD

Model = Transformer | Recurrent
State = dict[str, Tensor]
METHODS = ("greedy", "beam", "sample")
NEVER = (PAD, BOS)  # tokens that no target holds


@dataclass(frozen=True)
class Search:
    """How to decode.

    Attributes:
        length_penalty: α of ((5 + length) / 6)^α, by which a beam's log-probability is divided
            (Wu et al., 2016, eq. 14); 0 compares sums, larger prefers longer targets.
        top_k: sample among the k likeliest tokens; 0: all.
        top_p: sample among the likeliest tokens that together reach p (Holtzman et al., 2020).
        min_length, max_length: tokens of a target, the end mark not counted; a maximum of 0 is
            that of the model.
    """

    method: str = "greedy"
    beam: int = 4
    length_penalty: float = 0.6
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_length: int = 0
    max_length: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("--decoder", self.method, METHODS)
        at_least("--beam", self.beam, 1)
        at_least("--top-k", self.top_k, 0)
        at_least("--min-length", self.min_length, 0)
        at_least("--max-length", self.max_length, 0)
        inside("--length-penalty", self.length_penalty, 0.0, 10.0)
        inside("--temperature", self.temperature, 0.0, 100.0, open_low=True)
        inside("--top-p", self.top_p, 0.0, 1.0, open_low=True)
        if self.max_length and self.min_length > self.max_length:
            raise ConfigError(
                "E205", f"--min-length {self.min_length} is above --max-length {self.max_length}"
            )


@dataclass(frozen=True)
class Found:
    """A decoded target: its tokens without begin and end, and its log-probability.

    `is_cut` says that the longest length was reached before an end mark.
    """

    tokens: list[int]
    log_probability: float
    is_cut: bool


@torch.no_grad()
def decode(
    model: Model, sources: Sequence[Sequence[int]], search: Search, *, batch_size: int
) -> list[Found]:
    """Decode sources (token numbers without end marks) in evaluation mode, in their order."""
    was_training = model.training
    model.eval()
    order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
    found: dict[int, Found] = {}
    device = next(model.parameters()).device
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        state = model.start(*padded([sources[row] for row in rows], device))
        if search.method == "beam":
            results = _beams(model, state, len(rows), search)
        else:
            results = _single(model, state, rows, search)
        found.update(zip(rows, results, strict=True))
    model.train(was_training)
    return [found[row] for row in range(len(sources))]


def padded(sources: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return tokens (B, S) with end marks and padding, and lengths (B,)."""
    lengths = torch.tensor([len(source) + 1 for source in sources])
    tokens = torch.full((len(sources), int(lengths.max())), PAD)
    for row, source in enumerate(sources):
        tokens[row, : len(source) + 1] = torch.tensor([*source, EOS])
    return tokens.to(device), lengths.to(device)


def limit(model: Model, search: Search) -> int:
    """Return the most tokens of a target, the end mark not counted."""
    most = model.spec.max_length - 1
    return min(search.max_length, most) if search.max_length else most


def chosen(state: State, rows: Tensor) -> State:
    """Return the state of some rows, in their order."""
    return {name: part.index_select(0, rows) for name, part in state.items()}


def _next(
    model: Model, tokens: Tensor, state: State, length: int, search: Search
) -> tuple[Tensor, State]:
    """Read one token a row (N,); return log-probabilities (N, V) of what may follow, in fp32."""
    logits, state = model.step(tokens[:, None], state)
    scores = logits[:, -1].float()
    scores[:, NEVER] = -math.inf
    if length < search.min_length:
        scores[:, EOS] = -math.inf
    return scores.log_softmax(-1), state


def _single(model: Model, state: State, rows: Sequence[int], search: Search) -> list[Found]:
    """Decode greedily or by sampling; rows that are finished leave the batch."""
    device = next(model.parameters()).device
    streams = [generator(search.seed, "sample", row) for row in rows]
    alive = torch.arange(len(rows), device=device)
    last = torch.full((len(rows),), BOS, device=device)
    totals = torch.zeros(len(rows), device=device)
    most = limit(model, search)
    written = torch.full((len(rows), most), EOS, device=device)
    is_cut = [True] * len(rows)
    for length in range(most + 1):
        scores, state = _next(model, last, state, length, search)
        if search.method == "sample":
            picked = _sampled(scores, [streams[i] for i in alive.tolist()], search)
        else:
            picked = scores.argmax(-1)
        goes_on = picked != EOS
        counted = picked if length < most else torch.full_like(picked, EOS)
        totals[alive] += scores.gather(1, counted[:, None])[:, 0]
        for row in alive[~goes_on].tolist():
            is_cut[row] = False
        if length == most or not bool(goes_on.any()):
            break
        if not bool(goes_on.all()):
            kept = goes_on.nonzero()[:, 0]
            alive, picked, state = alive[kept], picked[kept], chosen(state, kept)
        written[alive, length] = picked
        last = picked
    return [
        Found(_until_end(line), total, cut)
        for line, total, cut in zip(written.tolist(), totals.tolist(), is_cut, strict=True)
    ]


def _until_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS)] if EOS in tokens else tokens


def _sampled(scores: Tensor, streams: Sequence[torch.Generator], search: Search) -> Tensor:
    """Draw one token a row (N,) from log-probabilities (N, V), each row from its own stream."""
    # on the CPU in float64, which Apple GPUs lack: the draw is then the same on every device
    probabilities = narrowed(scores / search.temperature, search).cpu().double()
    draws = torch.stack(
        [torch.rand((), generator=stream, dtype=torch.double) for stream in streams]
    )
    reached = probabilities.cumsum(-1)
    places = draws[:, None] * reached[:, -1:]
    picked = torch.searchsorted(reached, places, right=True)[:, 0]
    return picked.clamp(max=scores.shape[1] - 1).to(scores.device)


def narrowed(scores: Tensor, search: Search) -> Tensor:
    """Return probabilities (N, V) from scores, 0 outside of the top k and the top p.

    The likeliest token always stays.
    """
    ranked, order = scores.sort(stable=True, dim=-1, descending=True)
    chances = ranked.softmax(-1)
    before = chances.cumsum(-1) - chances
    out = before >= search.top_p
    if search.top_k:
        out[:, search.top_k :] = True
    out[:, 0] = False
    ranked = ranked.masked_fill(out, -math.inf).softmax(-1)
    return torch.zeros_like(ranked).scatter(1, order, ranked)


@dataclass
class _Sentence:
    """The finished targets of one sentence, the best first."""

    best: list[tuple[float, Found]]

    def offer(self, score: float, found: Found, beam: int) -> None:
        self.best.append((score, found))
        self.best.sort(key=lambda item: -item[0])
        del self.best[beam:]


def penalised(log_probability: float, length: int, alpha: float) -> float:
    """Return a beam's score; `length` counts the end mark."""
    return float(log_probability / ((5 + length) / 6) ** alpha)


def _beams(model: Model, state: State, count: int, search: Search) -> list[Found]:
    """Beam search for `count` sentences at once; finished ones leave the batch."""
    device = next(model.parameters()).device
    beam, most = search.beam, limit(model, search)
    sentences = [_Sentence([]) for _ in range(count)]
    alive = list(range(count))
    state = chosen(state, torch.arange(count, device=device).repeat_interleave(beam))
    # at the start all beams of a sentence are the same: only the first one counts
    totals = torch.full((count, beam), -math.inf, device=device)
    totals[:, 0] = 0.0
    last = torch.full((count * beam,), BOS, device=device)
    history = torch.empty(count * beam, 0, dtype=torch.long, device=device)
    for length in range(most + 1):
        scores, state = _next(model, last, state, length, search)
        if length == most:  # nothing but the end fits
            _close(sentences, alive, totals + scores[:, EOS].view(-1, beam), history, search)
            break
        size = scores.shape[1]
        grown = (totals[:, :, None] + scores.view(-1, beam, size)).flatten(1)
        values, places = grown.topk(2 * beam, dim=1)  # enough: at most `beam` of them are ends
        parents, tokens = places // size, places % size
        _collect(sentences, alive, values, parents, tokens, history, search)
        values = values.masked_fill(tokens == EOS, -math.inf)
        totals, kept = values.topk(beam, dim=1)
        parents, tokens = parents.gather(1, kept), tokens.gather(1, kept)
        going = [
            place
            for place, sentence in enumerate(alive)
            if not _is_over(sentences[sentence], float(totals[place, 0]), length + 1, most, search)
        ]
        if not going:
            break
        index = torch.tensor(going, device=device)
        rows = (index[:, None] * beam + parents[index]).flatten()
        alive = [alive[place] for place in going]
        totals, last = totals[index], tokens[index].flatten()
        state = chosen(state, rows)
        history = torch.cat([history[rows], last[:, None]], 1)
    return [sentence.best[0][1] for sentence in sentences]


def _collect(
    sentences: list[_Sentence],
    alive: list[int],
    values: Tensor,
    parents: Tensor,
    tokens: Tensor,
    history: Tensor,
    search: Search,
) -> None:
    """Keep the candidates that end here, of those that are among the best `beam`."""
    ends = (tokens[:, : search.beam] == EOS) & (values[:, : search.beam] > -math.inf)
    for place, rank in ends.nonzero().tolist():
        line = history[place * search.beam + int(parents[place, rank])].tolist()
        total = float(values[place, rank])
        score = penalised(total, len(line) + 1, search.length_penalty)
        sentences[alive[place]].offer(score, Found(line, total, False), search.beam)


def _close(
    sentences: list[_Sentence], alive: list[int], totals: Tensor, history: Tensor, search: Search
) -> None:
    """End every beam that is left at the longest length."""
    for place, sentence in enumerate(alive):
        for rank, total in enumerate(totals[place].tolist()):
            line = history[place * search.beam + rank].tolist()
            if total > -math.inf or not sentences[sentence].best:
                score = penalised(total, len(line) + 1, search.length_penalty)
                sentences[sentence].offer(score, Found(line, total, True), search.beam)


def _is_over(sentence: _Sentence, best: float, length: int, most: int, search: Search) -> bool:
    """Whether no beam that goes on can still beat the worst of the finished ones kept."""
    if best == -math.inf:
        return bool(sentence.best)
    if len(sentence.best) < search.beam:
        return False
    # log-probabilities only fall; a longer target divides by more
    return sentence.best[-1][0] >= penalised(best, most + 1, search.length_penalty)
