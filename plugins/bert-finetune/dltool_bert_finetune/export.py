"""Write a model for other programs, and check that it answers there as it does here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltool import device as devices
from dltool import files, manifests, ranges
from dltool import tensors as tensor_files
from dltool.console import Console
from dltool.errors import CheckFailed, ConfigError
from dltool_bert_finetune import folder as model_folder
from dltool_bert_finetune import library, measures, model, onnx_export, outputs
from dltool_bert_finetune.folder import Loaded

LIMIT = 1e-4
FORMATS = ("hub", "onnx")
PROBES = (
    "The soup was good.",
    "not good at all, and far too long: we left before the end.",
    "42",
    "word " * 600,
)
PIPELINES = {"token": "token-classification", "qa": "question-answering"}


def export_run(folder: Path, out: Path, kind: str, *, device: str, console: Console) -> None:
    """Write a folder in the layout of the Hub or with an ONNX graph, load it again and compare.

    Raises:
        ConfigError: E204, the folder is there and not empty.
        CheckFailed: E601, the exported model answers otherwise.
    """
    ranges.one_of("--format", kind, FORMATS)
    if kind == "onnx" and device not in ("cpu", "auto"):
        raise ConfigError("E205", "an ONNX graph is written and compared on the CPU")
    device = "cpu" if kind == "onnx" else device
    choice = devices.choose(device)
    loaded = model_folder.load(folder, choice.device)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("E204", f"{out} exists already", cure="choose another folder with --out")
    with files.folder_written_atomically(out) as temporary:
        _write(temporary, loaded, kind)
        theirs = _by_onnx if kind == "onnx" else _by_transformers
        worst = _compare(temporary, loaded, theirs(temporary, loaded, choice.device))
    names = sorted(path.name for path in out.iterdir())
    result = {
        "run": str(folder),
        "out": str(out),
        "files": names,
        "largest_difference": worst,
        "checked_texts": len(PROBES),
    }
    reader = "onnxruntime" if kind == "onnx" else "transformers"
    text = (
        f"{out}: {', '.join(names)}\n"
        f"{reader} gives the same probabilities for {len(PROBES)} texts "
        f"(largest difference {worst:.1e})"
    )
    console.result(result, text)
    if kind == "hub":
        console.note(_use(loaded.targets.task, str(out)))


def _use(task: str, out: str) -> str:
    if task == "qa":  # transformers 5 has given its pipeline up
        return f"use it: transformers.AutoModelForQuestionAnswering.from_pretrained({out!r})"
    more = ", aggregation_strategy='first'" if task == "token" else ""
    name = PIPELINES.get(task, "text-classification")
    return f"use it: transformers.pipeline({name!r}, model={out!r}{more})"


def _write(folder: Path, loaded: Loaded, kind: str) -> None:
    texts = {
        **loaded.tokeniser.files(),
        "config.json": model_folder.config_text(loaded.network),
        "README.md": _card(loaded).encode(),
    }
    if kind == "onnx":
        onnx_export.write(folder, loaded)
    else:
        weights, _ = tensor_files.without_ties(dict(loaded.network.state_dict()))
        tensor_files.write(folder / manifests.MODEL, weights)
    for name, text in texts.items():
        files.write_synced(folder / name, text)


def _card(loaded: Loaded) -> str:
    """Return the model card: what the model does, from what it came, how good it was."""
    targets, description = loaded.targets, loaded.description
    otherwise = "the answer in a text" if targets.task == "qa" else "a number"
    classes = ", ".join(targets.classes) or otherwise
    results = (description.get("results") or {}).get("headline", "not measured")
    source = (description.get("source") or {}).get("model", "unknown")
    return (
        "---\nlibrary_name: transformers\n"
        f"pipeline_tag: {PIPELINES.get(targets.task, 'text-classification')}\n---\n\n"
        f"# Text encoder with a head ({targets.task})\n\n"
        f"- predicts: {classes}\n"
        f"- began from: {source}\n"
        f"- reads {loaded.tokeniser.max_length} tokens at most\n"
        f"- test: {results}\n"
    )


def _seconds(loaded: Loaded) -> list[str]:
    return list(PROBES[::-1]) if loaded.paired or loaded.targets.task == "qa" else []


def _by_transformers(folder: Path, loaded: Loaded, device: torch.device) -> Tensor:
    """Return logits as another program gets them from the folder, padding left out."""
    transformers = library.load("transformers")
    with model.explained(str(folder)):
        network = model.kind_for(loaded.targets.task).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        tokeniser = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    encoded = tokeniser(
        list(PROBES),
        _seconds(loaded) or None,
        truncation=True,
        padding=True,
        return_tensors="pt",
    ).to(device)
    with torch.no_grad():
        logits = model.forward(network.to(device).eval(), dict(encoded)).float()
    if loaded.targets.by_token:
        logits = logits[encoded["attention_mask"] != 0]
    return logits.cpu()


def _by_onnx(folder: Path, loaded: Loaded, device: torch.device) -> Tensor:
    return onnx_export.logits_of(folder, loaded, list(PROBES), _seconds(loaded))


def _compare(folder: Path, loaded: Loaded, theirs: Tensor) -> float:
    """Return the largest difference of a probability between another program and us."""
    encoded = loaded.tokeniser.encode(list(PROBES), _seconds(loaded))
    by_token = loaded.targets.by_token
    ours = outputs.of(loaded.network, loaded.tokeniser, encoded, by_token=by_token)
    mine, others = (measures.probabilities(part, loaded.targets) for part in (ours, theirs))
    worst = float((mine - others).abs().max() / max(1.0, float(mine.abs().max())))
    saved: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = [saved["id2label"][str(number)] for number in range(len(saved["id2label"]))]
    if worst > LIMIT or (loaded.targets.classes and tuple(names) != loaded.targets.classes):
        raise CheckFailed(
            "E601",
            f"the exported model answers otherwise: probabilities differ by {worst:.2g} (limit "
            f"{LIMIT:g})",
            cure="report this; nothing was written",
        )
    return worst
