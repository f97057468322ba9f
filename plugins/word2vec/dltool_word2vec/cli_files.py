"""Options and help of the commands that score, draw and change files of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import options, runs
from dltool.console import Console

TOPIC = "word2vec"
FORMATS = ("word2vec", "word2vec-binary", "fasttext", "glove", "numpy", "safetensors")
QUANTIZED = ("int8", "fp16")


def evaluate(
    run: options.RunArgument,
    pairs: Annotated[
        list[str] | None,
        typer.Option(help="wordsim353, simlex999, or a file: word, word, score [default: both]."),
    ] = None,
    analogies: Annotated[str, typer.Option(help="google, a file in its form, or none.")] = "google",
    limit: Annotated[
        int, typer.Option(min=0, help="Analogies among the N most frequent words; 0: all.")
    ] = 30_000,
    min_spearman: Annotated[
        float | None,
        typer.Option(min=-1.0, max=1.0, help="Exit 6 if the first correlation is below."),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Score vectors against human judgements of similarity, and on analogies."""
    console = Console("word2vec evaluate", json=json)
    from dltool_word2vec import evaluate as evaluation

    evaluation.evaluate_run(
        runs.locate(run, TOPIC),
        pairs=pairs,
        analogies=analogies,
        limit=limit,
        min_spearman=min_spearman,
        console=console,
    )


def plot(
    run: options.RunArgument,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD]...", help="Words to draw [default: the most frequent]."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A name in .png or .html [default: both, in the run folder]."),
    ] = None,
    method: Annotated[str, typer.Option(help="pca or tsne.")] = "pca",
    top: Annotated[int, typer.Option(min=3, help="Frequent words to draw.")] = 200,
    skip: Annotated[int, typer.Option(min=0, help="Most frequent words to leave out.")] = 50,
    perplexity: Annotated[float, typer.Option(help="tsne: neighbours that count.")] = 20.0,
    seed: options.SeedOption = 0,
    json: options.JsonOption = False,
) -> None:
    """Draw words as points in the plane: a picture, and a page to zoom into."""
    console = Console("word2vec plot", json=json)
    from dltool_word2vec import plot as drawing

    drawing.plot_run(
        runs.locate(run, TOPIC),
        words or [],
        out=out,
        method=method,
        top=top,
        skip=skip,
        perplexity=perplexity,
        seed=seed,
        console=console,
    )


def export(
    run: options.RunArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File or folder to make.")],
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")] = "word2vec",
    top: Annotated[int, typer.Option(min=0, help="The N most frequent words; 0: all.")] = 0,
    json: options.JsonOption = False,
) -> None:
    """Write vectors in the form of another program."""
    console = Console("word2vec export", json=json)
    from dltool_word2vec import exporting

    exporting.export_run(runs.locate(run, TOPIC), out, form=form, top=top, console=console)


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="word2vec, fastText, GloVe, NumPy, …")
    ],
    out: Annotated[Path, typer.Option(help="Model folder to make.")],
    form: Annotated[
        str, typer.Option("--format", help=f"auto, {', '.join(FORMATS)}, gensim.")
    ] = "auto",
    encoding: Annotated[str, typer.Option(help="Of the words: utf-8, latin-1, …")] = "utf-8",
    top: Annotated[int, typer.Option(min=0, help="Read the first N words; 0: all.")] = 0,
    allow_pickle: Annotated[
        Path | None,
        typer.Option(
            help="Name FILE again to load gensim's own pickle, which can run any code.",
            metavar="FILE",
        ),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Make a model folder of vectors that another program wrote."""
    console = Console("word2vec import", json=json)
    from dltool_word2vec import importing

    importing.import_file(
        file,
        out,
        form=form,
        encoding=encoding,
        top=top,
        allow_pickle=allow_pickle,
        console=console,
    )


def quantize(
    run: options.RunArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Model folder to make.")],
    method: Annotated[str, typer.Option(help=f"{', '.join(QUANTIZED)}.")] = "int8",
    top: Annotated[int, typer.Option(min=0, help="The N most frequent words; 0: all.")] = 0,
    json: options.JsonOption = False,
) -> None:
    """Make the vectors smaller, and say what that changes: neighbours and scores."""
    console = Console("word2vec quantize", json=json)
    from dltool_word2vec import quantize as smaller

    smaller.quantize_run(runs.locate(run, TOPIC), out, method=method, top=top, console=console)


def add(app: typer.Typer) -> None:
    """Add the commands of this module to the topic."""
    app.command()(evaluate)
    app.command()(plot)
    app.command()(export)
    app.command("import")(import_)
    app.command()(quantize)
