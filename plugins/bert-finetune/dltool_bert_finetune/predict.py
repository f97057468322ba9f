"""Use a trained model on texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from dltool import device as devices
from dltool.console import Console
from dltool.errors import ConfigError
from dltool_bert_finetune import answering, inputs, measures, outputs, tasks, words
from dltool_bert_finetune import folder as model_folder
from dltool_bert_finetune.answering import Found
from dltool_bert_finetune.folder import Loaded
from dltool_bert_finetune.inputs import Wanted

SHOWN = 70


def predict_texts(folder: Path, wanted: Wanted, *, top: int, device: str, console: Console) -> None:
    """Say what the model says to each text, and print one line for each."""
    choice = devices.choose(device)
    loaded = model_folder.load(folder, choice.device)
    if loaded.targets.by_token:
        by_token = _entities if loaded.targets.task == "token" else _answers
        rows, lines = by_token(loaded, wanted, top, console)
        result = {"run": str(folder), "task": loaded.targets.task, "predictions": rows}
        console.result(result, "\n".join(lines))
        return
    texts, seconds = inputs.read(wanted, paired=loaded.paired)
    rows = predictions(loaded, texts, seconds, top)
    for row in rows:
        if row["cut"]:
            shown = f"{row['text'][:40]!r}…"
            console.warn(f"{shown} is longer than {loaded.tokeniser.max_length} tokens and was cut")
    result = {"run": str(folder), "task": loaded.targets.task, "predictions": rows}
    console.result(result, "\n".join(_line(row, loaded) for row in rows))


def _entities(
    loaded: Loaded, wanted: Wanted, top: int, console: Console
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the entities of each text."""
    if wanted.pair or top > 1:
        raise ConfigError("E205", "--pair and --top mean nothing for a model that tags words")
    texts, spans = inputs.read_words(wanted, console)
    rows = [words.row(each, loaded.targets.classes) for each in words.tag(loaded, texts, spans)]
    return rows, [words.line(row) for row in rows]


def _answers(
    loaded: Loaded, wanted: Wanted, top: int, console: Console
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the answer to each question."""
    asked = inputs.read_questions(wanted, console)
    stride = tasks.stride_of(loaded.stride, loaded.tokeniser.max_length)
    windows = answering.encode(loaded.tokeniser, asked, stride)
    if windows.cut:
        limit = loaded.tokeniser.max_length // 4
        console.warn(f"{windows.cut:,} questions longer than {limit} tokens were cut")
    logits = outputs.of(loaded.network, loaded.tokeniser, windows.tokens, by_token=True)
    rows, lines = [], []
    found = answering.answers(logits, windows, asked, loaded.targets, top)
    for question, ranked in zip(asked, found, strict=True):
        best = [each.as_dict() for each in ranked]
        rows.append({"question": question.question, **best[0], "top": best})
        lines += [_answer_line(each) for each in ranked]
    return rows, lines


def _answer_line(found: Found) -> str:
    if found.start == answering.OUTSIDE:
        return f"{found.probability:.4f}  –  (the text does not say)"
    text = " ".join(found.text.split())
    return f"{found.probability:.4f}  {text}  [{found.start}–{found.end}]"


def predictions(
    loaded: Loaded, texts: list[str], seconds: list[str], top: int
) -> list[dict[str, Any]]:
    """Return one row a text, in order; a text without a character has no prediction."""
    full = [i for i, text in enumerate(texts) if text.strip()]
    rows: list[dict[str, Any]] = [
        {"text": text, "cut": False, "problem": "the text is empty"} for text in texts
    ]
    if not full:
        return rows
    first = [texts[i] for i in full]
    second = [seconds[i] for i in full] if seconds else []
    encoded = loaded.tokeniser.encode(first, second)
    logits = outputs.of(loaded.network, loaded.tokeniser, encoded, by_token=False)
    shares = measures.probabilities(logits, loaded.targets)
    lengths = encoded.lengths
    for place, number in enumerate(full):
        longest = int(lengths[place]) >= loaded.tokeniser.max_length
        cut = longest and bool(
            loaded.tokeniser.encode([first[place]], second[place : place + 1]).cut
        )
        rows[number] = {"text": texts[number], **_answer(shares[place], loaded, top), "cut": cut}
        if seconds:
            rows[number]["second"] = seconds[number]
    return rows


def _answer(shares: Tensor, loaded: Loaded, top: int) -> dict[str, Any]:
    targets = loaded.targets
    if targets.task == "regress":
        return {"value": round(float(shares[0]), 6)}
    values, order = shares.topk(min(top, len(targets.classes)))
    best = [
        {"label": targets.classes[number], "probability": round(value, 6)}
        for value, number in zip(values.tolist(), order.tolist(), strict=True)
    ]
    if targets.task == "multilabel":
        said = [name for name, p in zip(targets.classes, shares.tolist(), strict=True) if p > 0.5]
        return {"labels": said, "top": best}
    return {**best[0], "top": best}


def _line(row: dict[str, Any], loaded: Loaded) -> str:
    text = " ".join(row["text"].split())
    shown = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    if "problem" in row:
        return f"–  ({row['problem']})"
    if loaded.targets.task == "regress":
        return f"{row['value']:.4f}  {shown}"
    if loaded.targets.task == "multilabel":
        return f"{', '.join(row['labels']) or '–'}  {shown}"
    return "  ".join(f"{item['label']} {item['probability']:.4f}" for item in row["top"]) + (
        f"  {shown}"
    )
