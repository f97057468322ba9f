"""Use a trained classifier on texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from dltool import device as devices
from dltool.console import Console
from dltool_bert_finetune import folder as model_folder
from dltool_bert_finetune import inputs, measures
from dltool_bert_finetune.folder import Loaded
from dltool_bert_finetune.inputs import Wanted
from dltool_bert_finetune.train import logits_of

SHOWN = 70


def predict_texts(folder: Path, wanted: Wanted, *, top: int, device: str, console: Console) -> None:
    """Name the class of each text and print one line for each."""
    choice = devices.choose(device)
    loaded = model_folder.load(folder, choice.device)
    texts, seconds = inputs.read(wanted, paired=loaded.paired)
    rows = predictions(loaded, texts, seconds, top)
    for row in rows:
        if row["cut"]:
            shown = f"{row['text'][:40]!r}…"
            console.warn(f"{shown} is longer than {loaded.tokeniser.max_length} tokens and was cut")
    result = {"run": str(folder), "task": loaded.targets.task, "predictions": rows}
    console.result(result, "\n".join(_line(row, loaded) for row in rows))


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
    shares = measures.probabilities(
        logits_of(loaded.network, loaded.tokeniser, encoded), loaded.targets
    )
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
