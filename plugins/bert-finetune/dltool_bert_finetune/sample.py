"""A small set of labelled sentences that needs no network: made by a seeded grammar.

It is no real text and proves nothing about real reviews. It is there to try the commands on: the
label follows from word, negation and the clause after "but", so that counting words is not enough.
"""

from __future__ import annotations

import torch

from dltool.device import generator


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


NOUNS = _words(
    "soup bread fish cake tea coffee salad rice room bed view service music waiter garden lobby "
    "film story acting ending book plot camera scene actor song dance script sound picture"
)
GOOD = _words(
    "good great lovely excellent fine superb delightful wonderful charming pleasant splendid fresh"
)
BAD = _words("bad poor awful terrible dull dreadful boring horrible weak nasty stale disappointing")
DEGREES = ("", "", "very", "really", "quite", "truly")
TIMES = ("", "", "", "today", "last night", "as always", "this time", "once more")
COUNT = 3000
CLASSES = ("negative", "positive")


def reviews(count: int = COUNT, seed: int = 1) -> tuple[list[str], list[str]]:
    """Return different sentences and the name of the class of each, half of them of each class."""
    stream = generator(seed, "reviews")
    texts: dict[str, str] = {}
    kept = dict.fromkeys(CLASSES, 0)
    while len(texts) < count:
        text, is_good = _sentence(stream)
        label = CLASSES[is_good]
        if text not in texts and kept[label] < (count + 1) // 2:
            texts[text] = label
            kept[label] += 1
    return list(texts), list(texts.values())


def _draw(stream: torch.Generator, limit: int) -> int:
    return int(torch.randint(limit, (), generator=stream))


def _sentence(stream: torch.Generator) -> tuple[str, bool]:
    first, is_good = _clause(stream)
    if _draw(stream, 2):
        second, is_good = _clause(stream)
        first = f"{first} but {second}"
    time = TIMES[_draw(stream, len(TIMES))]
    return (f"{first} {time}".strip() + "."), is_good


def _clause(stream: torch.Generator) -> tuple[str, bool]:
    noun = NOUNS[_draw(stream, len(NOUNS))]
    is_good = bool(_draw(stream, 2))
    negated = _draw(stream, 4) == 0
    words = GOOD if is_good != negated else BAD
    word = words[_draw(stream, len(words))]
    degree = DEGREES[_draw(stream, len(DEGREES))]
    parts = ("the", noun, "was", "not" if negated else "", degree, word)
    return " ".join(part for part in parts if part), is_good
