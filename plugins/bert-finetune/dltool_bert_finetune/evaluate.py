"""Measure a trained model on its own splits or on another file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dltool import device as devices
from dltool import metrics, plots, runs
from dltool.console import Console, table
from dltool.errors import CheckFailed, ConfigError
from dltool_bert_finetune import answering_data, hard, outputs, tagging_data, tasks
from dltool_bert_finetune import columns as files
from dltool_bert_finetune import data as text_data
from dltool_bert_finetune import folder as model_folder
from dltool_bert_finetune.columns import Columns
from dltool_bert_finetune.config import TrainConfig
from dltool_bert_finetune.dataset import Split, TextData
from dltool_bert_finetune.folder import Loaded
from dltool_bert_finetune.targets import Targets

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
    min_f1: float | None
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
    _refuse_other_limits(request, loaded.targets)
    source, place, data = _source(folder, loaded, request, console)
    inputs = tasks.encode(loaded.tokeniser, source, loaded.targets, loaded.stride, console)
    by_token = loaded.targets.by_token
    logits = outputs.of(loaded.network, loaded.tokeniser, inputs.tokens, by_token=by_token)
    lexicon = tasks.lexicon_of(data) if data is not None else None
    found = tasks.measure(logits, inputs, loaded.targets, lexicon)
    hardest = hard.by_token if by_token else hard.texts
    result = {
        "run": str(folder),
        "data": place,
        "split": None if request.data else request.split,
        "task": loaded.targets.task,
        "texts": len(source),
        "cut": inputs.tokens.cut,
        **found,
        "hardest": hardest(inputs, logits, loaded.targets, request.hardest),
    }
    if "confusion" in found:
        name = "data" if request.data else request.split
        picture = request.plot or folder / f"confusion-{name}.png"
        matrix = torch.tensor(found["confusion"])
        plots.confusion_matrix(matrix, loaded.targets.classes, picture, f"{place}, {name}")
        result["plot"] = str(picture)
    elif request.plot is not None:
        raise ConfigError("E205", f"--task {loaded.targets.task} has no confusion matrix to draw")
    console.result(result, _text(result, loaded))
    for name, least in (("accuracy", request.min_accuracy), ("f1", request.min_f1)):
        if least is not None and found[name]["value"] < least:
            raise CheckFailed("E601", f"{name} {found[name]['value']:.4f} is below {least}")


def _refuse_other_limits(request: Request, targets: Targets) -> None:
    if request.min_accuracy is not None and targets.task in ("regress", "qa"):
        raise ConfigError("E205", f"--min-accuracy means nothing for --task {targets.task}")
    if request.min_f1 is not None and not targets.by_token:
        raise ConfigError("E205", f"--min-f1 means nothing for --task {targets.task}")


def _source(
    folder: Path, loaded: Loaded, request: Request, console: Console
) -> tuple[Split, str, TextData | None]:
    """Return what to measure on, what it is called, and all of the run's data where it is that."""
    if request.data is not None:
        return _from_file(request.data, loaded, request, console), request.data, None
    if not (folder / "config.json").exists() or not (folder / "run.json").exists():
        raise ConfigError("E205", f"{folder} is no run and names no data", cure="add --data FILE")
    config, _ = runs.read_config(folder, TrainConfig)
    data = text_data.load(config, console)
    return data.splits[request.split], config.data, data


def _from_file(source: str, loaded: Loaded, request: Request, console: Console) -> Split:
    given = Columns(request.text, request.second, request.label)
    if loaded.targets.task == "token":
        return tagging_data.read(source, given, encoding="utf-8", console=console)
    if loaded.targets.task == "qa":
        return answering_data.read(source, given, encoding="utf-8", console=console)
    chosen = files.infer(source, given, encoding="utf-8", paired=loaded.paired)
    chosen = chosen if loaded.paired else Columns(chosen.text, "", chosen.label)
    console.note(f"{source}: {chosen.named()}")
    read = files.read(source, chosen, encoding="utf-8")
    return text_data.usable(read, source, console)


def _text(result: dict[str, Any], loaded: Loaded) -> str:
    parts = [tasks.text(result, loaded.targets)]
    if "confusion" in result:
        matrix = torch.tensor(result["confusion"])
        parts.append(metrics.text_report(matrix, loaded.targets.classes))
    elif "classes" in result:
        parts.append(_by_class(result["classes"]))
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


def _by_class(rows: list[dict[str, Any]]) -> str:
    names = ("class", "precision", "recall", "f1", "support")
    shown = [["–" if row[name] is None else _rounded(row[name]) for name in names] for row in rows]
    return table(shown, names)


def _rounded(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else value
