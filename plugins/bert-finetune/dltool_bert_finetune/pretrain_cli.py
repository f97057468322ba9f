"""Options and help of `bert-finetune pretrain`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import typer

from dltool import options, resuming, runs
from dltool.console import Console
from dltool.errors import ConfigError
from dltool_bert_finetune import choices
from dltool_bert_finetune.pretrain_config import PretrainConfig, recipe

TOPIC = "bert-finetune"


def is_pretraining(run: str) -> bool:
    """Tell whether a run of this topic is one of pre-training."""
    return "mask_fraction" in runs.read_json(runs.locate(run, TOPIC), "config.json")


def go_on(
    run: str, flags: dict[str, Any], console: Console, *, allow_changed: bool = False
) -> None:
    """Go on with a pre-training run.

    Raises:
        ConfigError: E205, an option of fine-tuning was given.
    """
    known = {each.name for each in dataclasses.fields(PretrainConfig)}
    foreign = sorted(set(flags) - known)
    if foreign:
        raise ConfigError(
            "E205",
            f"{run} is a run of pre-training, which has no {foreign[0]}",
            cure=f"dltool {TOPIC} pretrain --resume {run}",
        )
    folder, settings, origins = resuming.resumed(
        run, TOPIC, PretrainConfig, flags, allow_changed=allow_changed
    )
    console.loading()
    from dltool_bert_finetune.pretrain import pretrain as run_pretraining

    run_pretraining(settings, origins, console=console, resume=folder)


def pretrain(
    ctx: typer.Context,
    data: choices.PretrainDataOption = PretrainConfig.data,
    documents: choices.DocumentsOption = PretrainConfig.documents,
    encoding: choices.EncodingOption = PretrainConfig.encoding,
    max_documents: choices.MaxDocumentsOption = PretrainConfig.max_documents,
    val_fraction: choices.PretrainValFractionOption = PretrainConfig.val_fraction,
    test_fraction: choices.PretrainTestFractionOption = PretrainConfig.test_fraction,
    model: choices.PretrainModelOption = PretrainConfig.model,
    revision: choices.RevisionOption = PretrainConfig.revision,
    size: choices.SizeOption = PretrainConfig.size,
    vocabulary: choices.VocabularyOption = PretrainConfig.vocabulary,
    max_length: choices.PretrainMaxLengthOption = PretrainConfig.max_length,
    mask_fraction: choices.MaskFractionOption = PretrainConfig.mask_fraction,
    whole_word: choices.WholeWordOption = PretrainConfig.whole_word,
    next_sentence: choices.NextSentenceOption = PretrainConfig.next_sentence,
    epochs: options.EpochsOption = PretrainConfig.epochs,
    batch_size: options.BatchSizeOption = PretrainConfig.batch_size,
    learning_rate: options.LrOption = PretrainConfig.learning_rate,
    weight_decay: options.WeightDecayOption = PretrainConfig.weight_decay,
    schedule: choices.ScheduleOption = PretrainConfig.schedule,
    warmup: choices.WarmupOption = PretrainConfig.warmup,
    accumulate: options.AccumulateOption = PretrainConfig.accumulate,
    clip: options.ClipOption = PretrainConfig.clip,
    patience: options.PatienceOption = PretrainConfig.patience,
    device: options.DeviceOption = PretrainConfig.device,
    precision: options.PrecisionOption = PretrainConfig.precision,
    seed: options.SeedOption = PretrainConfig.seed,
    deterministic: options.DeterministicOption = PretrainConfig.deterministic,
    threads: options.ThreadsOption = PretrainConfig.threads,
    save_every: options.SaveEveryOption = PretrainConfig.save_every,
    keep: options.KeepOption = PretrainConfig.keep,
    max_time: options.MaxTimeOption = PretrainConfig.max_time,
    on_nan: options.OnNanOption = PretrainConfig.on_nan,
    out: options.OutOption = None,
    resume: options.ResumeOption = None,
    allow_changed: options.AllowChangedOption = False,
    config: options.ConfigOption = None,
    json: options.JsonOption = False,
    events: options.EventsOption = False,
) -> None:
    """Pre-train a BERT on plain text: hidden words and next sentences; train --model takes it."""
    console = Console("bert-finetune pretrain", json=json, events=events)
    flags = options.given(ctx, PretrainConfig)
    if resume is not None:
        options.refuse_beside_resume(out=out, config=config)
        go_on(resume, flags, console, allow_changed=allow_changed)
        return
    _begin(flags, config, out, console)


def _begin(flags: dict[str, Any], config: Path | None, out: Path | None, console: Console) -> None:
    file = runs.read_config_file(config, PretrainConfig) if config else {}
    settings, origins = runs.settle(
        PretrainConfig,
        flags=flags,
        file=file,
        file_name=str(config),
        recipe=recipe({**file, **flags}),
    )
    console.loading()
    from dltool_bert_finetune.pretrain import pretrain as run_pretraining

    run_pretraining(settings, origins, console=console, out=out)
