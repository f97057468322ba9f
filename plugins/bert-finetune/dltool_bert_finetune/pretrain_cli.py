"""Options and help of `bert-finetune pretrain`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import options, resuming, runs
from dltool.console import Console
from dltool.errors import ConfigError
from dltool.options import data_option, training_option
from dltool_bert_finetune.config import SCHEDULES, SIZES
from dltool_bert_finetune.pretrain_config import DOCUMENTS, PretrainConfig, recipe

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
    data: Annotated[
        str,
        data_option(
            "Text files or folders, comma-separated (.gz, .xz, .bz2 too), or lee: 300 news texts "
            "that ship with gensim."
        ),
    ] = PretrainConfig.data,
    documents: Annotated[
        str, data_option(f"What ends a document: {' or '.join(DOCUMENTS)} (an empty line).")
    ] = PretrainConfig.documents,
    encoding: Annotated[str, data_option("Of the files.")] = PretrainConfig.encoding,
    max_documents: Annotated[
        int, data_option("Take so many from the start; 0: all.", min=0)
    ] = PretrainConfig.max_documents,
    val_fraction: Annotated[
        float, data_option("Share of the documents that chooses the best epoch.")
    ] = PretrainConfig.val_fraction,
    test_fraction: Annotated[
        float, data_option("Share of the documents for the final test.")
    ] = PretrainConfig.test_fraction,
    model: Annotated[
        str,
        training_option("scratch, or a model to go on with: a folder, a run, a name on the Hub."),
    ] = PretrainConfig.model,
    revision: Annotated[
        str, training_option("Branch, tag or commit of a name on the Hub.", show_default="main")
    ] = PretrainConfig.revision,
    size: Annotated[
        str, training_option(f"Of a model from scratch: {', '.join(SIZES)}.")
    ] = PretrainConfig.size,
    vocabulary: Annotated[
        int, training_option("Word pieces of a model from scratch, at most.", min=100)
    ] = PretrainConfig.vocabulary,
    max_length: Annotated[
        int, training_option("Tokens of an input, 512 at most.", min=8)
    ] = PretrainConfig.max_length,
    mask_fraction: Annotated[
        float, training_option("Share of the tokens to guess.")
    ] = PretrainConfig.mask_fraction,
    whole_word: Annotated[
        bool, training_option("Hide all pieces of a word together.", "--whole-word")
    ] = PretrainConfig.whole_word,
    next_sentence: Annotated[
        bool,
        training_option(
            "Also tell whether a sentence follows another.",
            "--next-sentence/--no-next-sentence",
        ),
    ] = PretrainConfig.next_sentence,
    epochs: options.EpochsOption = PretrainConfig.epochs,
    batch_size: options.BatchSizeOption = PretrainConfig.batch_size,
    learning_rate: options.LrOption = PretrainConfig.learning_rate,
    weight_decay: options.WeightDecayOption = PretrainConfig.weight_decay,
    schedule: Annotated[str, training_option(f"{', '.join(SCHEDULES)}.")] = PretrainConfig.schedule,
    warmup: Annotated[
        float, training_option("Share of the steps in which the rate rises.")
    ] = PretrainConfig.warmup,
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
