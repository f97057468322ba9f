"""Options and help of the `seq2seq` topic; what they do is in train.py, translate.py and beside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import asking, options, runs
from dltool.console import Console
from dltool_seq2seq import flags
from dltool_seq2seq.config import TrainConfig, recipe
from dltool_seq2seq.demo_cli import app as demo_app

TOPIC = "seq2seq"

app = typer.Typer(
    help="Turn one sequence into another: sums, dates, spelling, translation.",
    no_args_is_help=True,
    context_settings=options.HELP,
    epilog="Try: dltool seq2seq train     then: dltool seq2seq translate latest 123+456",
)
app.add_typer(demo_app, name="attention-demo")


@app.callback()
def root() -> None:
    """Turn one sequence into another: sums, dates, spelling, translation."""


@app.command()
@asking.trains(TrainConfig, TOPIC)
def train(
    asked: asking.Asked[TrainConfig],
    task: flags.Task = TrainConfig.task,
    source_column: flags.SourceColumn = TrainConfig.source_column,
    target_column: flags.TargetColumn = TrainConfig.target_column,
    encoding: flags.Encoding = TrainConfig.encoding,
    val: flags.Val = TrainConfig.val,
    test: flags.Test = TrainConfig.test,
    val_fraction: flags.ValFraction = TrainConfig.val_fraction,
    test_fraction: flags.TestFraction = TrainConfig.test_fraction,
    samples: flags.Samples = TrainConfig.samples,
    max_value: flags.MaxValue = TrainConfig.max_value,
    operators: flags.Operators = TrainConfig.operators,
    level: flags.Level = TrainConfig.level,
    lower: flags.Lower = TrainConfig.lower,
    vocab_size: flags.VocabSize = TrainConfig.vocab_size,
    min_freq: flags.MinFreq = TrainConfig.min_freq,
    share_vocab: flags.ShareVocab = TrainConfig.share_vocab,
    limit: flags.Limit = TrainConfig.limit,
    max_length: flags.MaxLength = TrainConfig.max_length,
    bucket: flags.Bucket = TrainConfig.bucket,
    reverse_source: flags.ReverseSource = TrainConfig.reverse_source,
    reverse_target: flags.ReverseTarget = TrainConfig.reverse_target,
    model: flags.ModelName = TrainConfig.model,
    width: flags.Width = TrainConfig.width,
    layers: flags.Layers = TrainConfig.layers,
    decoder_layers: flags.DecoderLayers = TrainConfig.decoder_layers,
    heads: flags.Heads = TrainConfig.heads,
    feedforward: flags.Feedforward = TrainConfig.feedforward,
    norm: flags.Norm = TrainConfig.norm,
    positions: flags.Positions = TrainConfig.positions,
    attention: flags.Attention = TrainConfig.attention,
    bidirectional: flags.Bidirectional = TrainConfig.bidirectional,
    tied: flags.Tied = TrainConfig.tied,
    dropout: flags.Dropout = TrainConfig.dropout,
    schedule: flags.Schedule = TrainConfig.schedule,
    warmup: flags.Warmup = TrainConfig.warmup,
    label_smoothing: flags.LabelSmoothing = TrainConfig.label_smoothing,
    scheduled_sampling: flags.ScheduledSampling = TrainConfig.scheduled_sampling,
) -> None:
    """Train an encoder-decoder; test it once, answering freely; leave a run folder."""
    chosen = asked.chosen
    defaults = recipe(chosen.get("task", task), chosen.get("model", model), chosen.get("level"))
    folder, config, origins = asked.settled(defaults)
    asked.console.loading()
    from dltool_seq2seq.train import summary
    from dltool_seq2seq.train import train as run_training

    result = run_training(config, origins, console=asked.console, out=asked.out, resume=folder)
    asked.console.result(result, summary(result))
    example = {"arithmetic": "123+456", "date": "'3 March 1998'", "hello": "hello"}
    text = example.get(config.task, "TEXT")
    asked.console.hint(f"dltool seq2seq translate {result['run']} {text}")


@app.command()
def translate(
    run: options.RunArgument,
    text: Annotated[
        str,
        typer.Argument(
            metavar="TEXT|FILE|-", help="A text, a file of texts, one a line, or - for stdin."
        ),
    ],
    decoder: flags.Decoder = "greedy",
    beam: flags.Beam = 4,
    length_penalty: flags.LengthPenalty = 0.6,
    temperature: flags.Temperature = 1.0,
    top_k: flags.TopK = 0,
    top_p: flags.TopP = 1.0,
    min_length: flags.MinLength = 0,
    max_length: flags.MaxTokens = 0,
    seed: flags.SampleSeed = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts decoded together.")] = 256,
    encoding: Annotated[str, typer.Option(help="Encoding of a file.")] = "utf-8",
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Write the target of each text: a translation, a result, a date."""
    console = Console("seq2seq translate", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_seq2seq.decode import Search
    from dltool_seq2seq.translate import translate as run_translation

    search = Search(
        decoder,
        beam,
        length_penalty,
        temperature,
        top_k,
        top_p,
        min_length,
        max_length,
        seed,
    )
    run_translation(
        folder,
        text,
        search,
        batch_size=batch_size,
        device=device,
        encoding=encoding,
        console=console,
    )


@app.command()
def evaluate(
    run: options.RunArgument,
    data: Annotated[
        str,
        typer.Option(
            help="Other pairs: a table, or SOURCE,TARGET.", show_default="the run's own split"
        ),
    ] = "",
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    max_value: Annotated[
        int,
        typer.Option(min=0, help="Arithmetic: sums with longer operands than trained on; 0: off."),
    ] = 0,
    source_column: flags.SourceColumn = "",
    target_column: flags.TargetColumn = "",
    decoder: flags.Decoder = "greedy",
    beam: flags.Beam = 4,
    length_penalty: flags.LengthPenalty = 0.6,
    min_exact: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Exit 6 below this exact match.")
    ] = None,
    min_bleu: Annotated[
        float | None, typer.Option(min=0.0, max=100.0, help="Exit 6 below this BLEU.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts decoded together.")] = 256,
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Measure a model: exact match, BLEU and chrF, token accuracy, perplexity, by length."""
    console = Console("seq2seq evaluate", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_seq2seq.decode import Search
    from dltool_seq2seq.evaluate import Wanted, evaluate_run

    wanted = Wanted(data, split, max_value, source_column, target_column, min_exact, min_bleu)
    search = Search(decoder, beam, length_penalty)
    evaluate_run(folder, wanted, search, batch_size=batch_size, device=device, console=console)


@app.command()
def attention(
    run: options.RunArgument,
    text: Annotated[str, typer.Argument(help="A text to translate.")],
    out: flags.Plot = Path("attention.png"),
    json: options.JsonOption = False,
) -> None:
    """Draw where the decoder looks while it writes each token of the target."""
    console = Console("seq2seq attention", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_seq2seq.look import draw_attention

    draw_attention(folder, text, out, console)


@app.command()
def trace(
    run: options.RunArgument,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts that make one batch.", metavar="[TEXT]...")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Draw the masks into this PNG.")] = None,
    json: options.JsonOption = False,
) -> None:
    """Show the shape of every tensor on its way through the model, and the masks."""
    console = Console("seq2seq trace", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_seq2seq.trace import trace_run

    trace_run(folder, texts or [], out, console)


@app.command()
def compare(
    runs_: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Run folders of one task.",
            show_default="every finished run below runs/seq2seq",
        ),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Show several runs in one table: parameters, quality, speed."""
    console = Console("seq2seq compare", json=json)
    folders = [runs.locate(text, TOPIC) for text in runs_ or []]
    from dltool_seq2seq.compare import compare_runs, finished_runs

    compare_runs(folders or finished_runs(), console)


@app.command()
def info(run: options.RunArgument, json: options.JsonOption = False) -> None:
    """Show what a run or model folder is: model, vocabularies, results."""
    console = Console("seq2seq info", json=json)
    folder = runs.locate(run, TOPIC)
    from dltool_seq2seq.translate import describe

    describe(folder, console)
