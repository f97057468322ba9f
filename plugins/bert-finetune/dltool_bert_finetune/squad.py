"""Exact match and F1 of answers, with the normalisation of SQuAD's evaluation script."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from dltool import metrics
from dltool_bert_finetune.answering_data import Question

ARTICLES = re.compile(r"\b(a|an|the)\b")
SIGNS = str.maketrans("", "", string.punctuation)
SENTENCE = re.compile(r"(?<=[.!?])\s+")


def normalised(text: str) -> str:
    """Return an answer in lower case without signs, articles and repeated spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(SIGNS)).split())


def exact(said: str, true: str) -> float:
    """Return 1 for answers that are the same but for what `normalised` takes away, else 0."""
    return float(normalised(said) == normalised(true))


def overlap(said: str, true: str) -> float:
    """Return the F1 of the words of two answers; 1 if both are empty, 0 if one of them is."""
    a, b = normalised(said).split(), normalised(true).split()
    if not a or not b:
        return float(a == b)
    shared = (Counter(a) & Counter(b)).total()
    return 2 * shared / (len(a) + len(b))


def best_of(score: Callable[[str, str], float], said: str, answers: Sequence[str]) -> float:
    """Return the score against the answer that is nearest; none: the right answer is nothing."""
    # an answer of which the normalisation leaves nothing does not count, as in the script
    known = [answer for answer in answers if normalised(answer)] or [""]
    return max(score(said, answer) for answer in known)


def measure(said: Sequence[str], questions: Sequence[Question]) -> dict[str, Any]:
    """Return exact match and F1 with their intervals and a baseline.

    The baseline is the better of two answers that need no model: nothing, and the sentence of the
    context that shares most words with the question (after the baselines of the SQuAD paper).
    """
    true = [[answer.text for answer in each.answers] for each in questions]
    right, shares = _scores(said, true)
    nothing = _scores([""] * len(said), true)
    sentence = _scores([_likely_sentence(each) for each in questions], true)
    plain = max(nothing, sentence, key=lambda found: math.fsum(found[1]))
    mean, low, high = metrics.mean_interval(shares)
    f1 = {
        "value": mean,
        "n": len(shares),
        "low": low if low is None else max(low, 0.0),
        "high": high if high is None else min(high, 1.0),
        "confidence": metrics.CONFIDENCE,
        "baseline": math.fsum(plain[1]) / len(shares),
    }
    baseline = math.fsum(plain[0]) / len(right)
    found: dict[str, Any] = {
        "exact_match": metrics.Score.from_counts(round(sum(right)), len(right), baseline).as_dict(),
        "f1": f1,
    }
    groups = {"answerable": [bool(each) for each in true], "unanswerable": [not t for t in true]}
    if any(groups["unanswerable"]) and any(groups["answerable"]):
        for name, members in groups.items():
            chosen = [number for number, is_in in enumerate(members) if is_in]
            found[name] = {
                "n": len(chosen),
                "exact_match": math.fsum(right[i] for i in chosen) / len(chosen),
                "f1": math.fsum(shares[i] for i in chosen) / len(chosen),
            }
    return found


def _scores(said: Sequence[str], true: Sequence[Sequence[str]]) -> tuple[list[float], list[float]]:
    pairs = list(zip(said, true, strict=True))
    return (
        [best_of(exact, answer, known) for answer, known in pairs],
        [best_of(overlap, answer, known) for answer, known in pairs],
    )


def _likely_sentence(question: Question) -> str:
    asked = set(normalised(question.question).split())
    sentences = SENTENCE.split(question.context)
    return max(sentences, key=lambda each: len(asked & set(normalised(each).split())))


def text(found: dict[str, Any]) -> str:
    """Return the measures as lines for people."""
    f1, right = found["f1"], found["exact_match"]
    score = metrics.Score(**{k: v for k, v in right.items() if k not in ("confidence", "baseline")})
    interval = "" if f1["low"] is None else f"95 % interval {f1['low']:.4f}–{f1['high']:.4f}, "
    lines = [
        f"exact match {score.text()[:-1]}; without a model {right['baseline']:.4f})",
        f"F1 {f1['value']:.4f} ({interval}n = {f1['n']:,}; without a model {f1['baseline']:.4f})",
    ]
    for name in ("answerable", "unanswerable"):
        if name in found:
            part = found[name]
            lines.append(
                f"{name}: exact match {part['exact_match']:.4f}, F1 {part['f1']:.4f} "
                f"(n = {part['n']:,})"
            )
    return "\n".join(lines)
