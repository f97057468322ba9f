"""Use a model that tags words: entities with their places in the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dltool_bert_finetune import entities, outputs, tagging, tasks
from dltool_bert_finetune.folder import Loaded
from dltool_bert_finetune.tagging import Span


@dataclass(frozen=True)
class Tagged:
    """A text with its words and what was said to them."""

    text: str
    spans: Sequence[Span]
    tags: list[str]
    shares: list[float]


def tag(loaded: Loaded, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[Tagged]:
    """Return the tags of texts whose words stand at `spans`; a text without words has none."""
    full = [number for number, each in enumerate(spans) if each]
    said: dict[int, tuple[list[str], list[float]]] = {}
    if full:
        stride = tasks.stride_of(loaded.stride, loaded.tokeniser.max_length)
        own = [spans[number] for number in full]
        pieces = tagging.encode(loaded.tokeniser, [texts[i] for i in full], own, stride)
        logits = outputs.of(loaded.network, loaded.tokeniser, pieces.tokens, by_token=True)
        counts = [len(each) for each in own]
        tags, shares = tagging.tags_of(logits, pieces, counts, loaded.targets.classes)
        said = {number: (tags[row], shares[row]) for row, number in enumerate(full)}
    return [
        Tagged(text, spans[number], *said.get(number, ([], [])))
        for number, text in enumerate(texts)
    ]


def found_in(tagged: Tagged, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the entities of a text; the probability is the mean of their words'."""
    rows = []
    for each in entities.of(tagged.tags, grouped=entities.are_entities(classes)):
        start, end = tagged.spans[each.first].start, tagged.spans[each.last].end
        shares = tagged.shares[each.first : each.last + 1]
        rows.append(
            {
                "label": each.kind,
                "text": tagged.text[start:end],
                "start": start,
                "end": end,
                "probability": round(sum(shares) / len(shares), 6),
            }
        )
    return rows


def row(tagged: Tagged, classes: Sequence[str]) -> dict[str, Any]:
    """Return what `predict --json` says of a text."""
    if not tagged.spans:
        return {"text": tagged.text, "entities": [], "problem": "the text is empty"}
    return {"text": tagged.text, "entities": found_in(tagged, classes)}


def line(found: dict[str, Any]) -> str:
    """Return a text's entities as one line for people."""
    if "problem" in found:
        return f"–  ({found['problem']})"
    shown = [
        f"{each['text']} [{each['label']} {each['start']}–{each['end']}, {each['probability']:.4f}]"
        for each in found["entities"]
    ]
    return "  ".join(shown) or "–  (nothing found)"
