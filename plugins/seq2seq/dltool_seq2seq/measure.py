"""Measure a model on pairs: what it is trained on, and what it answers when it runs free."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dltool.errors import MissingExtra
from dltool.metrics import Score
from dltool_seq2seq.data import Pairs, directed
from dltool_seq2seq.decode import Found, Search, decode
from dltool_seq2seq.model import Model, token_losses
from dltool_seq2seq.vocab import PAD, Vocabulary, joined

RESAMPLES = 200
MOST_LENGTHS = 8
BLEU_ORDER = 4
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Forced:
    """Teacher-forced figures: the mean loss a token in nats, and tokens right of how many."""

    loss: float
    right: int
    tokens: int

    @property
    def perplexity(self) -> float:
        """e to the loss; infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@torch.no_grad()
def forced(model: Model, pairs: Pairs) -> Forced:
    """Return the figures under teacher forcing, over every token, end marks included."""
    was_training = model.training
    model.eval()
    loss, right, tokens = 0.0, 0, 0
    rows = torch.arange(len(pairs.texts))
    for part in rows[pairs.source.lengths.argsort(stable=True)].split(EVALUATION_BATCH):
        batch = pairs.batch(part)
        logits = model(batch.source, batch.lengths, batch.decoder_input)
        counted = batch.target != PAD
        loss += float(token_losses(logits.float(), batch.target).cpu().double().sum())
        right += int(((logits.argmax(-1) == batch.target) & counted).sum())
        tokens += int(counted.sum())
    model.train(was_training)
    return Forced(loss / max(tokens, 1), right, tokens)


def answers(
    model: Model,
    sources: Sequence[str],
    source: Vocabulary,
    target: Vocabulary,
    search: Search,
    *,
    reverse_source: bool,
    reverse_target: bool,
    batch_size: int = EVALUATION_BATCH,
) -> list[tuple[str, Found]]:
    """Return the target that the model finds for each source."""
    numbers = [directed(source.encode(text), backwards=reverse_source) for text in sources]
    found = decode(model, numbers, search, batch_size=batch_size)
    return [(target.decode(directed(f.tokens, backwards=reverse_target)), f) for f in found]


def reference(text: str, vocabulary: Vocabulary) -> str:
    """Return a target as a perfect answer would be written."""
    if vocabulary.level == "word":
        return joined(vocabulary.cut(text))
    normal = vocabulary.normalise(text)
    return normal.strip() if vocabulary.level == "subword" else normal


def exact(given: Sequence[str], wanted: Sequence[str]) -> Score:
    """Return the share of answers that equal their reference.

    The baseline always gives the commonest reference.
    """
    commonest = max(Counter(wanted).values()) / len(wanted)
    right = sum(a == b for a, b in zip(given, wanted, strict=True))
    return Score.from_counts(right, len(wanted), commonest)


def by_length(
    sources: Sequence[str], given: Sequence[str], wanted: Sequence[str], source: Vocabulary
) -> list[dict[str, Any]]:
    """Return exact match by the number of source tokens, in at most eight groups."""
    lengths = [len(source.cut(text)) for text in sources]
    groups = _groups(lengths)
    rows = []
    for low, high in groups:
        chosen = [i for i, length in enumerate(lengths) if low <= length <= high]
        right = sum(given[i] == wanted[i] for i in chosen)
        score = Score.from_counts(right, len(chosen))
        rows.append({"from": low, "to": high, **score.as_dict()})
    return rows


def _groups(lengths: Sequence[int]) -> list[tuple[int, int]]:
    distinct = sorted(set(lengths))
    if len(distinct) <= MOST_LENGTHS:
        return [(length, length) for length in distinct]
    ordered = sorted(lengths)
    tops = sorted(
        {ordered[(i + 1) * len(ordered) // MOST_LENGTHS - 1] for i in range(MOST_LENGTHS)}
    )
    bottoms = [distinct[0], *(top + 1 for top in tops[:-1])]
    return list(zip(bottoms, tops, strict=True))


def refuse_without_sacrebleu() -> None:
    """Raise MissingExtra where BLEU and chrF could not be counted."""
    try:
        import sacrebleu  # noqa: F401
    except ImportError as error:
        raise MissingExtra("sacrebleu", "seq2seq") from error


def translation_scores(
    sources: Sequence[str], given: Sequence[str], wanted: Sequence[str]
) -> dict[str, Any]:
    """Return corpus BLEU (Papineni et al., 2002) and chrF (Popović, 2015) by sacrebleu.

    Both with 95 % bootstrap intervals; the baseline copies the source.

    Raises:
        MissingExtra: sacrebleu is not installed.
    """
    refuse_without_sacrebleu()
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    # of texts that are all below four words BLEU counts the orders that there are
    are_short = all(len(text.split()) < BLEU_ORDER for text in (*given, *wanted))
    scores: dict[str, Any] = {}
    for name, metric in (("bleu", BLEU(effective_order=are_short)), ("chrf", CHRF())):
        low, high = _resampled(metric, given, wanted)
        scores[name] = {
            "value": float(metric.corpus_score(list(given), [list(wanted)]).score),
            "n": len(wanted),
            "low": low,
            "high": high,
            "confidence": 0.95,
            "baseline": float(metric.corpus_score(list(sources), [list(wanted)]).score),
            "signature": str(metric.get_signature()),
        }
    return scores


def _resampled(
    metric: Any, given: Sequence[str], wanted: Sequence[str]
) -> tuple[float | None, float | None]:
    """Return the middle 95 % of a metric over texts drawn anew (Koehn, 2004); None for one text.

    sacrebleu's own resampling counts in float32, which is not exact in large corpora and raises in
    some.
    """
    if len(wanted) < 2:
        return None, None
    statistics = np.array(metric._extract_corpus_statistics(list(given), [list(wanted)]))
    stream = np.random.default_rng(0)
    scores = []
    for _ in range(RESAMPLES):
        drawn = stream.integers(len(wanted), size=len(wanted))
        total = statistics[drawn].sum(0).tolist()
        scores.append(float(metric._compute_score_from_stats(total).score))
    low, high = np.quantile(scores, [0.025, 0.975]).tolist()
    return low, high
