"""Options and help of the `word2vec` topic; what they do is in train.py and query.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from dltool import asking, options, resuming, runs
from dltool.console import Console
from dltool.errors import ConfigError
from dltool.options import data_option, run_option, training_option
from dltool_word2vec import cli_files
from dltool_word2vec.config import (
    ALGORITHMS,
    ARCHITECTURES,
    ENGINES,
    TOKENIZERS,
    TrainConfig,
    recipe,
)

TOPIC = "word2vec"

app = typer.Typer(
    help="Learn word vectors from your text; search them, score them, draw them.",
    no_args_is_help=True,
    context_settings=options.HELP,
    epilog="Try: dltool word2vec train     then: dltool word2vec similar latest fire",
)

LimitOption = Annotated[
    int, typer.Option("--limit", min=0, help="Answer with the N most frequent words only; 0: all.")
]
SegmenterOption = Annotated[
    str, typer.Option("--segmenter", help="MODULE:FUNCTION that cuts text, as in training.")
]


@app.callback()
def root() -> None:
    """Learn word vectors from your text; search them, score them, draw them."""


@app.command()
@asking.trains(TrainConfig, TOPIC)
def train(
    asked: asking.Asked[TrainConfig],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE|FOLDER|-]...",
            help="The text, as with --data: several files and folders may follow.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        data_option(
            "lee (300 news articles), a file, a folder, or - for stdin; plain, .gz, .xz or .bz2.",
            show_default="lee",
        ),
    ] = None,
    column: Annotated[
        str, data_option("Column of CSV and TSV files, or key of JSON lines, with the text.")
    ] = TrainConfig.column,
    encoding: Annotated[str, data_option("Of the files: utf-8, latin-1, …")] = TrainConfig.encoding,
    tokenizer: Annotated[str, data_option(f"{', '.join(TOKENIZERS)}.")] = TrainConfig.tokenizer,
    segmenter: Annotated[
        str, data_option("MODULE:FUNCTION that cuts a text into words, as jieba:lcut.")
    ] = TrainConfig.segmenter,
    phrases: Annotated[
        int, data_option("Passes that join frequent pairs, as new_york.", min=0)
    ] = TrainConfig.phrases,
    min_count: Annotated[
        int,
        data_option("Rarer words get no vector.", min=1, show_default=options.BY_RECIPE),
    ] = TrainConfig.min_count,
    sample: Annotated[
        float, data_option("Words above this share of the text are thinned out; 0: none.")
    ] = TrainConfig.sample,
    engine: Annotated[str, training_option(f"{', '.join(ENGINES)}.")] = TrainConfig.engine,
    algorithm: Annotated[str, training_option(f"{', '.join(ALGORITHMS)}.")] = TrainConfig.algorithm,
    arch: Annotated[
        str, training_option(f"{', '.join(ARCHITECTURES)}; in doc2vec: dbow, dm.")
    ] = TrainConfig.arch,
    dim: Annotated[int, training_option("Length of a vector.", min=1)] = TrainConfig.dim,
    window: Annotated[
        int, training_option("Most words to each side that are context.", min=1)
    ] = TrainConfig.window,
    negative: Annotated[
        int, training_option("Noise words a pair; 0 only beside --hs.", min=0)
    ] = TrainConfig.negative,
    hs: Annotated[
        bool, training_option("Hierarchical softmax; needs --negative 0.", "--hs/--no-hs")
    ] = TrainConfig.hs,
    bucket: Annotated[
        int, training_option("fasttext: rows of the letter groups.", min=1)
    ] = TrainConfig.bucket,
    min_n: Annotated[int, training_option("fasttext: shortest group.", min=1)] = TrainConfig.min_n,
    max_n: Annotated[int, training_option("fasttext: longest group.", min=1)] = TrainConfig.max_n,
    start_from: Annotated[
        str,
        training_option("Run or model folder whose vectors to train further.", metavar="RUN"),
    ] = TrainConfig.start_from,
    block: Annotated[int, training_option("torch: words a batch.", min=64)] = TrainConfig.block,
    noise: Annotated[
        int, training_option("torch: noise words that neighbours share.", min=1)
    ] = TrainConfig.noise,
    workers: Annotated[
        int, run_option("gensim: threads; 0: one a processor. Only 1 repeats exactly.", min=0)
    ] = TrainConfig.workers,
) -> None:
    """Train word vectors on your text; leave a run folder with the model."""
    named = [*(data or ()), *(texts or ())]
    if named:
        asked = dataclasses.replace(asked, flags={**asked.flags, "data": tuple(named)})
    chosen = asked.chosen
    defaults = recipe(tuple(chosen.get("data", TrainConfig.data)))
    if chosen.get("start_from") and asked.resume is None:
        from dltool_word2vec.train import inherited

        defaults |= inherited(str(chosen["start_from"]))
    folder, config, origins = asked.settled(defaults)
    if folder is not None:
        _keep_threads(folder, config, origins, allow_changed=asked.allow_changed)
    from dltool_word2vec.train import train as run_training

    run_training(config, origins, console=asked.console, out=asked.out, resume=folder)


def _keep_threads(
    folder: Path, settings: TrainConfig, origins: dict[str, str], *, allow_changed: bool
) -> None:
    """Refuse another number of threads, which elsewhere changes no result and here does."""
    before = runs.read_config(folder, TrainConfig)[0].workers
    if (
        settings.engine != "gensim"
        or before == settings.workers
        or 1
        not in (
            before,
            settings.workers,
        )
    ):
        return
    if not allow_changed:
        raise ConfigError(
            "E207",
            f"a resumed run keeps its settings (workers: {before} in the run, "
            f"{settings.workers} given)",
            cure="leave --workers out, or give up exactness with --allow-changed",
        )
    origins["workers"] = resuming.CHANGED


@app.command()
def similar(
    run: options.RunArgument,
    words: Annotated[list[str], typer.Argument(metavar="WORD...", help="One word or several.")],
    top: Annotated[int, typer.Option(min=1, help="Neighbours of each word.")] = 10,
    together: Annotated[
        bool, typer.Option("--together", help="Neighbours of the mean of all words.")
    ] = False,
    document: Annotated[
        bool, typer.Option("--document", help="doc2vec: the words are numbers of texts, from 0.")
    ] = False,
    limit: LimitOption = 0,
    json: options.JsonOption = False,
) -> None:
    """Show the words nearest to a word, by cosine; exact."""
    console = Console("word2vec similar", json=json)
    from dltool_word2vec import query

    query.similar(
        runs.locate(run, TOPIC),
        words,
        top=top,
        together=together,
        document=document,
        limit=limit,
        console=console,
    )


@app.command()
def analogy(
    run: options.RunArgument,
    terms: Annotated[
        list[str],
        typer.Argument(metavar="TERM...", help="Words with + and - between: king - man + woman."),
    ],
    top: Annotated[int, typer.Option(min=1, help="Answers to show.")] = 5,
    limit: LimitOption = 0,
    json: options.JsonOption = False,
) -> None:
    """Solve king - man + woman = ?, by the cosine to the sum of the directions (3CosAdd)."""
    console = Console("word2vec analogy", json=json)
    from dltool_word2vec import query

    query.analogy(runs.locate(run, TOPIC), terms, top=top, limit=limit, console=console)


@app.command("odd-one-out")
def odd_one_out(
    run: options.RunArgument,
    words: Annotated[list[str], typer.Argument(metavar="WORD...", help="Three words or more.")],
    json: options.JsonOption = False,
) -> None:
    """Find the word that fits the others least: the lowest cosine to the mean of the others."""
    console = Console("word2vec odd-one-out", json=json)
    from dltool_word2vec import query

    query.odd_one_out(runs.locate(run, TOPIC), words, console=console)


@app.command()
def vector(
    run: options.RunArgument,
    words: Annotated[list[str], typer.Argument(metavar="WORD...", help="One word or several.")],
    normalize: Annotated[bool, typer.Option("--normalize", help="Bring each to length 1.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Print the numbers of words, a line each."""
    console = Console("word2vec vector", json=json)
    from dltool_word2vec import query

    query.show_vectors(runs.locate(run, TOPIC), words, normalize=normalize, console=console)


@app.command("text-similar")
def text_similar(
    run: options.RunArgument,
    texts: Annotated[
        list[str],
        typer.Argument(metavar="TEXT|FILE|-...", help="Texts, or files with one a line."),
    ],
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Every text with every other, as a table.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Most similar pairs to show.")] = 10,
    segmenter: SegmenterOption = "",
    json: options.JsonOption = False,
) -> None:
    """Compare texts by the weighted mean of their words (SIF)."""
    console = Console("word2vec text-similar", json=json)
    from dltool_word2vec import text_query

    text_query.text_similar(
        runs.locate(run, TOPIC),
        texts,
        matrix=matrix,
        top=top,
        segmenter=segmenter,
        console=console,
    )


@app.command()
def neighbors(
    run: options.RunArgument,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Words, one a line.")],
    top: Annotated[int, typer.Option(min=1, help="Neighbours of each word.")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="Write JSON lines here [default: stdout].")
    ] = None,
    limit: LimitOption = 0,
    json: options.JsonOption = False,
) -> None:
    """Find the neighbours of many words at once; uses faiss where it is installed."""
    console = Console("word2vec neighbors", json=json)
    from dltool_word2vec import text_query

    text_query.neighbors(
        runs.locate(run, TOPIC), file, top=top, out=out, limit=limit, console=console
    )


@app.command()
def vocab(
    run: options.RunArgument,
    top: Annotated[int, typer.Option(min=0, help="Most frequent words to show; 0: all.")] = 20,
    contains: Annotated[str, typer.Option(help="Only words that hold these letters.")] = "",
    coverage: Annotated[
        Path | None, typer.Option(help="Say how much of this text has vectors.", metavar="FILE")
    ] = None,
    segmenter: SegmenterOption = "",
    json: options.JsonOption = False,
) -> None:
    """List the words that have vectors, or how much of a text they cover."""
    console = Console("word2vec vocab", json=json)
    from dltool_word2vec import text_query

    text_query.vocab(
        runs.locate(run, TOPIC),
        top=top,
        contains=contains,
        coverage=coverage,
        segmenter=segmenter,
        console=console,
    )


@app.command()
def info(run: options.RunArgument, json: options.JsonOption = False) -> None:
    """Show what a run or model folder is: words, size, how it was made, scores."""
    console = Console("word2vec info", json=json)
    from dltool_word2vec import query

    query.describe(runs.locate(run, TOPIC), console)


cli_files.add(app)
