"""Model folders that are both ours and the Hub's: verified by us, loaded by `transformers`.

model.safetensors       weights under the Hub's names
config.json             architecture and label names, for `transformers`
tokenizer.json, tokenizer_config.json
model.json              task, length, results, for dltool
MANIFEST.json           size and SHA-256 of each file
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltool import __version__, checkpoint, files, manifests, runs
from dltool import tensors as tensor_files
from dltool.errors import CheckpointError
from dltool_bert_finetune import hub, model, tokens
from dltool_bert_finetune.targets import Targets
from dltool_bert_finetune.tokens import Tokeniser

TOPIC = "bert-finetune"
START = "start"  # in a run folder: tokeniser and config, so that an unfinished run can be used
OTHER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Loaded:
    """A trained classifier with what it needs to be used right.

    Attributes:
        network: in evaluation mode, on the device.
        stride: tokens that two windows of a long text share; 0: a third of a window.
        description: what `model.json` says; empty for a folder that dltool did not write.
    """

    network: nn.Module
    tokeniser: Tokeniser
    targets: Targets
    paired: bool
    description: dict[str, Any]
    stride: int = 0


def config_text(network: nn.Module) -> bytes:
    """Return a network's `config.json`."""
    settings: Any = network.config
    settings.architectures = [type(network).__name__]
    values = json.loads(settings.to_json_string())
    values.pop("_name_or_path", None)
    return files.json_bytes(values)


def write(
    folder: Path, network: nn.Module, tokeniser: Tokeniser, description: Mapping[str, Any]
) -> None:
    """Write a model folder; it appears whole or not at all.

    Raises:
        Diverged: a weight is not finite.
        DltoolError: the folder cannot be written.
    """
    tensors = dict(network.state_dict())
    tensor_files.refuse_non_finite(tensors)
    contents, tied = tensor_files.without_ties(tensors)
    document = {"format": checkpoint.FORMAT, "dltool": __version__, **description, "tied": tied}
    texts = {
        **tokeniser.files(),
        "config.json": config_text(network),
        checkpoint.DESCRIPTION: files.json_bytes(document),
    }
    with files.folder_written_atomically(folder) as temporary:
        entries = {
            manifests.MODEL: tensor_files.write(temporary / manifests.MODEL, contents),
            **{name: files.write_hashed(temporary / name, [text]) for name, text in texts.items()},
        }
        files.write_synced(temporary / checkpoint.MANIFEST, checkpoint.manifest_bytes(entries))


def describe(
    targets: Targets,
    *,
    paired: bool,
    tokeniser: Tokeniser,
    source: Mapping[str, Any],
    rank: int,
    stride: int,
) -> dict[str, Any]:
    """Return what `model.json` tells of a trained model."""
    return {
        "topic": TOPIC,
        "kind": "classifier",
        "targets": targets.as_dict(),
        "classes": list(targets.classes),
        "paired": paired,
        "max_length": tokeniser.max_length,
        "lora_rank": rank,
        "stride": stride,
        "source": dict(source),
    }


def write_start(
    run: Path, network: nn.Module, tokeniser: Tokeniser, description: Mapping[str, Any]
) -> None:
    """Leave in a run folder what builds the network again before its model is finished."""
    with files.folder_written_atomically(run / START) as temporary:
        for name, text in tokeniser.files().items():
            files.write_synced(temporary / name, text)
        files.write_synced(temporary / "config.json", config_text(network))
    files.write_json_atomic(run / checkpoint.DESCRIPTION, dict(description))


def load(folder: Path, device: torch.device) -> Loaded:
    """Load a run's model, its best so far, or any classifier in the layout of the Hub.

    Raises:
        CheckpointError: there is none, it is damaged, or its head was never trained.
    """
    for candidate in (folder / "model", folder):
        if (candidate / checkpoint.MANIFEST).exists():
            return _finished(candidate, device)
    best = folder / "checkpoints" / "best"
    if (folder / checkpoint.DESCRIPTION).exists() and best.exists():
        return _unfinished(folder, best, device)
    if (folder / "run.json").exists():
        verb = runs.verb_of(runs.read_json(folder))
        raise CheckpointError(
            "E511",
            f"{folder} holds no trained model yet",
            cure=f"finish it: dltool {TOPIC} {verb} --resume {folder}",
        )
    return _foreign(folder, device)


def _finished(folder: Path, device: torch.device) -> Loaded:
    tensors, description = checkpoint.load_model(folder)
    _refuse_other_kinds(folder, description)
    return _built(folder, folder, tensors, description, device)


def _refuse_other_kinds(folder: Path, description: Mapping[str, Any]) -> None:
    owner = description.get("topic")
    if owner != TOPIC:
        raise CheckpointError(
            "E513",
            f"{folder} is a model of {owner}, not of {TOPIC}",
            cure=f"dltool {owner} --help",
        )
    if description.get("kind") != "classifier":
        raise CheckpointError(
            "E513",
            f"{folder} is an encoder without a head: it has no classes yet",
            cure=f"dltool {TOPIC} train --model {folder} --data FILE",
        )


def _unfinished(folder: Path, best: Path, device: torch.device) -> Loaded:
    description = runs.read_json(folder, checkpoint.DESCRIPTION)
    _refuse_other_kinds(folder, description)
    loaded = _built(folder / START, folder, checkpoint.load(best).model, description, device)
    targets = loaded.targets
    if targets.task == "regress":
        model.fold_scale(loaded.network, targets.mean, targets.std)
    return loaded


def _built(
    place: Path,
    shown: Path,
    tensors: Mapping[str, Tensor],
    description: dict[str, Any],
    device: torch.device,
) -> Loaded:
    try:
        targets = Targets.from_dict(description["targets"])
        paired, length = bool(description["paired"]), int(description["max_length"])
        rank, stride = int(description["lora_rank"]), int(description.get("stride", 0))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            "E513", f"{shown} describes no text classifier", cure="restore the file"
        ) from error
    settings = model.read_settings(place, str(shown))
    tokeniser = model.read_tokeniser(place, settings, str(shown), length)
    network = model.with_fresh_weights(settings, targets.task, str(shown))
    if rank and any(".lora_A." in name for name in tensors):
        network = model.adapted(network, rank, targets.task)
    checkpoint.load_weights(network, tensors, shown)
    network = model.merged(network).to(device).eval()
    return Loaded(network, tokeniser, targets, paired, description, stride)


def _foreign(folder: Path, device: torch.device) -> Loaded:
    """Load a model that another program trained for one of our tasks."""
    hub.check_folder(folder, str(folder))
    settings = model.read_settings(folder, str(folder))
    names = tuple(str(settings.id2label[number]) for number in sorted(settings.id2label))
    targets = _foreign_targets(settings, names)
    with model.explained(str(folder)):
        network, report = model.kind_for(targets.task).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    missing = [name for name in model.check_report(report, str(folder)) if "pooler" not in name]
    if missing:
        raise CheckpointError(
            "E513",
            f"{folder} has no trained head ({missing[0]} is missing): its answers would be random",
            cure=f"dltool {TOPIC} train --model {folder} --data FILE",
        )
    limit = tokens.longest_input(settings)
    tokeniser = model.read_tokeniser(folder, settings, str(folder), min(limit, 512))
    return Loaded(network.float().to(device).eval(), tokeniser, targets, False, {})


def _foreign_targets(settings: Any, names: tuple[str, ...]) -> Targets:
    """Return what a model was trained for, after the name of its architecture."""
    architectures = " ".join(settings.architectures or ())
    for task, head in model.TOKEN_HEADS.items():
        if head in architectures:
            # SQuAD 2 or 1: nobody wrote it down, and a model may always say that it does not know
            return Targets(task, names) if task == "token" else Targets(task, unanswerable=True)
    if len(names) == 1:
        return Targets("regress")
    is_several = str(settings.problem_type or "").startswith("multi")
    return Targets("multilabel" if is_several else "classify", names)
