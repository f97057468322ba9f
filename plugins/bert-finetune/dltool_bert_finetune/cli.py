"""Options and help of the `bert-finetune` topic; what they do is in the files beside this one."""

from __future__ import annotations

from typing import Annotated

import typer

from dltool import options, resuming, runs
from dltool.console import Console
from dltool.options import data_option, training_option
from dltool_bert_finetune import pretrain_cli, using
from dltool_bert_finetune.config import (
    CLASS_WEIGHTS,
    GUARDS,
    MONITORS,
    SCHEDULES,
    SIZES,
    TASKS,
    TrainConfig,
    recipe,
)

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
    data: Annotated[
        str,
        data_option(
            "A CSV, TSV or JSON Lines file (.gz, .xz, .bz2 too), a folder with train, val and test "
            "files, or reviews: made-up sentences to try it."
        ),
    ] = TrainConfig.data,
    val_data: Annotated[
        str, data_option("Validation file.", show_default="split off")
    ] = TrainConfig.val_data,
    test_data: Annotated[
        str, data_option("Test file.", show_default="split off")
    ] = TrainConfig.test_data,
    task: Annotated[str, data_option(f"{', '.join(TASKS)}.")] = TrainConfig.task,
    text: Annotated[
        str, data_option("Column of the text, or its number from 1.", show_default="inferred")
    ] = TrainConfig.text,
    second: Annotated[
        str, data_option("Column of the second text of a pair.", show_default="inferred")
    ] = TrainConfig.second,
    label: Annotated[
        str, data_option("Column of the label.", show_default="inferred")
    ] = TrainConfig.label,
    separator: Annotated[
        str, data_option("Between the labels of one text.", show_default="|")
    ] = TrainConfig.separator,
    encoding: Annotated[str, data_option("Of the files.")] = TrainConfig.encoding,
    max_train: Annotated[
        int, data_option("Training texts to draw; 0: all.", min=0)
    ] = TrainConfig.max_train,
    max_eval: Annotated[
        int, data_option("Validation and test texts to draw of each; 0: all.", min=0)
    ] = TrainConfig.max_eval,
    val_fraction: Annotated[
        float, data_option("Share that chooses the best epoch where there is no such file.")
    ] = TrainConfig.val_fraction,
    test_fraction: Annotated[
        float, data_option("Share for the final test where there is no such file.")
    ] = TrainConfig.test_fraction,
    model: Annotated[
        str,
        training_option(
            "A model folder in the Hub's layout, a run, a name on the Hub, or scratch."
        ),
    ] = TrainConfig.model,
    revision: Annotated[
        str, training_option("Branch, tag or commit of a name on the Hub.", show_default="main")
    ] = TrainConfig.revision,
    size: Annotated[
        str, training_option(f"Of a model from scratch: {', '.join(SIZES)}.")
    ] = TrainConfig.size,
    vocabulary: Annotated[
        int, training_option("Word pieces of a model from scratch, at most.", min=100)
    ] = TrainConfig.vocabulary,
    max_length: Annotated[
        int, training_option("Tokens of a text; longer ones are cut.", min=4)
    ] = TrainConfig.max_length,
    new_head: Annotated[
        bool, training_option("Replace a head that was trained for other classes.", "--new-head")
    ] = TrainConfig.new_head,
    epochs: options.EpochsOption = TrainConfig.epochs,
    batch_size: options.BatchSizeOption = TrainConfig.batch_size,
    max_tokens: Annotated[
        int, training_option("Texts times longest text of a batch; 0: no limit.", min=0)
    ] = TrainConfig.max_tokens,
    learning_rate: options.LrOption = TrainConfig.learning_rate,
    weight_decay: options.WeightDecayOption = TrainConfig.weight_decay,
    schedule: Annotated[str, training_option(f"{', '.join(SCHEDULES)}.")] = TrainConfig.schedule,
    warmup: Annotated[
        float, training_option("Share of the steps in which the rate rises.")
    ] = TrainConfig.warmup,
    layer_decay: Annotated[
        float, training_option("Rate of a layer as a share of that of the layer above.")
    ] = TrainConfig.layer_decay,
    freeze: Annotated[
        str, training_option("none, embeddings, encoder, or a number of layers from below.")
    ] = TrainConfig.freeze,
    gradual: Annotated[
        bool, training_option("Free one more layer from above each epoch.", "--gradual")
    ] = TrainConfig.gradual,
    lora_rank: Annotated[
        int, training_option("Train low-rank additions of this rank; 0: the weights.", min=0)
    ] = TrainConfig.lora_rank,
    label_smoothing: Annotated[
        float, training_option("Share of the target spread over all classes.")
    ] = TrainConfig.label_smoothing,
    class_weights: Annotated[
        str, training_option(f"{', '.join(CLASS_WEIGHTS)}.")
    ] = TrainConfig.class_weights,
    gradient_checkpointing: Annotated[
        bool,
        training_option("Less memory for a third more time.", "--gradient-checkpointing"),
    ] = TrainConfig.gradient_checkpointing,
    accumulate: options.AccumulateOption = TrainConfig.accumulate,
    clip: options.ClipOption = TrainConfig.clip,
    ema: options.EmaOption = TrainConfig.ema,
    patience: options.PatienceOption = TrainConfig.patience,
    monitor: Annotated[
        str, training_option(f"What chooses the best epoch: {', '.join(MONITORS)}.")
    ] = TrainConfig.monitor,
    device: options.DeviceOption = TrainConfig.device,
    precision: options.PrecisionOption = TrainConfig.precision,
    seed: options.SeedOption = TrainConfig.seed,
    deterministic: options.DeterministicOption = TrainConfig.deterministic,
    threads: options.ThreadsOption = TrainConfig.threads,
    save_every: options.SaveEveryOption = TrainConfig.save_every,
    keep: options.KeepOption = TrainConfig.keep,
    max_time: options.MaxTimeOption = TrainConfig.max_time,
    on_nan: options.OnNanOption = TrainConfig.on_nan,
    guards: Annotated[
        str, options.run_option(f"{', '.join(GUARDS)}: checks before training.")
    ] = TrainConfig.guards,
    out: options.OutOption = None,
    resume: options.ResumeOption = None,
    allow_changed: options.AllowChangedOption = False,
    config: options.ConfigOption = None,
    json: options.JsonOption = False,
    events: options.EventsOption = False,
) -> None:
    """Train a text classifier; test it once; leave a run folder with the model."""
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
