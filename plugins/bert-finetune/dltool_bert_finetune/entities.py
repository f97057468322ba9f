"""Entities out of tags, and how many of them were found.

An entity counts as found when its first word, its last word and its type are right, as in the
shared task of CoNLL-2003 (Tjong Kim Sang and De Meulder, https://aclanthology.org/W03-0419).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dltool import metrics
from dltool_bert_finetune.tagging_data import OUTSIDE, PREFIXED, as_iob2


@dataclass(frozen=True, order=True)
class Entity:
    """Words `first` to `last` of a sentence, both included, and what they are."""

    first: int
    last: int
    kind: str


def are_entities(classes: Iterable[str]) -> bool:
    """Tell whether tags name entities over several words, and not a class of each word."""
    return any(PREFIXED.match(name) for name in classes)


def of(tags: Sequence[str], *, grouped: bool = True) -> list[Entity]:
    """Return the entities of a sentence in order; without groups each word is one of its own."""
    if not grouped:
        return [Entity(i, i, tag) for i, tag in enumerate(tags) if tag != OUTSIDE]
    found: list[Entity] = []
    for place, tag in enumerate(as_iob2(tags)):
        kind = tag[2:]
        if tag.startswith("B-"):
            found.append(Entity(place, place, kind))
        elif tag.startswith("I-"):
            found[-1] = Entity(found[-1].first, place, kind)
    return found


def measure(
    true: Sequence[Sequence[str]],
    said: Sequence[Sequence[str]],
    *,
    grouped: bool,
    plain: Sequence[Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Return precision, recall and F1 of entities, over all (micro) and by type.

    Args:
        true, said: tags of each sentence.
        grouped: whether they are entities over several words.
        plain: what the baseline says, if there is one.
    """
    counts = [_counts(a, b, grouped) for a, b in zip(true, said, strict=True)]
    kinds = sorted({kind for each in counts for part in each for kind in part})
    rows = [_row(kind, [tuple(part[kind] for part in each) for each in counts]) for kind in kinds]
    total = _row("all", [tuple(part.total() for part in each) for each in counts])
    words = [(a, b) for x, y in zip(true, said, strict=True) for a, b in zip(x, y, strict=True)]
    right = sum(a == b for a, b in words)
    common = Counter(a for a, _ in words).most_common(1)[0][1] / len(words)
    known = [row["f1"] for row in rows if row["f1"] is not None]
    baseline = None
    if plain is not None:
        baseline = measure(true, plain, grouped=grouped)["f1"]["value"]
    scores = [tuple(part.total() for part in each) for each in counts]
    low, high = _interval(scores)
    return {
        "f1": {
            "value": total["f1"] or 0.0,
            "n": total["support"],
            "low": low,
            "high": high,
            "confidence": metrics.CONFIDENCE,
            "baseline": baseline,
        },
        "precision": total["precision"],
        "recall": total["recall"],
        "macro_f1": math.fsum(known) / len(known) if known else None,
        "accuracy": metrics.Score.from_counts(right, len(words), common).as_dict(),
        "sentences": len(true),
        "classes": rows,
    }


def _counts(
    true: Sequence[str], said: Sequence[str], grouped: bool
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Return, by type, the entities that were found, named, and there."""
    a, b = set(of(true, grouped=grouped)), set(of(said, grouped=grouped))
    return (
        Counter(each.kind for each in a & b),
        Counter(each.kind for each in b),
        Counter(each.kind for each in a),
    )


def _row(kind: str, counts: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    found, named, there = (sum(part) for part in zip(*counts, strict=True))
    low, high = metrics.wilson(found, there) if there else (None, None)
    return {
        "class": kind,
        "precision": found / named if named else None,
        "recall": found / there if there else None,
        "recall_low": low,
        "recall_high": high,
        "f1": 2 * found / (named + there) if named + there else None,
        "support": there,
    }


def _interval(counts: Sequence[tuple[int, ...]]) -> tuple[float | None, float | None]:
    """Return the interval of F1 = 2 found / (named + there), whose sentences are independent.

    A ratio of sums is, to first order, the mean of R + n (a_i - R b_i) / sum(b) (Cochran, Sampling
    Techniques, 1977, chapter 6). At 0 and 1 that has no spread: there Wilson's interval of the
    entities stands in.
    """
    above = [2 * found for found, _, _ in counts]
    below = [named + there for _, named, there in counts]
    total, entities = sum(below), sum(there for _, _, there in counts)
    if not total:
        return None, None
    ratio = sum(above) / total
    if ratio in (0.0, 1.0) and entities:
        return metrics.wilson(int(ratio) * entities, entities)
    n = len(counts)
    values = [ratio + n * (a - ratio * b) / total for a, b in zip(above, below, strict=True)]
    _, low, high = metrics.mean_interval(values)
    return (None, None) if low is None or high is None else (max(low, 0.0), min(high, 1.0))


def lexicon(words: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return the tag that each word of the training data has most often: the baseline."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence, row in zip(words, tags, strict=True):
        for word, tag in zip(sentence, row, strict=True):
            counts[word][tag] += 1
    return {word: max(sorted(seen), key=seen.__getitem__) for word, seen in counts.items()}


def from_lexicon(
    known: dict[str, str], words: Sequence[Sequence[str]], otherwise: str = OUTSIDE
) -> list[list[str]]:
    """Return the baseline's tags; a word that it never saw has the tag `otherwise`."""
    return [[known.get(word, otherwise) for word in sentence] for sentence in words]


def text(found: dict[str, Any], *, grouped: bool) -> str:
    """Return the measures as lines for people."""
    f1 = found["f1"]
    interval = "" if f1["low"] is None else f"95 % interval {f1['low']:.4f}–{f1['high']:.4f}, "
    what = "entities" if grouped else "tagged words"
    plain = ""
    if f1["baseline"] is not None:
        plain = f"; each word's commonest tag {f1['baseline']:.4f}"
    accuracy = metrics.Score(**{k: v for k, v in found["accuracy"].items() if k != "confidence"})
    return (
        f"F1 of {what} {f1['value']:.4f} ({interval}n = {f1['n']:,}{plain})\n"
        f"precision {_shown(found['precision'])}, recall {_shown(found['recall'])}, macro F1 "
        f"{_shown(found['macro_f1'])}\n"
        f"words right {accuracy.text()}"
    )


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
