"""Options and help of the commands that use a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import options, runs
from dltool.console import Console

TOPIC = "bert-finetune"
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A run, a model folder in the Hub's layout, or a name on the Hub."
    ),
]
TextsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="TEXT...|FILE|-", help="Texts, a file of lines or a table of them, or - for stdin."
    ),
]
TextOption = Annotated[str, typer.Option("--text", help="Column of the text in a table.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the topic's app."""
    for command in (evaluate, predict, explain, info, export, encode, similarity, tokens):
        app.command()(command)


def evaluate(
    run: options.RunArgument,
    data: Annotated[
        str | None,
        typer.Option(help="Another file; its labels must be known [default: the run's data]."),
    ] = None,
    split: Annotated[str, typer.Option(help="test, val or train, of the run's data.")] = "test",
    text: TextOption = "",
    second: Annotated[str, typer.Option(help="Column of the second text of a pair.")] = "",
    label: Annotated[str, typer.Option(help="Column of the label.")] = "",
    hardest: Annotated[int, typer.Option(min=0, help="Texts with the greatest loss to show.")] = 5,
    min_accuracy: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Exit 6 below this accuracy.")
    ] = None,
    min_f1: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Exit 6 below this F1 of entities or answers."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Confusion matrix picture [default: in the run folder].", show_default=False
        ),
    ] = None,
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Measure a trained model with interval and baseline; show classes and the hardest texts."""
    console = Console("bert-finetune evaluate", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_bert_finetune import evaluate as evaluation

    request = evaluation.Request(
        data, split, text, second, label, hardest, min_accuracy, min_f1, plot
    )
    evaluation.evaluate_run(folder, request, device=device, console=console)


def predict(
    run: options.RunArgument,
    texts: TextsArgument,
    pair: Annotated[
        str, typer.Option(help="The second text, for a model of pairs and a single TEXT.")
    ] = "",
    context: Annotated[
        str,
        typer.Option(metavar="TEXT|FILE", help="What holds the answers, for a model of questions."),
    ] = "",
    text: TextOption = "",
    second: Annotated[str, typer.Option(help="Column of the second text in a table.")] = "",
    top: Annotated[int, typer.Option(min=1, help="Classes or answers to show for each text.")] = 1,
    encoding: Annotated[str, typer.Option(help="Of the files.")] = "utf-8",
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Name the class of texts, their entities, or the answer to questions, with probabilities."""
    console = Console("bert-finetune predict", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_bert_finetune.inputs import Wanted
    from dltool_bert_finetune.predict import predict_texts

    wanted = Wanted(tuple(texts), pair, text, second, encoding, context)
    predict_texts(folder, wanted, top=top, device=device, console=console)


def explain(
    run: options.RunArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A text.")],
    pair: Annotated[str, typer.Option(help="The second text, for a model of pairs.")] = "",
    label: Annotated[
        str, typer.Option(help="Class to explain.", show_default="the likeliest")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write the text in colours, as .html.")] = None,
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Show which words an answer hangs on: each is hidden in turn."""
    console = Console("bert-finetune explain", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_bert_finetune.explain import explain_text

    explain_text(folder, text, pair=pair, label=label, out=out, device=device, console=console)


def info(run: options.RunArgument, json: options.JsonOption = False) -> None:
    """Show what a run or model folder is: parameters by group, classes, length, results."""
    console = Console("bert-finetune info", json=json)
    folder = runs.locate(run, TOPIC)
    from dltool_bert_finetune.describe import describe

    describe(folder, console)


def export(
    run: options.RunArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to make [default: export in the run folder].", show_default=False
        ),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--format", help="hub: for transformers.pipeline; onnx: a graph for onnxruntime."
        ),
    ] = "hub",
    device: options.DeviceOption = "cpu",
    json: options.JsonOption = False,
) -> None:
    """Write a folder for other programs, load it there, and compare the answers."""
    console = Console("bert-finetune export", json=json)
    folder = runs.locate(run, TOPIC)
    console.loading()
    from dltool_bert_finetune.export import export_run

    export_run(folder, out or folder / "export", kind, device=device, console=console)


def encode(
    model: ModelArgument,
    texts: TextsArgument,
    text: TextOption = "",
    out: Annotated[
        Path | None, typer.Option(help="Write all vectors here, as .npy or .jsonl.")
    ] = None,
    pooling: Annotated[
        str, typer.Option(help="mean of the tokens' vectors, or cls: that of the first.")
    ] = "mean",
    normalise: Annotated[
        bool, typer.Option("--normalise", help="Bring every vector to length 1.")
    ] = False,
    max_length: Annotated[int, typer.Option(min=4, help="Tokens; longer ones are cut.")] = 256,
    encoding: Annotated[str, typer.Option(help="Of the files.")] = "utf-8",
    revision: Annotated[str, typer.Option(help="Of a name on the Hub.")] = "",
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Turn texts into vectors, in evaluation mode: the same text, the same vector."""
    console = Console("bert-finetune encode", json=json)
    console.loading()
    from dltool_bert_finetune import encode as encoding_of
    from dltool_bert_finetune.inputs import Wanted

    settings = encoding_of.Settings(pooling, normalise, max_length, revision, device)
    wanted = Wanted(tuple(texts), "", text, "", encoding)
    encoding_of.encode_texts(model, wanted, settings, out=out, console=console)


def similarity(
    model: ModelArgument,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT TEXT...", help="Two or more texts.")],
    pooling: Annotated[
        str, typer.Option(help="mean of the tokens' vectors, or cls: that of the first.")
    ] = "mean",
    max_length: Annotated[int, typer.Option(min=4, help="Tokens; longer ones are cut.")] = 256,
    revision: Annotated[str, typer.Option(help="Of a name on the Hub.")] = "",
    device: options.DeviceOption = "auto",
    json: options.JsonOption = False,
) -> None:
    """Show how near texts are: the cosine of the first with each other one."""
    console = Console("bert-finetune similarity", json=json)
    console.loading()
    from dltool_bert_finetune import encode as encoding_of

    settings = encoding_of.Settings(pooling, True, max_length, revision, device)
    encoding_of.compare_texts(model, texts, settings, console=console)


def tokens(
    model: ModelArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A text.")],
    second: Annotated[
        str, typer.Argument(metavar="[SECOND]", help="The second text of a pair.")
    ] = "",
    max_length: Annotated[int, typer.Option(min=4, help="Tokens; longer ones are cut.")] = 256,
    revision: Annotated[str, typer.Option(help="Of a name on the Hub.")] = "",
    json: options.JsonOption = False,
) -> None:
    """Show how a model reads a text: word pieces, their numbers and their segments."""
    console = Console("bert-finetune tokens", json=json)
    console.loading()
    from dltool_bert_finetune.encode import show_tokens

    show_tokens(model, text, second, max_length, revision, console)
