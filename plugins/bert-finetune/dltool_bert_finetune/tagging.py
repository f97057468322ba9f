"""Words to word pieces and back: each word is labelled and read at its first piece.

The words of a sentence are joined with spaces and tokenised as any other text, so that training
sees what a user's text will give. Long sentences go through the network in windows that overlap; a
word belongs to the window in which it stands farthest from an edge, and counts there alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltool.errors import DataError
from dltool_bert_finetune import entities
from dltool_bert_finetune.tagging_data import OUTSIDE, Sentences
from dltool_bert_finetune.targets import Targets
from dltool_bert_finetune.tokens import CHUNK, IGNORED, Numbers, Tokeniser, Tokens

# one character of Chinese or Japanese, a run of letters with what joins them, or a sign by itself
WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
    r"|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff](?:[^\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]*"
    r"[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff])?"
    r"|[^\w\s]"
)
NOWHERE = -1


@dataclass(frozen=True)
class WordPieces:
    """Sentences as the network reads them.

    Attributes:
        tokens: of the windows, one sentence after the other.
        places: (all words,) where in `tokens.ids` the first piece of each word stands, or NOWHERE
            for a word that the tokeniser leaves nothing of.
    """

    tokens: Tokens
    places: Numbers


@dataclass(frozen=True)
class Span:
    """A word of a text with the characters that it takes, `end` not included."""

    start: int
    end: int


def spans_of_words(words: Sequence[str]) -> list[Span]:
    """Return where words stand once they are joined with spaces."""
    spans, place = [], 0
    for word in words:
        spans.append(Span(place, place + len(word)))
        place += len(word) + 1
    return spans


def spans_in(text: str) -> list[Span]:
    """Return the words of a text as it was written: runs of letters, and each sign by itself."""
    return [Span(*found.span()) for found in WORD.finditer(text)]


def encode(
    tokeniser: Tokeniser, texts: Sequence[str], spans: Sequence[Sequence[Span]], stride: int
) -> WordPieces:
    """Return windows of texts and the place of each word's first piece.

    Args:
        stride: tokens that two windows of a long text share.
    """
    backend = tokeniser.windowed(stride)
    ids: list[Numbers] = []
    segments: list[Numbers] = []
    ends: list[int] = []
    places: list[Numbers] = []
    begun = long = 0
    for start in range(0, len(texts), CHUNK):
        chunk = list(texts[start : start + CHUNK])
        for encoded, words in zip(
            backend.encode_batch(chunk), spans[start : start + CHUNK], strict=True
        ):
            windows = [encoded, *encoded.overflowing]
            long += len(windows) > 1
            places.append(_first_pieces(windows, words, begun))
            for window in windows:
                ids.append(np.array(window.ids, dtype=np.int32))
                segments.append(np.array(window.type_ids, dtype=np.uint8))
                begun += len(window.ids)
                ends.append(begun)
    flat = np.concatenate(segments) if tokeniser.segments else np.zeros(0, np.uint8)
    tokens = Tokens(np.concatenate(ids), flat, np.array(ends, dtype=np.int64), long)
    return WordPieces(tokens, np.concatenate(places))


def _first_pieces(windows: Sequence[Any], words: Sequence[Span], begun: int) -> Numbers:
    """Return the place of each word's first piece, counted from `begun`, in its own window."""
    starts = np.array([word.start for word in words], dtype=np.int64)
    ends = np.array([word.end for word in words], dtype=np.int64)
    places = np.full(len(words), NOWHERE, dtype=np.int64)
    room = np.full(len(words), -1.0)
    for number, window in enumerate(windows):
        at, which = _words_begun(window, starts, ends, is_first=number == 0)
        # how far from an edge at which the text goes on elsewhere
        left = at if number else np.full(len(at), math.inf)
        right = len(window.ids) - at
        right = right if number < len(windows) - 1 else np.full(len(at), math.inf)
        reach = np.minimum(left, right)
        is_better = reach > room[which]
        room[which[is_better]] = reach[is_better]
        places[which[is_better]] = begun + at[is_better]
        begun += len(window.ids)
    return places


def _words_begun(
    window: Any, starts: Numbers, ends: Numbers, *, is_first: bool
) -> tuple[Numbers, Numbers]:
    """Return the places in a window at which a word begins, and the numbers of these words."""
    offsets = np.array(window.offsets, dtype=np.int64).reshape(-1, 2)
    is_text = (np.array(window.special_tokens_mask) == 0) & (offsets[:, 1] > offsets[:, 0])
    at = np.nonzero(is_text)[0]
    first, last = offsets[at, 0], offsets[at, 1]
    # the first word that ends behind the piece's begin; a piece may hold the space before a word
    which = np.searchsorted(ends, first, side="right")
    known = which < len(starts)
    known[known] = starts[which[known]] < last[known]
    at, which, first = at[known], which[known], first[known]
    is_new = np.ones(len(at), dtype=bool)
    is_new[1:] = which[1:] != which[:-1]
    if len(at) and not is_first:  # a later window may begin in the middle of a word
        is_new[0] = first[0] <= starts[which[0]]
    return at[is_new], which[is_new]


def labels(pieces: WordPieces, sentences: Sentences, targets: Targets) -> Tensor:
    """Return the class at the first piece of each word and IGNORED elsewhere (all tokens,).

    Raises:
        DataError: E506, a tag that the training data does not have; with its file and line.
    """
    known = {name: number for number, name in enumerate(targets.classes)}
    found = torch.full((len(pieces.tokens.ids),), IGNORED, dtype=torch.int64)
    for tags, place in zip(sentences.tags, sentences.places, strict=True):
        for tag in tags:
            if tag not in known:
                raise DataError(
                    "E506",
                    f"{place}: the tag {tag[:60]!r} does not occur in the training data",
                    expected=f"one of {', '.join(targets.classes[:20])}",
                    cure="correct the tag, or add training sentences with it",
                )
    numbers = torch.tensor([known[tag] for tags in sentences.tags for tag in tags])
    places = torch.tensor(pieces.places)
    is_there = places != NOWHERE
    found[places[is_there]] = numbers[is_there]
    return found


def tags_of(
    logits: Tensor, pieces: WordPieces, counts: Sequence[int], classes: Sequence[str]
) -> tuple[list[list[str]], list[list[float]]]:
    """Return the likeliest tag of each word and its probability, sentence by sentence.

    Args:
        logits: (all tokens, C).
        counts: words of each sentence.
    """
    places = torch.tensor(pieces.places)
    shares = logits[places.clamp_min(0)].double().softmax(1)
    best, numbers = shares.max(1)
    otherwise = OUTSIDE if OUTSIDE in classes else classes[0]
    flat = [
        (classes[number], share) if place != NOWHERE else (otherwise, 0.0)
        for number, share, place in zip(
            numbers.tolist(), best.tolist(), places.tolist(), strict=True
        )
    ]
    ends = np.cumsum([0, *counts]).tolist()
    rows = [flat[start:stop] for start, stop in pairwise(ends)]
    return [[tag for tag, _ in row] for row in rows], [[share for _, share in row] for row in rows]


def settle(train: Sentences) -> Targets:
    """Return the classes of words: O first, then the two tags of each type of entity.

    Raises:
        DataError: E503, the training sentences hold one tag only.
    """
    seen = {tag for tags in train.tags for tag in tags}
    kinds = sorted({tag[2:] for tag in seen if tag[:2] in ("B-", "I-")})
    if entities.are_entities(seen):
        names = [OUTSIDE, *(f"{mark}-{kind}" for kind in kinds for mark in "BI")]
    else:
        names = sorted(seen, key=lambda name: (name != OUTSIDE, name))
    if len(names) < 2:
        raise DataError(
            "E503",
            f"the words of the training sentences all have the tag {names[0]!r}",
            expected="at least two tags",
            cure="name the column of the tags with --label",
        )
    return Targets("token", tuple(names))
