"""Options and help of the `bert-finetune` topic; what they do is in the files beside this one."""

from __future__ import annotations

import typer

from dltool import asking, options
from dltool_bert_finetune import choices, pretrain_cli, using
from dltool_bert_finetune.config import SCRATCH, TrainConfig, recipe

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
@asking.trains(TrainConfig, TOPIC)
def train(
    asked: asking.Asked[TrainConfig],
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
    max_tokens: choices.MaxTokensOption = TrainConfig.max_tokens,
    schedule: choices.ScheduleOption = TrainConfig.schedule,
    warmup: choices.WarmupOption = TrainConfig.warmup,
    layer_decay: choices.LayerDecayOption = TrainConfig.layer_decay,
    freeze: choices.FreezeOption = TrainConfig.freeze,
    gradual: choices.GradualOption = TrainConfig.gradual,
    lora_rank: choices.LoraRankOption = TrainConfig.lora_rank,
    label_smoothing: choices.LabelSmoothingOption = TrainConfig.label_smoothing,
    class_weights: choices.ClassWeightsOption = TrainConfig.class_weights,
    gradient_checkpointing: choices.CheckpointingOption = TrainConfig.gradient_checkpointing,
    monitor: choices.MonitorOption = TrainConfig.monitor,
) -> None:
    """Train on texts, tagged words or questions; test once; leave a run folder with the model."""
    folder, config, origins = asked.settled(recipe(asked.chosen))
    if folder is None and config.model != SCRATCH:
        from dltool_bert_finetune import hub

        hub.expect(config.model, config.revision)
    asked.console.loading()
    from dltool_bert_finetune.train import train as run_training

    run_training(config, origins, console=asked.console, out=asked.out, resume=folder)


app.command()(pretrain_cli.pretrain)
using.add_to(app)
