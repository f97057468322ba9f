"""Network, tokeniser and tokens of a run, before its first step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dltool import device as devices
from dltool import runs
from dltool.console import Console
from dltool_bert_finetune import answering, hub, model, tasks, tokens
from dltool_bert_finetune import folder as model_folder
from dltool_bert_finetune.columns import Examples
from dltool_bert_finetune.config import REVIEWS, SCRATCH, TrainConfig
from dltool_bert_finetune.dataset import Split, TextData
from dltool_bert_finetune.tagging_data import Sentences
from dltool_bert_finetune.tasks import Inputs
from dltool_bert_finetune.tokens import Tokeniser


@dataclass(frozen=True)
class Prepared:
    """What a training works with: the network, its tokeniser, and its splits as tokens."""

    network: nn.Module
    tokeniser: Tokeniser
    splits: dict[str, Inputs]
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
        network, tokeniser, source = _from_run(resume, config, data)
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
        network = model.adapted(network, config.lora_rank, data.targets.task)
    model.freeze(network, config)
    splits = {
        name: tasks.encode(tokeniser, part, data.targets, config.stride, console)
        for name, part in data.splits.items()
    }
    windows = splits["train"]
    if windows.windows is not None:
        limit = answering.longest_answer(windows.values, tokeniser.max_length)
        data.targets = replace(data.targets, longest=limit)
    prepared = Prepared(network.to(device), tokeniser, splits, source)
    _announce(prepared, console)
    return prepared


def _from_run(
    resume: Path, config: TrainConfig, data: TextData
) -> tuple[nn.Module, Tokeniser, dict[str, str]]:
    """Rebuild what a run began with; the weights come out of its checkpoint."""
    start = resume / model_folder.START
    settings = model.read_settings(start, str(resume))
    tokeniser = model.read_tokeniser(start, settings, str(resume), config.max_length)
    description = runs.read_json(resume, "model.json")
    network = model.with_fresh_weights(settings, data.targets.task)
    return network, tokeniser, dict(description["source"])


def _from_scratch(
    config: TrainConfig, data: TextData, console: Console
) -> tuple[nn.Module, Tokeniser]:
    learnt = tokens.train_wordpiece(_all_texts(data.splits["train"]), config.vocabulary)
    settings = model.label_settings(model.scratch_settings(config.size, len(learnt)), data.targets)
    if config.data != REVIEWS:
        console.warn(
            "no --model: a small BERT learns the language from these texts alone; a pretrained "
            "model (--model FOLDER) will be far better"
        )
    tokeniser = tokens.wrap(learnt, settings, config.max_length)
    return model.with_fresh_weights(settings, data.targets.task), tokeniser


def _all_texts(source: Split) -> list[str]:
    if isinstance(source, Examples):
        return [*source.texts, *source.seconds]
    if isinstance(source, Sentences):
        return source.texts
    contexts = dict.fromkeys(row.context for row in source.rows)
    return [*contexts, *(row.question for row in source.rows)]


def _announce(prepared: Prepared, console: Console) -> None:
    total = sum(parameter.numel() for parameter in prepared.network.parameters())
    trained = sum(
        parameter.numel() for parameter in prepared.network.parameters() if parameter.requires_grad
    )
    settings: Any = prepared.network.config
    console.note(
        f"{prepared.source['model']} ({settings.model_type}): {total:,} parameters, {trained:,} "
        f"trained; {len(prepared.tokeniser.library):,} word pieces"
    )
    lengths = prepared.splits["train"].tokens.lengths
    console.note(f"inputs have {lengths.mean():.0f} tokens on average, {lengths.max()} at most")
    long = {name: part.tokens.cut for name, part in prepared.splits.items() if part.tokens.cut}
    if long:
        _announce_long(prepared, long, console)
    asked = [part.windows.cut for part in prepared.splits.values() if part.windows is not None]
    if sum(asked):
        share = prepared.tokeniser.max_length // 4
        console.warn(f"{sum(asked):,} questions longer than {share} tokens were cut")


def _announce_long(prepared: Prepared, long: dict[str, int], console: Console) -> None:
    parts = prepared.splits
    shown = ", ".join(f"{n:,} of {len(parts[name].source):,} in {name}" for name, n in long.items())
    limit = prepared.tokeniser.max_length
    if isinstance(parts["train"].source, Examples):
        console.warn(
            f"texts longer than {limit} tokens were cut ({shown}); --max-length sets the limit"
        )
    else:
        console.note(f"texts longer than {limit} tokens are read in windows ({shown})")
