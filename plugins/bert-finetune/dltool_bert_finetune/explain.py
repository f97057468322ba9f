"""Which words an answer hangs on: each word is hidden in turn, and the change is shown.

Occlusion (Zeiler and Fergus, 2014; for text Li et al., 2016, https://arxiv.org/abs/1612.08220): a
word weighs what the log-probability of the answer loses when [MASK] stands in its place. The model
itself is asked, with no gradient and no approximation.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltool import device as devices
from dltool import files
from dltool.console import Console, table
from dltool.errors import ConfigError, DataError
from dltool_bert_finetune import folder as model_folder
from dltool_bert_finetune import outputs
from dltool_bert_finetune.folder import Loaded
from dltool_bert_finetune.tokens import Tokens


@dataclass(frozen=True)
class Word:
    """A word of the text, with its pieces' places among the tokens."""

    text: str
    start: int
    end: int
    places: tuple[int, ...]


def explain_text(
    folder: Path,
    text: str,
    *,
    pair: str,
    label: str,
    out: Path | None,
    device: str,
    console: Console,
) -> None:
    """Print how much each word speaks for a class.

    Raises:
        ConfigError: the class is not known, or texts do not fit the model.
        DataError: E503, the text is empty.
    """
    loaded = model_folder.load(folder, devices.choose(device).device)
    if loaded.targets.by_token:
        raise ConfigError(
            "E205",
            f"explain is for one answer a text; this model's task is {loaded.targets.task}",
            cure="predict shows each entity or answer with its probability and its place",
        )
    if loaded.paired != bool(pair):
        needs = "pairs of texts: add --pair" if loaded.paired else "single texts: leave --pair out"
        raise ConfigError("E205", f"this model reads {needs}")
    if not text.strip():
        raise DataError("E503", "the text is empty", cure="give a text")
    if out is not None and out.suffix != ".html":
        raise ConfigError("E202", "--out ends in .html", received=str(out))
    words, ids, segments = _words(loaded, text, pair)
    values = _values(loaded, words, ids, segments)  # (1 + words, C)
    number = _class(loaded, label, values[0])
    weights = (values[0, number] - values[1:, number]).tolist()
    name = loaded.targets.classes[number] if loaded.targets.classes else "value"
    result: dict[str, Any] = {
        "run": str(folder),
        "text": text,
        "label": name,
        "score": round(float(values[0, number]), 6),
        "words": [
            {"word": word.text, "weight": round(weight, 6)}
            for word, weight in zip(words, weights, strict=True)
        ],
    }
    if out is not None:
        files.write_bytes_atomic(out, _page(text, words, weights, name).encode())
        result["html"] = str(out)
    console.result(result, _lines(result, loaded))


def _words(loaded: Loaded, text: str, pair: str) -> tuple[list[Word], list[int], list[int]]:
    """Return the words of the first text, and the tokens of the whole input."""
    backend = loaded.tokeniser.backend
    encoded = backend.encode(text, pair) if pair else backend.encode(text)
    pieces: dict[int, list[int]] = {}
    for place, (word, sequence) in enumerate(
        zip(encoded.word_ids, encoded.sequence_ids, strict=True)
    ):
        if word is not None and sequence == 0:
            pieces.setdefault(word, []).append(place)
    words = []
    for places in pieces.values():
        start, end = encoded.offsets[places[0]][0], encoded.offsets[places[-1]][1]
        words.append(Word(text[start:end].strip(), start, end, tuple(places)))
    return words, list(encoded.ids), list(encoded.type_ids)


def _values(loaded: Loaded, words: list[Word], ids: list[int], segments: list[int]) -> Tensor:
    """Return log-probabilities (1 + words, C): of the text, then with each word hidden."""
    mask = loaded.tokeniser.library.mask_token_id
    hidden = loaded.tokeniser.library.unk_token_id if mask is None else mask
    rows = [list(ids)]
    for word in words:
        row = list(ids)
        for place in word.places:
            row[place] = hidden
        rows.append(row)
    flat = np.array([token for row in rows for token in row], dtype=np.int32)
    kinds = np.array(segments * len(rows), dtype=np.uint8)
    ends = np.arange(1, len(rows) + 1, dtype=np.int64) * len(ids)
    encoded = Tokens(flat, kinds if loaded.tokeniser.segments else kinds[:0], ends, 0)
    logits = outputs.of(loaded.network, loaded.tokeniser, encoded, by_token=False).double()
    if loaded.targets.task == "regress":
        return logits
    if loaded.targets.task == "multilabel":
        return torch.nn.functional.logsigmoid(logits)
    return logits.log_softmax(1)


def _class(loaded: Loaded, label: str, values: Tensor) -> int:
    classes = loaded.targets.classes
    if not label:
        return int(values.argmax())
    if label not in classes:
        raise ConfigError(
            "E206", f"--label {label!r} is no class of the model", expected=", ".join(classes)
        )
    return classes.index(label)


def _lines(result: dict[str, Any], loaded: Loaded) -> str:
    largest = max((abs(row["weight"]) for row in result["words"]), default=0.0) or 1.0
    rows = [
        [row["word"], f"{row['weight']:+.4f}", _bar(row["weight"] / largest)]
        for row in result["words"]
    ]
    what = "value" if loaded.targets.task == "regress" else "log-probability"
    head = f"{result['label']}: {what} {result['score']:.4f}"
    return f"{head}\n" + table(rows, ("word", "weight", "without it the answer loses"))


def _bar(share: float) -> str:
    return ("+" if share > 0 else "-") * round(abs(share) * 20)


def _page(text: str, words: list[Word], weights: list[float], name: str) -> str:
    """Return a page that shows the text, words for the class in blue and against it in red."""
    largest = max(map(abs, weights), default=0.0) or 1.0
    parts, place = [], 0
    for word, weight in zip(words, weights, strict=True):
        colour = "30,100,220" if weight > 0 else "220,60,40"
        style = f"background:rgba({colour},{abs(weight) / largest:.3f})"
        parts.append(html.escape(text[place : word.start]))
        shown = html.escape(text[word.start : word.end])
        parts.append(f'<span style="{style}" title="{weight:+.4f}">{shown}</span>')
        place = word.end
    parts.append(html.escape(text[place:]))
    return (
        '<!doctype html>\n<html><head><meta charset="utf-8"><title>'
        f"{html.escape(name)}</title></head>\n"
        '<body style="font:18px/1.8 sans-serif;max-width:45em;margin:2em auto">\n'
        f"<p>Words that speak for <b>{html.escape(name)}</b> are blue, those against it red.</p>\n"
        f"<p>{''.join(parts)}</p>\n</body></html>\n"
    )
