"""Answers as spans of a text: windows over it, where an answer stands in them, and the best span.

A question goes with each window of its context; the network gives every token a number for "the
answer begins here" and one for "it ends here" (Devlin et al., 2018, section 4.2). A window without
the answer points to its first token. The best span is that with the largest sum of both numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltool.errors import ConfigError
from dltool_bert_finetune.answering_data import Answer, Question, Questions
from dltool_bert_finetune.targets import Targets
from dltool_bert_finetune.tokens import CHUNK, Numbers, Tokeniser, Tokens

OUTSIDE = -1
LEAST_LONGEST = 30  # tokens of an answer; longer ones only where the training data has them
CANDIDATES = 20
NARROWEST = 16


@dataclass(frozen=True)
class Windows:
    """Questions as the network reads them, each with one window of its context.

    Attributes:
        tokens: of N windows.
        question: (N,) the number of the question.
        offsets: (all tokens, 2) characters of the context that a token takes; OUTSIDE elsewhere.
        ends: (N, 2) bool, whether the window holds the begin and the end of its context.
        cut: questions that were longer than their share of a window.
    """

    tokens: Tokens
    question: Numbers
    offsets: Numbers
    ends: Numbers
    cut: int


@dataclass(frozen=True)
class Found:
    """A span of a context: its text, characters `start` to `end`, and its probability.

    The probability is that among all spans of the context that are not too long, and among them "no
    answer" where the model knows this; `start` is OUTSIDE for "no answer".
    """

    text: str
    start: int
    end: int
    probability: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        place = {"start": self.start, "end": self.end} if self.start != OUTSIDE else {}
        return {"answer": self.text, "probability": round(self.probability, 6), **place}


def encode(tokeniser: Tokeniser, questions: Sequence[Question], stride: int) -> Windows:
    """Return the windows of questions.

    Args:
        stride: tokens that two windows of a context share.
    """
    asked, cut = _shortened(tokeniser, [each.question for each in questions])
    backend = tokeniser.windowed(stride, only_second=True)
    parts: dict[str, list[Any]] = {name: [] for name in ("ids", "kinds", "of", "offsets", "ends")}
    long = 0
    for start in range(0, len(questions), CHUNK):
        chunk = range(start, min(start + CHUNK, len(questions)))
        pairs = [(asked[number], questions[number].context) for number in chunk]
        for number, encoded in zip(chunk, backend.encode_batch(pairs), strict=True):
            windows = [encoded, *encoded.overflowing]
            long += len(windows) > 1
            for place, window in enumerate(windows):
                offsets = np.array(window.offsets, dtype=np.int32).reshape(-1, 2)
                is_context = np.array([each == 1 for each in window.sequence_ids])
                is_context &= offsets[:, 1] > offsets[:, 0]
                offsets[~is_context] = OUTSIDE
                parts["ids"].append(np.array(window.ids, dtype=np.int32))
                parts["kinds"].append(np.array(window.type_ids, dtype=np.uint8))
                parts["of"].append(number)
                parts["offsets"].append(offsets)
                parts["ends"].append((place == 0, place == len(windows) - 1))
    lengths = np.array([len(row) for row in parts["ids"]], dtype=np.int64)
    kinds = np.concatenate(parts["kinds"]) if tokeniser.segments else np.zeros(0, np.uint8)
    tokens = Tokens(np.concatenate(parts["ids"]), kinds, lengths.cumsum(), long)
    return Windows(
        tokens,
        np.array(parts["of"], dtype=np.int64),
        np.concatenate(parts["offsets"]),
        np.array(parts["ends"], dtype=bool),
        cut,
    )


def refuse_narrow(max_length: int) -> None:
    """Refuse windows in which a question leaves no room for a text.

    Raises:
        ConfigError: E202.
    """
    if max_length < NARROWEST:
        raise ConfigError(
            "E202",
            f"--max-length {max_length} leaves no room for a question and a part of its context",
            expected=f"at least {NARROWEST}",
        )


def _shortened(tokeniser: Tokeniser, asked: Sequence[str]) -> tuple[list[str], int]:
    """Cut questions that would leave no room for a context; return how many there were."""
    limit = max(tokeniser.max_length // 4, 4)
    backend = tokeniser.whole
    found = []
    for text, encoded in zip(
        asked, backend.encode_batch(list(asked), add_special_tokens=False), strict=True
    ):
        is_long = len(encoded.ids) > limit
        found.append(text[: encoded.offsets[limit - 1][1]] if is_long else text)
    return found, sum(a != b for a, b in zip(found, asked, strict=True))


def labels(windows: Windows, questions: Questions) -> Tensor:
    """Return the places of the first and the last token of the answer in each window (N, 2)."""
    bounds = np.concatenate([[0], windows.tokens.ends])
    found = np.zeros((len(windows.tokens), 2), dtype=np.int64)
    for number, owner in enumerate(windows.question.tolist()):
        answers = questions.rows[owner].answers
        if answers:
            offsets = windows.offsets[bounds[number] : bounds[number + 1]]
            found[number] = _place(offsets, answers[0], *windows.ends[number].tolist())
    return torch.from_numpy(found)


def _place(offsets: Numbers, answer: Answer, has_begin: bool, has_end: bool) -> tuple[int, int]:
    """Return the tokens of an answer in a window; (0, 0) where it is not all in there."""
    at = np.nonzero(offsets[:, 0] != OUTSIDE)[0]
    if not len(at):
        return 0, 0
    first, last = offsets[at, 0], offsets[at, 1]
    stop = answer.start + len(answer.text)
    begin = int(np.searchsorted(last, answer.start, side="right"))
    end = int(np.searchsorted(first, stop, side="left")) - 1
    holds_begin = begin > 0 or has_begin or first[0] <= answer.start
    holds_end = end < len(at) - 1 or has_end or last[-1] >= stop
    if begin >= len(at) or end < begin or not (holds_begin and holds_end):
        return 0, 0
    return int(at[begin]), int(at[end])


def settle(train: Questions) -> Targets:
    """Return what is to be found: spans, or none where a question has no answer."""
    return Targets("qa", unanswerable=any(not row.answers for row in train.rows))


def longest_answer(values: Tensor, limit: int) -> int:
    """Return how many tokens an answer may have: as in training, but no fewer than 30."""
    longest = int((values[:, 1] - values[:, 0]).max()) + 1
    return min(max(longest, LEAST_LONGEST), limit)


def answers(
    logits: Tensor, windows: Windows, questions: Sequence[Question], targets: Targets, top: int = 1
) -> list[list[Found]]:
    """Return the best answers to each question, the likeliest first.

    Args:
        logits: (all tokens, 2), begin and end.
    """
    values = logits.double().numpy()
    bounds = np.concatenate([[0], windows.tokens.ends])
    own: list[list[int]] = [[] for _ in questions]
    for number, owner in enumerate(windows.question.tolist()):
        own[owner].append(number)
    return [
        _best(
            [
                (values[bounds[i] : bounds[i + 1]], windows.offsets[bounds[i] : bounds[i + 1]])
                for i in own[number]
            ],
            question.context,
            targets,
            top,
        )
        for number, question in enumerate(questions)
    ]


def _best(
    parts: Sequence[tuple[Numbers, Numbers]], context: str, targets: Targets, top: int
) -> list[Found]:
    """Return the best answers in the windows of one question."""
    scores: dict[tuple[int, int], float] = {}
    sums = []
    for values, offsets in parts:
        at = np.nonzero(offsets[:, 0] != OUTSIDE)[0]
        if not len(at):
            continue
        table = _spans(values[at, 0], values[at, 1], targets.longest)
        sums.append(_log_sum(table))
        flat = table.ravel()
        count = min(max(top, CANDIDATES), len(flat))
        for place in np.argpartition(-flat, count - 1)[:count].tolist():
            length, begin = divmod(place, len(at))
            if flat[place] > -np.inf:
                span = int(offsets[at[begin], 0]), int(offsets[at[begin + length], 1])
                scores[span] = max(scores.get(span, -np.inf), float(flat[place]))
    if targets.unanswerable or not scores:
        # every window must say so: the weakest one decides, as in SQuAD's own baseline
        nothing = min(float(values[0].sum()) for values, _ in parts)
        scores[OUTSIDE, OUTSIDE] = nothing
        sums.append(nothing)
    whole = _log_sum(np.array(sums))
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:top]
    return [
        Found(_trimmed(context, *span), *_bounds(context, *span), float(np.exp(score - whole)))
        for span, score in ranked
    ]


def _spans(begin: Numbers, end: Numbers, longest: int) -> Numbers:
    """Return begin + end of each span by its length and its first token (lengths, T)."""
    count = len(begin)
    table = np.full((min(longest, count), count), -np.inf)
    for length in range(len(table)):
        table[length, : count - length] = begin[: count - length] + end[length:]
    return table


def _log_sum(values: Numbers) -> float:
    largest = float(values.max())
    return largest + float(np.log(np.exp(values - largest).sum()))


def _bounds(context: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without the spaces that a token may hold before its word."""
    if start == OUTSIDE:
        return OUTSIDE, OUTSIDE
    text = context[start:end]
    return start + len(text) - len(text.lstrip()), end - (len(text) - len(text.rstrip()))


def _trimmed(context: str, start: int, end: int) -> str:
    begin, stop = _bounds(context, start, end)
    return "" if begin == OUTSIDE else context[begin:stop]
