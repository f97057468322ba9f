"""Options and help of the `bert-finetune` topic; what they do is in the files beside this one."""

from __future__ import annotations

import typer

from dltool import options, resuming, runs
from dltool.console import Console
from dltool_bert_finetune import choices, pretrain_cli, using
from dltool_bert_finetune.config import TrainConfig, recipe

TOPIC = "bert-finetune"

app = typer.Typer(
    help="Fine-tune BERT and its kin on your labelled texts, and use the result.",
    no_args_is_help=True,
    context_settings=options.HELP,
    epilog="Try: dltool bert-finetune train     then: dltool bert-finetune predict latest TEXT",
)


@app.callback()
def root() -> None:
    """Fine-tune BERT and its kin on your labelled texts, and use the result."""


@app.command()
def train(
    ctx: typer.Context,
    data: choices.DataOption = TrainConfig.data,
    val_data: choices.ValDataOption = TrainConfig.val_data,
    test_data: choices.TestDataOption = TrainConfig.test_data,
    task: choices.TaskOption = TrainConfig.task,
    text: choices.TextOption = TrainConfig.text,
    second: choices.SecondOption = TrainConfig.second,
    label: choices.LabelOption = TrainConfig.label,
    separator: choices.SeparatorOption = TrainConfig.separator,
    encoding: choices.EncodingOption = TrainConfig.encoding,
    max_train: choices.MaxTrainOption = TrainConfig.max_train,
    max_eval: choices.MaxEvalOption = TrainConfig.max_eval,
    val_fraction: choices.ValFractionOption = TrainConfig.val_fraction,
    test_fraction: choices.TestFractionOption = TrainConfig.test_fraction,
    model: choices.ModelOption = TrainConfig.model,
    revision: choices.RevisionOption = TrainConfig.revision,
    size: choices.SizeOption = TrainConfig.size,
    vocabulary: choices.VocabularyOption = TrainConfig.vocabulary,
    max_length: choices.MaxLengthOption = TrainConfig.max_length,
    stride: choices.StrideOption = TrainConfig.stride,
    new_head: choices.NewHeadOption = TrainConfig.new_head,
    epochs: options.EpochsOption = TrainConfig.epochs,
    batch_size: options.BatchSizeOption = TrainConfig.batch_size,
    max_tokens: choices.MaxTokensOption = TrainConfig.max_tokens,
    learning_rate: options.LrOption = TrainConfig.learning_rate,
    weight_decay: options.WeightDecayOption = TrainConfig.weight_decay,
    schedule: choices.ScheduleOption = TrainConfig.schedule,
    warmup: choices.WarmupOption = TrainConfig.warmup,
    layer_decay: choices.LayerDecayOption = TrainConfig.layer_decay,
    freeze: choices.FreezeOption = TrainConfig.freeze,
    gradual: choices.GradualOption = TrainConfig.gradual,
    lora_rank: choices.LoraRankOption = TrainConfig.lora_rank,
    label_smoothing: choices.LabelSmoothingOption = TrainConfig.label_smoothing,
    class_weights: choices.ClassWeightsOption = TrainConfig.class_weights,
    gradient_checkpointing: choices.CheckpointingOption = TrainConfig.gradient_checkpointing,
    accumulate: options.AccumulateOption = TrainConfig.accumulate,
    clip: options.ClipOption = TrainConfig.clip,
    ema: options.EmaOption = TrainConfig.ema,
    patience: options.PatienceOption = TrainConfig.patience,
    monitor: choices.MonitorOption = TrainConfig.monitor,
    device: options.DeviceOption = TrainConfig.device,
    precision: options.PrecisionOption = TrainConfig.precision,
    seed: options.SeedOption = TrainConfig.seed,
    deterministic: options.DeterministicOption = TrainConfig.deterministic,
    threads: options.ThreadsOption = TrainConfig.threads,
    save_every: options.SaveEveryOption = TrainConfig.save_every,
    keep: options.KeepOption = TrainConfig.keep,
    max_time: options.MaxTimeOption = TrainConfig.max_time,
    on_nan: options.OnNanOption = TrainConfig.on_nan,
    guards: choices.GuardsOption = TrainConfig.guards,
    out: options.OutOption = None,
    resume: options.ResumeOption = None,
    allow_changed: options.AllowChangedOption = False,
    config: options.ConfigOption = None,
    json: options.JsonOption = False,
    events: options.EventsOption = False,
) -> None:
    """Train on texts, tagged words or questions; test once; leave a run folder with the model."""
    console = Console("bert-finetune train", json=json, events=events)
    flags = options.given(ctx, TrainConfig)
    folder = None
    if resume is not None:
        options.refuse_beside_resume(out=out, config=config)
        if pretrain_cli.is_pretraining(resume):  # `dltool resume` knows one verb for all
            pretrain_cli.go_on(resume, flags, console, allow_changed=allow_changed)
            return
        folder, settings, origins = resuming.resumed(
            resume, TOPIC, TrainConfig, flags, allow_changed=allow_changed
        )
    else:
        file = runs.read_config_file(config, TrainConfig) if config else {}
        settings, origins = runs.settle(
            TrainConfig,
            flags=flags,
            file=file,
            file_name=str(config),
            recipe=recipe({**file, **flags}),
        )
    console.loading()
    from dltool_bert_finetune.train import train as run_training

    run_training(settings, origins, console=console, out=out, resume=folder)


app.command()(pretrain_cli.pretrain)
using.add_to(app)
