"""Measure a trained model on its own splits or on another file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltool import device as devices
from dltool import metrics, plots, runs
from dltool.console import Console
from dltool.errors import CheckFailed, ConfigError
from dltool_bert_finetune import columns as files
from dltool_bert_finetune import data as text_data
from dltool_bert_finetune import folder as model_folder
from dltool_bert_finetune import measures, tokens
from dltool_bert_finetune.columns import Columns, Examples
from dltool_bert_finetune.config import TrainConfig
from dltool_bert_finetune.folder import Loaded
from dltool_bert_finetune.train import logits_of

SPLITS = ("test", "val", "train")
SHOWN = 100


@dataclass(frozen=True)
class Request:
    """What to measure: a split of the run's data or a file, and what to show and demand."""

    data: str | None
    split: str
    text: str
    second: str
    label: str
    hardest: int
    min_accuracy: float | None
    plot: Path | None


def evaluate_run(folder: Path, request: Request, *, device: str, console: Console) -> None:
    """Evaluate a run or model folder and print the result.

    Raises:
        CheckFailed: the accuracy is below the one demanded.
    """
    if request.split not in SPLITS:
        raise ConfigError(
            "E206", f"--split {request.split!r} is not known", expected=", ".join(SPLITS)
        )
    choice = devices.choose(device)
    loaded = model_folder.load(folder, choice.device)
    if request.min_accuracy is not None and loaded.targets.task == "regress":
        raise ConfigError("E205", "--min-accuracy is for classes; this model predicts a number")
    examples, source = _examples(folder, loaded, request, console)
    values = loaded.targets.encode(examples)
    encoded = tokens.cached(loaded.tokeniser, examples.texts, examples.seconds, console)
    logits = logits_of(loaded.network, loaded.tokeniser, encoded)
    found = measures.of(logits, values, loaded.targets)
    result = {
        "run": str(folder),
        "data": source,
        "split": None if request.data else request.split,
        "task": loaded.targets.task,
        "texts": len(examples),
        "cut": encoded.cut,
        **found,
        "hardest": _hardest(examples, logits, values, loaded, request.hardest),
    }
    if "confusion" in found:
        name = "data" if request.data else request.split
        picture = request.plot or folder / f"confusion-{name}.png"
        matrix = torch.tensor(found["confusion"])
        plots.confusion_matrix(matrix, loaded.targets.classes, picture, f"{source}, {name}")
        result["plot"] = str(picture)
    console.result(result, _text(result, loaded))
    least = request.min_accuracy
    if least is not None and found["accuracy"]["value"] < least:
        raise CheckFailed("E601", f"accuracy {found['accuracy']['value']:.4f} is below {least}")


def _examples(
    folder: Path, loaded: Loaded, request: Request, console: Console
) -> tuple[Examples, str]:
    if request.data is not None:
        given = Columns(request.text, request.second, request.label)
        chosen = files.infer(request.data, given, encoding="utf-8", paired=loaded.paired)
        chosen = chosen if loaded.paired else Columns(chosen.text, "", chosen.label)
        console.note(f"{request.data}: {chosen.named()}")
        read = files.read(request.data, chosen, encoding="utf-8")
        return text_data.usable(read, request.data, console), request.data
    if not (folder / "config.json").exists() or not (folder / "run.json").exists():
        raise ConfigError("E205", f"{folder} is no run and names no data", cure="add --data FILE")
    config, _ = runs.read_config(folder, TrainConfig)
    return text_data.load(config, console).splits[request.split], config.data


def _hardest(
    examples: Examples, logits: Tensor, values: Tensor, loaded: Loaded, count: int
) -> list[dict[str, Any]]:
    """Return the texts with the greatest loss, with what was said and what is true."""
    count = min(count, len(examples))
    found = measures.losses(logits, values, loaded.targets)
    shares = measures.probabilities(logits, loaded.targets)
    rows = []
    for number in found.topk(count).indices.tolist():
        said: Any = round(float(shares[number, 0]), 4)
        if loaded.targets.task == "classify":
            said = loaded.targets.classes[int(shares[number].argmax())]
        elif loaded.targets.task == "multilabel":
            pairs = zip(loaded.targets.classes, shares[number].tolist(), strict=True)
            said = [name for name, share in pairs if share > 0.5]
        rows.append(
            {
                "text": examples.texts[number],
                "place": examples.places[number],
                "true": examples.labels[number],
                "said": said,
                "loss": round(float(found[number]), 4),
            }
        )
    return rows


def _text(result: dict[str, Any], loaded: Loaded) -> str:
    parts = [measures.text(result, loaded.targets)]
    if "confusion" in result:
        matrix = torch.tensor(result["confusion"])
        parts.append(metrics.text_report(matrix, loaded.targets.classes))
    if result["hardest"]:
        lines = [
            f"{row['place']}: {row['true']}, said {row['said']} (loss {row['loss']:.2f}): "
            f"{' '.join(row['text'].split())[:SHOWN]}"
            for row in result["hardest"]
        ]
        parts.append("hardest texts\n" + "\n".join(lines))
    if "plot" in result:
        parts.append(f"confusion matrix: {result['plot']}")
    return "\n\n".join(parts)
