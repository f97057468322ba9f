"""Network, tokeniser and tokens of a run, before its first step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dltool import device as devices
from dltool import runs
from dltool.console import Console
from dltool_bert_finetune import folder as model_folder
from dltool_bert_finetune import hub, model, tokens
from dltool_bert_finetune.config import REVIEWS, SCRATCH, TrainConfig
from dltool_bert_finetune.data import TextData
from dltool_bert_finetune.tokens import Tokeniser, Tokens


@dataclass(frozen=True)
class Prepared:
    """What a training works with: the network, its tokeniser, and the tokens of each split."""

    network: nn.Module
    tokeniser: Tokeniser
    splits: dict[str, Tokens]
    source: dict[str, str]


def prepare(
    config: TrainConfig,
    data: TextData,
    device: torch.device,
    resume: Path | None,
    console: Console,
) -> Prepared:
    """Load or build network and tokeniser, tokenise the splits, choose what is trained."""
    torch.manual_seed(devices.derive_seed(config.seed, "weights"))
    if resume is not None:
        network, tokeniser, source = _from_run(resume, config)
    elif config.model == SCRATCH:
        network, tokeniser = _from_scratch(config, data, console)
        source = {"model": SCRATCH}
    else:
        found = hub.find(config.model, config.revision, console)
        network = model.pretrained(found.folder, found.name, data.targets, new_head=config.new_head)
        settings: Any = network.config
        tokeniser = model.read_tokeniser(found.folder, settings, found.name, config.max_length)
        source = {"model": found.name, "revision": found.revision}
    if config.gradient_checkpointing:
        network.gradient_checkpointing_enable(  # type: ignore[operator]
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    if config.lora_rank:
        network = model.adapted(network, config.lora_rank)
    model.freeze(network, config)
    splits = {
        name: tokens.cached(tokeniser, part.texts, part.seconds, console)
        for name, part in data.splits.items()
    }
    prepared = Prepared(network.to(device), tokeniser, splits, source)
    _announce(prepared, console)
    return prepared


def _from_run(resume: Path, config: TrainConfig) -> tuple[nn.Module, Tokeniser, dict[str, str]]:
    """Rebuild what a run began with; the weights come out of its checkpoint."""
    start = resume / model_folder.START
    settings = model.read_settings(start, str(resume))
    tokeniser = model.read_tokeniser(start, settings, str(resume), config.max_length)
    description = runs.read_json(resume, "model.json")
    return model.with_fresh_weights(settings), tokeniser, dict(description["source"])


def _from_scratch(
    config: TrainConfig, data: TextData, console: Console
) -> tuple[nn.Module, Tokeniser]:
    train = data.splits["train"]
    learnt = tokens.train_wordpiece([*train.texts, *train.seconds], config.vocabulary)
    settings = model.label_settings(model.scratch_settings(config.size, len(learnt)), data.targets)
    if config.data != REVIEWS:
        console.warn(
            "no --model: a small BERT learns the language from these texts alone; a pretrained "
            "model (--model FOLDER) will be far better"
        )
    tokeniser = tokens.wrap(learnt, settings, config.max_length)
    return model.with_fresh_weights(settings), tokeniser


def _announce(prepared: Prepared, console: Console) -> None:
    total = sum(parameter.numel() for parameter in prepared.network.parameters())
    trained = sum(
        parameter.numel() for parameter in prepared.network.parameters() if parameter.requires_grad
    )
    settings: Any = prepared.network.config
    lengths = prepared.splits["train"].lengths
    console.note(
        f"{prepared.source['model']} ({settings.model_type}): {total:,} parameters, {trained:,} "
        f"trained; {len(prepared.tokeniser.library):,} word pieces"
    )
    cut = {name: part.cut for name, part in prepared.splits.items() if part.cut}
    note = f"texts have {lengths.mean():.0f} tokens on average, {lengths.max()} at most"
    console.note(note)
    if cut:
        shown = ", ".join(
            f"{count:,} of {len(prepared.splits[name]):,} in {name}" for name, count in cut.items()
        )
        console.warn(
            f"texts longer than {prepared.tokeniser.max_length} tokens were cut ({shown}); "
            "--max-length sets the limit"
        )
