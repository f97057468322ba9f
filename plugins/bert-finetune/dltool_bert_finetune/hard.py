"""The examples that a model gets most wrong."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dltool_bert_finetune import entities, measures, tasks
from dltool_bert_finetune.columns import Examples
from dltool_bert_finetune.tagging_data import Sentences
from dltool_bert_finetune.targets import Targets
from dltool_bert_finetune.tasks import Inputs


def texts(inputs: Inputs, logits: Tensor, targets: Targets, count: int) -> list[dict[str, Any]]:
    """Return the texts with the greatest loss, with what was said and what is true."""
    source = inputs.source
    assert isinstance(source, Examples)
    found = measures.losses(logits, inputs.values, targets)
    shares = measures.probabilities(logits, targets)
    rows = []
    for number in found.topk(min(count, len(source))).indices.tolist():
        said: Any = round(float(shares[number, 0]), 4)
        if targets.task == "classify":
            said = targets.classes[int(shares[number].argmax())]
        elif targets.task == "multilabel":
            pairs = zip(targets.classes, shares[number].tolist(), strict=True)
            said = [name for name, share in pairs if share > 0.5]
        rows.append(
            {
                "text": source.texts[number],
                "place": source.places[number],
                "true": source.labels[number],
                "said": said,
                "loss": round(float(found[number]), 4),
            }
        )
    return rows


def by_token(inputs: Inputs, logits: Tensor, targets: Targets, count: int) -> list[dict[str, Any]]:
    """Return the sentences or questions with the greatest loss that were answered wrongly."""
    source = inputs.source
    assert not isinstance(source, Examples)
    found = tasks.losses(logits, inputs)
    if isinstance(source, Sentences):
        grouped = entities.are_entities(targets.classes)
        tags = tasks.said_tags(logits, inputs, targets)
        said: list[Any] = [
            _named(words, row, grouped) for words, row in zip(source.words, tags, strict=True)
        ]
        true: list[Any] = [
            _named(words, row, grouped)
            for words, row in zip(source.words, source.tags, strict=True)
        ]
        shown, places = source.texts, source.places
    else:
        said = tasks.said_answers(logits, inputs, targets)
        true = [row.answers[0].text if row.answers else "" for row in source.rows]
        shown = [row.question for row in source.rows]
        places = [row.place for row in source.rows]
    wrong = [number for number in range(len(said)) if said[number] != true[number]]
    order = sorted(wrong, key=lambda number: -float(found[number]))[:count]
    return [
        {
            "text": shown[number],
            "place": places[number],
            "true": true[number] or "nothing",
            "said": said[number] or "nothing",
            "loss": round(float(found[number]), 4),
        }
        for number in order
    ]


def _named(words: list[str], tags: list[str], grouped: bool) -> list[str]:
    return [
        f"{' '.join(words[each.first : each.last + 1])} [{each.kind}]"
        for each in entities.of(tags, grouped=grouped)
    ]
