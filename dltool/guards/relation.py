"""G-D07: do labels have anything to do with their inputs, and if not, are they shifted?

A probe that is quick and cannot be fooled by size: its accuracy on held-out rows beside that for
shuffled labels. What a linear probe does not see, a quadratic and a nearest-neighbour one may.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dltool.guards.findings import Clean, Finding, NotJudged, Verdict

ROWS, FEWEST, WIDTH = 2000, 500, 200
SHUFFLES = 12
UNRELATED, LAGGING = 3.0, 5.0
LAGS = tuple(lag for size in range(1, 9) for lag in (size, -size))
HASHES = 512

Probe = Callable[[Tensor, Tensor], float]


def hashed_words(texts: Sequence[str]) -> Tensor:
    """Return counts of words, each in one of `HASHES` columns, (N, HASHES)."""
    import zlib

    rows = torch.zeros(len(texts), HASHES)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().split()[:400]:
            row[zlib.crc32(word.encode()) % HASHES] += 1
    return rows.sqrt()


def hashed_tokens(tokens: Tensor) -> Tensor:
    """Return how often each token id occurs, ids folded into `HASHES` columns."""
    rows = torch.zeros(len(tokens), HASHES)
    return rows.scatter_add_(1, tokens.long() % HASHES, torch.ones(tokens.shape)).sqrt()


def relation(inputs: Tensor, labels: Tensor) -> Verdict:
    """Judge rows in the order in which they are stored.

    Args:
        inputs: (N, …) numbers.
        labels: (N,) class ids, or values.
    """
    if len(inputs) < FEWEST or labels.dim() != 1:
        return NotJudged("G-D07", f"fewer than {FEWEST} rows with one label each")
    if not labels.is_floating_point() and len(labels.unique()) < 2:
        return NotJudged("G-D07", "there is one label alone")
    # neighbours in the file stay neighbours, so that a shift can be undone
    rows, goal = inputs[:ROWS].flatten(1).float().cpu(), labels[:ROWS].cpu()
    features = _reduced(rows)
    best = _strength(linear, features, goal)
    if best >= UNRELATED:
        return Clean("G-D07", best)
    lag = _lag(features, goal)
    if lag is not None:
        return _finding("fail", best, *lag)
    for probe in (quadratic, nearest):
        best = max(best, _strength(probe, features, goal))
        if best >= UNRELATED:
            return Clean("G-D07", best)
    return _finding("warn", best)


def _finding(severity: str, strength: float, lag: int = 0, with_lag: float = 0.0) -> Finding:
    said = f"labels have nothing to do with their inputs: a probe is {strength:.1f} deviations "
    said += f"better than on shuffled labels (limit {UNRELATED:g})"
    cure = "read inputs and labels from one table; sort both by one key"
    if lag:
        side = "later" if lag > 0 else "earlier"
        said += f"; with the labels of the row {abs(lag)} {side} it is {with_lag:.1f}"
        cure = f"move the labels by {lag} rows: labels.roll({-lag})"
    return Finding(
        "G-D07", severity, said, cure, measured=strength, limit=UNRELATED, place="labels"
    )


def _reduced(rows: Tensor) -> Tensor:
    """Return at most `WIDTH` standardised features: mixed at random where there are more."""
    rows = rows.nan_to_num()
    spread = rows.std(0)
    rows = ((rows - rows.mean(0)) / spread.clamp_min(1e-6))[:, spread > 1e-6]
    if rows.shape[1] > WIDTH:
        draw = torch.Generator().manual_seed(0)
        rows = rows @ torch.randn(rows.shape[1], WIDTH, generator=draw) / math.sqrt(rows.shape[1])
    return rows.clamp(-10, 10)


def _targets(labels: Tensor) -> Tensor:
    if labels.is_floating_point():
        return ((labels - labels.mean()) / labels.std().clamp_min(1e-12))[:, None]
    _, place = labels.unique(return_inverse=True)
    hot = torch.nn.functional.one_hot(place).float()
    return hot - hot.mean(0)


def linear(rows: Tensor, goal: Tensor) -> float:
    """Return the held-out score of a ridge regression: accuracy, or correlation for values."""
    half = torch.arange(len(rows)) % 2 == 0
    x = torch.cat([rows, torch.ones(len(rows), 1)], 1)
    train, held = x[half], x[~half]
    gram = train.T @ train + 10.0 * torch.eye(x.shape[1])
    guess = held @ torch.linalg.solve(gram, train.T @ goal[half])
    return _score(guess, goal[~half])


def quadratic(rows: Tensor, goal: Tensor) -> float:
    """Return the score of a ridge regression on products of features."""
    some = rows[:, : min(rows.shape[1], 16)]
    one, two = torch.triu_indices(some.shape[1], some.shape[1])
    return linear(torch.cat([some, some[:, one] * some[:, two]], 1), goal)


def nearest(rows: Tensor, goal: Tensor) -> float:
    """Return the score of the mean of the five nearest rows."""
    half = torch.arange(len(rows)) % 2 == 0
    near = torch.cdist(rows[~half], rows[half]).topk(min(5, int(half.sum())), largest=False)
    return _score(goal[half][near.indices].mean(1), goal[~half])


def _score(guess: Tensor, goal: Tensor) -> float:
    if goal.shape[1] == 1:
        pair = torch.stack([guess[:, 0], goal[:, 0]])
        return float(torch.corrcoef(pair)[0, 1].nan_to_num())
    return float((guess.argmax(1) == goal.argmax(1)).float().mean())


def _strength(probe: Probe, rows: Tensor, labels: Tensor) -> float:
    """Return how many deviations the probe is better than on shuffled labels."""
    goal = _targets(labels)
    draw = torch.Generator().manual_seed(1)
    shuffled = torch.tensor(
        [probe(rows, goal[torch.randperm(len(goal), generator=draw)]) for _ in range(SHUFFLES)]
    )
    # the deviation of few shuffles is itself uncertain: chance alone spreads at least this far
    least = 0.5 / math.sqrt(len(goal) / 2)
    spread = max(float(shuffled.std()), least)
    return (probe(rows, goal) - float(shuffled.mean())) / spread


def _lag(rows: Tensor, labels: Tensor) -> tuple[int, float] | None:
    found = {}
    for lag in LAGS:
        moved = labels.roll(-lag)
        keep = slice(0, len(rows) - lag) if lag > 0 else slice(-lag, None)
        found[lag] = _strength(linear, rows[keep], moved[keep])
        if found[lag] > 2 * LAGGING:
            break
    best = max(found, key=lambda lag: found[lag])
    return (best, found[best]) if found[best] > LAGGING else None
